"""Intervals and tests: Wilson, paired bootstrap, Welch, Holm, smallest detectable effect (numpy in; `scipy.stats` is never imported).

Images are the sample of a single network's figure; runs are the sample of a claim about a method. The two are never mixed:
run means already contain the image variance.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from crossdistill.core import seeds

LEVEL = 0.95
POWER = 0.80
MOST_RUNS = 10_000  # an effect that needs more runs than this is called out of reach
Z = NormalDist().inv_cdf(0.5 + LEVEL / 2)


class Interval(NamedTuple):
    """The two ends of a 95 % interval."""

    low: float
    high: float


class Spread(NamedTuple):
    """The standard error of a difference of two means and its degrees of freedom (may be infinite)."""

    standard_error: float
    freedom: float


@dataclass(frozen=True)
class Welch:
    """Welch's comparison of two arms: a minus b, with the spread it rests on."""

    difference: float
    low: float
    high: float
    p: float
    spread: Spread


def wilson(successes: float, n: float) -> Interval:
    """The Wilson interval of a proportion (Wilson 1927), 0 to 1; counts may be fractional (effective sample sizes).

    >>> [round(end, 3) for end in wilson(9, 10)]
    [0.596, 0.982]
    """
    if not 0 <= successes <= n or n <= 0:
        raise ValueError(f"a proportion needs 0 <= successes <= n and n > 0, got {successes} of {n}")
    share, shrink = successes / n, 1 + Z**2 / n
    middle = (share + Z**2 / (2 * n)) / shrink
    half = Z * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2)) / shrink
    # At 0 and 1 the formula gives the end exactly, but for rounding.
    return Interval(0.0 if successes == 0 else middle - half, 1.0 if successes == n else middle + half)


def share_interval(hits: np.ndarray, totals: np.ndarray, draws: int = 1) -> Interval:
    """The interval of sum(hits) / sum(totals) over images, where each image's entries are means over its draws.

    Both arrays are [images] with 0 <= hits <= totals <= 1. The answers to several draws of one image are one cluster, so the
    Wilson formula gets the effective sample size R(1-R) / var(R), with var(R) = sum((hits - R totals)^2) / sum(totals)^2
    (the ratio estimator's linearised variance; Korn & Graubard 1998 use the same device). With one draw this is the plain
    Wilson interval; it never counts more than every answer, nor less than every image.
    """
    total = float(totals.sum())
    share = min(float(hits.sum()) / total, 1.0)
    variance = float(((hits - share * totals) ** 2).sum()) / total**2
    spread = share * (1 - share)
    effective = total if spread == 0 else min(spread / variance if variance > 0 else math.inf, total * draws)
    return wilson(share * effective, effective)


def mean_interval(values: np.ndarray) -> Interval:
    """Student's t interval of the mean of `values` [images]. Raises ValueError below two values."""
    if len(values) < 2:
        raise ValueError(f"the interval of a mean needs at least 2 values, got {len(values)}")
    mean, error = float(np.mean(values)), float(np.std(values, ddof=1)) / math.sqrt(len(values))
    half = t_quantile(len(values) - 1) * error
    return Interval(mean - half, mean + half)


def t_quantile(freedom: float) -> float:
    """The two-sided 95 % quantile of Student's t; `freedom` may be infinite (the normal quantile)."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.5 + LEVEL / 2))


def paired_bootstrap(
    columns: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], *key: seeds.Part, resamples: int = 2000
) -> Interval:
    """The percentile interval of a statistic of column means, images resampled jointly: `columns` is [images, columns].

    `statistic` maps resampled means [resamples, columns] to values, NaN where it is undefined (left out). Equal rows are
    pooled first: multinomial counts of the distinct rows have the same law as counts of the images, and 0/1 columns have few
    distinct rows, so that a resample costs almost nothing. The draws depend on `key` and on nothing else.
    """
    rows, counts = np.unique(columns, axis=0, return_counts=True)
    return percentile_interval(statistic(resampled_means(rows, counts, *key, resamples=resamples)))


def resampled_means(rows: np.ndarray, counts: np.ndarray, *key: seeds.Part, resamples: int = 2000) -> np.ndarray:
    """The column means of resampled images, [resamples, columns], from the distinct `rows` of their figures and how often each occurs."""
    generator = np.random.Generator(seeds.bits("bootstrap", *key))
    n = int(counts.sum())
    return generator.multinomial(n, counts / n, size=resamples) @ rows / n


def percentile_interval(values: np.ndarray) -> Interval:
    """The middle 95 % of resampled values; NaN, a resample without the figure, is left out."""
    low, high = np.percentile(values[~np.isnan(values)], [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return Interval(float(low), float(high))


def has_spread(*arms: np.ndarray) -> bool:
    """Whether any arm's figures differ between its runs by more than rounding."""
    return any(float(np.ptp(arm)) > 1e-12 for arm in arms)


