"""Validity gates: when a figure is not worth printing, and the sentence that says why."""

import numpy as np

from crossdistill.core.records import GateStatus
from crossdistill.metrics._answers import share

ABOVE_CHANCE = 0.1
"""The part of the way from chance to perfect that clean accuracy must surely have covered."""

SIGNAL = 0.2
"""How far above a constant answer a network must be able to get on a probe for the probe to be read."""

ROUNDING = 1e-9  # 0.3 - 0.1 is a little under 0.2 in floating point


def accuracy_gate(clean_correct: np.ndarray, chance: float) -> str | None:
    """None where clean accuracy is clearly above chance, else the reason why nothing built on it can be read.

    The gate: the lower 95 % bound (Wilson) of accuracy - chance must exceed 0.1 (1 - chance).
    """
    clean = share(np.asarray(clean_correct, dtype=bool))
    assert clean.value is not None
    assert clean.low is not None
    needed = ABOVE_CHANCE * (1 - chance)
    if clean.low - chance > needed:
        return None
    return (
        f"clean accuracy {100 * clean.value:.1f} % on {clean.n:,} images is not clearly above the {100 * chance:.1f} % of chance: "
        f"its lower bound is {100 * (clean.low - chance):+.1f} points from chance, more than {100 * needed:+.1f} is needed"
    )


def carries_signal(ceiling: float, floor: float) -> bool:
    """Whether a ceiling is the 20 points above its floor that the signal gate asks for, rounding errors aside.

    >>> carries_signal(0.3, 0.1), carries_signal(0.29, 0.1)
    (True, False)
    """
    return ceiling - floor >= SIGNAL - ROUNDING


def signal_gate(ceiling: float, floor: float, *, trained: bool) -> GateStatus:
    """Whether a probe carries enough signal to be read: "passed" where ceiling - floor is at least 20 points.

    Else "failed" where a network was `trained` on the probe's own images, and "not run" where none was: the ceiling is then only
    known to be no lower. `floor` is the accuracy of a label-free input, the largest class share. `ceiling` is what is known to be
    within reach: the accuracy of networks trained on the probe, as it is (an unbiased figure, decided as the gate's definition says,
    without an interval), or the lower 95 % bound (Wilson) of any other network's (the best of many is optimistic, its bound hardly).
    Where the largest class leaves less than 20 points to all images, no network can pass and none need be trained.

    >>> signal_gate(0.45, 0.25, trained=False), signal_gate(0.44, 0.25, trained=True), signal_gate(0.44, 0.25, trained=False)
    ('passed', 'failed', 'not run')
    """
    if carries_signal(ceiling, floor):
        return "passed"
    return "failed" if trained or not carries_signal(1.0, floor) else "not run"
