"""The temperature at which a network's confidence is honest, as its record tells it."""

import math

import numpy as np

from crossdistill.core.records import EstimateModel
from crossdistill.core.types import Estimate, Observations
from crossdistill.metrics._temperature import HIGHEST, LOWEST, fitted_temperature

FEWEST = 20
"""Validation images below which no temperature is fitted: a single answer among them would decide it."""

BOUNDS = {LOWEST: f"below {LOWEST:g}", HIGHEST: f"above {HIGHEST:g}"}


def temperature(answers: Observations) -> EstimateModel:
    """The temperature that fits answers to clean validation images best, what logits are to be divided by; without an interval.

    Not measurable from fewer than 20 images, for logits that are not finite, and where the best temperature lies beyond the bounds of
    the search: what is then read at the bound would tell more of the bound than of the network. Below lies that of a network which is
    never wrong on these images, above that of one whose logits say nothing of their labels.
    """
    n = len(answers.labels)
    if n < FEWEST:
        return _refused(f"a temperature is fitted on {FEWEST} validation images or more, and there are {n}", n)
    if not np.isfinite(answers.logits).all():
        return _refused("the network gives logits on validation images that are not finite", n)
    value = fitted_temperature(answers.logits, answers.labels)
    for bound, beyond in BOUNDS.items():
        if math.isclose(value, bound, rel_tol=1e-6):
            right = int((answers.decisions == answers.labels).sum())
            return _refused(
                f"no temperature fits: the best would lie {beyond} (the network is right on {right} of {n} validation images)", n
            )
    return EstimateModel(value=value, n=n, unit="temperature")


def _refused(reason: str, n: int) -> EstimateModel:
    return EstimateModel.of(Estimate.not_measurable(reason, n=n, unit="temperature"))
