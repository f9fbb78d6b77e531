"""Whether two fixed checkpoints differ in accuracy on the same images, by McNemar's exact test (McNemar, Psychometrika 1947)."""

import numpy as np

from crossdistill.core.registry import metric
from crossdistill.core.types import Estimate
from crossdistill.metrics._answers import COUNT, per_image
from crossdistill.metrics._error_table import right_or_wrong
from crossdistill.stats import LEVEL


@metric(source="McNemar, Psychometrika 1947", unit="share; p; images")
def mcnemar(correct_a: np.ndarray, correct_b: np.ndarray) -> dict[str, Estimate]:
    """`difference` of accuracy, a minus b, and its exact two-sided `p_value`, from the images that `only_a` and `only_b` had right.

    About these two checkpoints; it says nothing about the methods that made them. The interval is the exact one that goes with the
    test: Clopper & Pearson's for a's share of those images, given their number, so that it holds zero where p > 0.05. p is 1 where
    no image tells the two apart. Draws of one image that do not agree have no exact test: the p value and interval are then missing.

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
    return {**_exact(int((ahead > 0).sum()), int((ahead < 0).sum()), n), **counts}


def _exact(only_a: int, only_b: int, n: int) -> dict[str, Estimate]:
    from scipy.special import bdtr

    apart = only_a + only_b
    p = min(1.0, 2 * float(bdtr(min(only_a, only_b), apart, 0.5)))
    low, high = (0.0, 0.0) if apart == 0 else ((2 * end - 1) * apart / n for end in _clopper_pearson(only_a, apart))
    return {
        "difference": Estimate((only_a - only_b) / n, low, high, n=n, unit="difference"),
        "p_value": Estimate(p, n=n, unit="p"),
    }


def _clopper_pearson(successes: int, n: int) -> tuple[float, float]:
    """The exact interval of a proportion (Clopper & Pearson 1934); scipy's binomtest finds the same ends by a search, 100 times slower."""
    from scipy.special import betaincinv

    tail = (1 - LEVEL) / 2
    low = float(betaincinv(successes, n - successes + 1, tail)) if successes else 0.0
    high = float(betaincinv(successes + 1, n - successes, 1 - tail)) if successes < n else 1.0
    return low, high
