"""Validity gates: when a figure is not worth printing, and the sentence that says why."""

import numpy as np

from crossdistill.metrics._answers import share

ABOVE_CHANCE = 0.1
"""The part of the way from chance to perfect that clean accuracy must surely have covered."""


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
