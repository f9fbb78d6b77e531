"""Error consistency: Cohen's kappa of being right or wrong (Geirhos, Meding & Wichmann, NeurIPS 2020, arXiv 2006.16736)."""

import numpy as np

from crossdistill.core.registry import metric
from crossdistill.core.types import Estimate
from crossdistill.metrics._error_table import ErrorTable


@metric(source="Geirhos, Meding & Wichmann, NeurIPS 2020", unit="kappa")
def error_consistency(correct_a: np.ndarray, correct_b: np.ndarray) -> Estimate:
    """How much more often two networks are right or wrong together than two independent ones of their accuracies; 0: chance, 1: always.

    kappa = (c_obs - c_exp) / (1 - c_exp), with c_exp = p_a p_b + (1 - p_a)(1 - p_b). Both arrays say right or wrong on the same
    images. Networks of different accuracy cannot reach 1: see `consistency_ceiling`. Interval: percentile bootstrap over images,
    the same images for both. Not measurable where a network is always right or always wrong (the authors' toolbox prints 1 for two
    faultless networks, and 0 for one beside any other).

    >>> error_consistency(np.array([1, 1, 0, 0]), np.array([1, 1, 0, 1])).value  # c_obs = 3/4, c_exp = 1/2
    0.5
    """
    table = ErrorTable.of(correct_a, correct_b)
    if table.refusal:
        return Estimate.not_measurable(table.refusal, n=table.n, unit="kappa")
    return table.estimates(kappa="kappa")["kappa"]
