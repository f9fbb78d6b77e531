"""Whether two fixed checkpoints differ in accuracy on the same images, by McNemar's exact test (McNemar, Psychometrika 1947)."""

import math

import numpy as np

from crossdistill.core.registry import metric
from crossdistill.core.types import Estimate
from crossdistill.metrics._answers import COUNT, per_image
from crossdistill.metrics._error_table import right_or_wrong
from crossdistill.stats import wilson

ALPHA = 0.05


@metric(source="McNemar, Psychometrika 1947", unit="share; p; images")
def mcnemar(correct_a: np.ndarray, correct_b: np.ndarray) -> dict[str, Estimate]:
    """`difference` of accuracy, a minus b, and its exact two-sided `p_value`, from the images that `only_a` and `only_b` had right.

    About these two checkpoints; it says nothing about the methods that made them. The interval is Newcombe's for paired shares
    (Statistics in Medicine 17, 1998, method 10): unlike the exact one that takes the number of images told apart for given, it covers
    the difference 95 % of the time however many these happen to be. Where it would contradict the exact test about zero, its end is
    moved to zero. p is 1 where no image tells the two apart. Draws of one image that do not agree have no exact test: the p value
    and interval are then missing.

    >>> found = mcnemar(np.array([1, 1, 1, 1, 1, 1, 0]), np.array([0, 0, 0, 0, 0, 0, 0]))
    >>> round(found["p_value"].value, 5), found["only_a"].value  # 2 / 2**6
    (0.03125, 6.0)
    """
    a, b = (per_image(correct) for correct in right_or_wrong(correct_a, correct_b))
    n = len(a)
    ahead = a - b
    counts = {
        "only_a": Estimate(float(ahead.clip(min=0).sum()), n=n, unit=COUNT),
        "only_b": Estimate(float((-ahead).clip(min=0).sum()), n=n, unit=COUNT),
    }
    if not np.isin([a, b], (0, 1)).all():
        refusal = "the draws of an image do not agree: the exact test counts images that are right or wrong"
        return {
            "difference": Estimate(float(ahead.mean()), n=n, unit="difference"),
            "p_value": Estimate.not_measurable(refusal, n=n, unit="p"),
            **counts,
        }
    both, only_a, only_b = (int(found.sum()) for found in ((a > 0) & (b > 0), ahead > 0, ahead < 0))
    return {**_exact(both, only_a, only_b, n), **counts}


def _exact(both: int, only_a: int, only_b: int, n: int) -> dict[str, Estimate]:
    from scipy.special import bdtr

    p = min(1.0, 2 * float(bdtr(min(only_a, only_b), only_a + only_b, 0.5)))
    difference = (only_a - only_b) / n
    low, high = _newcombe(both, only_a, only_b, n)
    if p > ALPHA:
        low, high = min(low, 0.0), max(high, 0.0)
    else:
        low, high = (max(low, 0.0), high) if difference > 0 else (low, min(high, 0.0))
    return {
        "difference": Estimate(difference, low, high, n=n, unit="difference"),
        "p_value": Estimate(p, n=n, unit="p"),
    }


def _newcombe(both: int, only_a: int, only_b: int, n: int) -> tuple[float, float]:
    """Newcombe's interval of a difference of paired shares: Wilson's of both, joined by their correlation (continuity-corrected)."""
    right_a, right_b, neither = both + only_a, both + only_b, n - both - only_a - only_b
    (low_a, high_a), (low_b, high_b) = wilson(right_a, n), wilson(right_b, n)
    a, b = right_a / n, right_b / n
    together = both * neither - only_a * only_b
    spread = math.sqrt(right_a * (n - right_a) * right_b * (n - right_b))
    correlation = (max(together - n / 2, 0.0) if together > 0 else together) / spread if spread else 0.0

    def reach(one: float, other: float) -> float:
        return math.sqrt(max(0.0, one**2 - 2 * correlation * one * other + other**2))

    return a - b - reach(a - low_a, high_b - b), a - b + reach(high_a - a, b - low_b)
