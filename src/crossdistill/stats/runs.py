"""Tests over runs: Student, Welch, Fieller (numpy in)."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from crossdistill.stats.intervals import t_quantile


class Spread(NamedTuple):
    """The standard error of a difference of two means and its degrees of freedom (may be infinite)."""

    standard_error: float
    freedom: float


@dataclass(frozen=True)
class TTest:
    """A difference with Student's 95 % interval and two-sided p, and the spread that both rest on."""

    difference: float
    low: float
    high: float
    p: float
    spread: Spread


class Ratio(NamedTuple):
    """A ratio of two means with its 95 % confidence set; both ends are None where that set is unbounded."""

    value: float
    low: float | None
    high: float | None


def has_spread(*arms: np.ndarray) -> bool:
    """Whether any arm's figures differ between its runs by more than rounding."""
    return any(float(np.ptp(arm)) > 1e-12 for arm in arms)


def t_test(difference: float, spread: Spread) -> TTest:
    """The 95 % interval and the two-sided p of a difference of this spread, by Student's t."""
    from scipy.special import stdtr

    half = t_quantile(spread.freedom) * spread.standard_error
    p = 2 * float(stdtr(spread.freedom, -abs(difference) / spread.standard_error))
    return TTest(difference, difference - half, difference + half, p, spread)


def one_sample(differences: np.ndarray) -> TTest:
    """The mean of one difference a run, [runs], tested against zero by Student's t with runs - 1 degrees of freedom.

    Raises ValueError with fewer than two runs, or where they do not differ: there is nothing to judge by.

    >>> round(one_sample(np.array([0.01, 0.03])).p, 3)
    0.295
    """
    if len(differences) < 2:
        raise ValueError(f"Student's test needs at least 2 runs, got {len(differences)}")
    if not has_spread(differences):
        raise ValueError("no run differs from another: Student's test has no spread to judge by")
    spread = Spread(float(np.std(differences, ddof=1)) / math.sqrt(len(differences)), len(differences) - 1)
    return t_test(float(np.mean(differences)), spread)


def welch(a: np.ndarray, b: np.ndarray) -> TTest:
    """Mean of a minus mean of b with Welch's 95 % interval and two-sided p (Welch 1947), over run means.

    Raises ValueError with fewer than two runs an arm, or where no arm has any spread: there is nothing to judge by.
    """
    if min(len(a), len(b)) < 2:
        raise ValueError(f"Welch's test needs at least 2 runs an arm, got {len(a)} and {len(b)}")
    if not has_spread(a, b):
        raise ValueError("no arm differs between its runs: Welch's test has no spread to judge by")
    spread = difference_spread(float(np.var(a, ddof=1)) / len(a), len(a) - 1, float(np.var(b, ddof=1)) / len(b), len(b) - 1)
    return t_test(float(np.mean(a) - np.mean(b)), spread)


def difference_spread(variance_a: float, freedom_a: float, variance_b: float, freedom_b: float) -> Spread:
    """The standard error of a difference of two means with its Welch-Satterthwaite degrees of freedom.

    The variances are those of the means; infinite degrees of freedom say that a variance is known.
    """
    pooled = variance_a + variance_b
    loss = variance_a**2 / freedom_a + variance_b**2 / freedom_b
    return Spread(math.sqrt(pooled), pooled**2 / loss if loss > 0 else math.inf)


def fieller(numerators: np.ndarray, denominators: np.ndarray) -> Ratio:
    """mean(a) / mean(b) of paired figures a, b [runs] with the 95 % confidence set of Fieller (1954).

    The set holds every ratio r that Student's t test of mean(a - r b) = 0 does not reject: |mean(a - r b)| <= t sd(a - r b) / sqrt(n),
    t with n - 1 degrees of freedom. Squared, that is a quadratic in r, whose roots are the ends. Where the mean of b is not itself told
    from zero by the same test, the set is unbounded: every ratio, or every one but a stretch in the middle.
    Raises ValueError with fewer than two pairs, without any spread, or where the mean of b is 0.

    >>> [round(number, 3) for number in fieller(np.array([4.1, 3.9, 4.0]), np.array([10.0, 10.2, 9.8]))]
    [0.4, 0.363, 0.44]
    """
    if numerators.shape != denominators.shape or len(numerators) < 2:
        raise ValueError(f"a ratio of means needs at least 2 pairs, got {len(numerators)} and {len(denominators)} figures")
    if not has_spread(numerators, denominators):
        raise ValueError("no run differs from another: a ratio of means has no spread to judge by")
    a, b = float(np.mean(numerators)), float(np.mean(denominators))
    if b == 0:
        raise ValueError("the mean of the denominators is 0: there is no ratio")
    (var_a, cov), (_, var_b) = np.cov(numerators, denominators).tolist()
    reach = t_quantile(len(numerators) - 1) ** 2 / len(numerators)
    # quadratic r^2 - 2 linear r + constant <= 0
    quadratic, linear, constant = b**2 - reach * var_b, a * b - reach * cov, a**2 - reach * var_a
    if quadratic <= 0:
        return Ratio(a / b, None, None)
    # a / b solves the inequality, so that roots exist; max() is for rounding where both figures are proportional.
    root = math.sqrt(max(linear**2 - quadratic * constant, 0.0))
    return Ratio(a / b, (linear - root) / quadratic, (linear + root) / quadratic)
