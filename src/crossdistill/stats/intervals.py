"""Intervals over images: Wilson, Student, and the paired bootstrap (numpy in)."""

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from crossdistill.core import seeds

LEVEL = 0.95
Z = NormalDist().inv_cdf(0.5 + LEVEL / 2)


class Interval(NamedTuple):
    """The two ends of a 95 % interval."""

    low: float
    high: float


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