def welch(a: np.ndarray, b: np.ndarray) -> Welch:
    """Mean of a minus mean of b with Welch's 95 % interval and two-sided p (Welch 1947), over run means.

    Raises ValueError with fewer than two runs an arm, or where no arm has any spread: there is nothing to judge by.
    """
    if min(len(a), len(b)) < 2:
        raise ValueError(f"Welch's test needs at least 2 runs an arm, got {len(a)} and {len(b)}")
    if not has_spread(a, b):
        raise ValueError("no arm differs between its runs: Welch's test has no spread to judge by")
    from scipy.special import stdtr

    spread = difference_spread(float(np.var(a, ddof=1)) / len(a), len(a) - 1, float(np.var(b, ddof=1)) / len(b), len(b) - 1)
    difference = float(np.mean(a) - np.mean(b))
    half = t_quantile(spread.freedom) * spread.standard_error
    p = 2 * float(stdtr(spread.freedom, -abs(difference) / spread.standard_error))
    return Welch(difference, difference - half, difference + half, p, spread)


def difference_spread(variance_a: float, freedom_a: float, variance_b: float, freedom_b: float) -> Spread:
    """The standard error of a difference of two means with its Welch-Satterthwaite degrees of freedom.

    The variances are those of the means; infinite degrees of freedom say that a variance is known.
    """
    pooled = variance_a + variance_b
    loss = variance_a**2 / freedom_a + variance_b**2 / freedom_b
    return Spread(math.sqrt(pooled), pooled**2 / loss if loss > 0 else math.inf)


def minimum_detectable_effect(standard_error: float, freedom: float) -> float:
    """The smallest true difference that a two-sided 5 % t test finds in 80 % of such studies.

    Solved with the non-central t distribution; the chance of a finding with the wrong sign (under 1e-6) is left out.
    With two runs an arm the standard error is itself badly known, and so is this figure.
    """
    from scipy.special import nctdtrinc

    # scipy's inverse is undefined at infinity; at 1e6 it is the normal case to five digits.
    freedom = min(freedom, 1e6)
    return standard_error * float(nctdtrinc(freedom, 1 - POWER, t_quantile(freedom)))


def runs_needed(difference: float, variance_a: float, variance_b: float) -> int | None:
    """The runs an arm at which Welch's test finds `difference` in 80 % of studies, at equal arms and these run variances.

    None where the difference or both variances are zero, or where more than 10,000 runs would be needed.

    >>> runs_needed(0.05, 0.03**2, 0.03**2)
    7
    """
    if difference == 0 or variance_a + variance_b == 0:
        return None

    def detectable(runs: int) -> float:
        return minimum_detectable_effect(*difference_spread(variance_a / runs, runs - 1, variance_b / runs, runs - 1))

    low, high = 1, 2  # too few, maybe enough
    while detectable(high) > abs(difference):
        low, high = high, high * 2
        if low > MOST_RUNS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if detectable(middle) <= abs(difference) else (middle, high)
    return high if high <= MOST_RUNS else None


def holm(p_values: Sequence[float]) -> list[float]:
    """The p values adjusted for the family by Holm's step-down rule (Holm 1979), in the order given.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted
