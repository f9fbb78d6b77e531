"""What two networks' errors have in common: how often both are right or both wrong, and how often chance alone would have it so."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crossdistill.core.types import Estimate
from crossdistill.metrics._answers import not_empty
from crossdistill.stats import percentile_interval, resampled_means


@dataclass(frozen=True)
class Agreement:
    """Figures of one table, or of one table for each resample."""

    observed: np.ndarray  # share of images on which both are right or both wrong
    expected: np.ndarray  # the same share of two independent networks with these accuracies
    largest: np.ndarray  # the same share at most, with these accuracies

    @property
    def kappa(self) -> np.ndarray:
        return _ratio(self.observed - self.expected, 1 - self.expected)

    @property
    def ceiling(self) -> np.ndarray:
        return _ratio(self.largest - self.expected, 1 - self.expected)

    @property
    def reached(self) -> np.ndarray:
        return _ratio(self.observed - self.expected, self.largest - self.expected)


@dataclass(frozen=True)
class ErrorTable:
    """Right or wrong of two networks on the same images, ready to be resampled.

    `rows` are the distinct images, `counts` how many there are of each: with one draw the 2 x 2 table. A row holds three shares of an
    image's draws: a right, b right, both right or both wrong. Chance is taken draw by draw, so that a draw (or a level) that is hard
    for both networks does not count as agreement. What that adds to the figures of the pooled accuracies, nothing with one draw, is
    held fixed while images are resampled.
    """

    rows: np.ndarray  # [distinct, 3]
    counts: np.ndarray  # [distinct]
    expected_between: float
    apart_between: float
    refusal: str | None  # why agreement cannot be told from chance

    @classmethod
    def of(cls, correct_a: np.ndarray, correct_b: np.ndarray) -> ErrorTable:
        """The table of two arrays of right or wrong, [images] or [draws, images]."""
        a, b = (np.atleast_2d(correct) for correct in np.broadcast_arrays(*right_or_wrong(correct_a, correct_b)))
        of_draws = np.stack([a.mean(axis=1), b.mean(axis=1)])
        p_a, p_b = of_draws.mean(axis=1)
        rows, counts = _distinct(np.stack([a.sum(axis=0), b.sum(axis=0), (a == b).sum(axis=0)]), len(a))
        return cls(
            rows,
            counts,
            expected_between=float(2 * ((of_draws[0] - p_a) * (of_draws[1] - p_b)).mean()),
            apart_between=float(np.abs(of_draws[0] - of_draws[1]).mean() - abs(p_a - p_b)),
            refusal=_refusal(of_draws, a.shape[1]),
        )

    @property
    def n(self) -> int:
        return int(self.counts.sum())

    def agreement(self, means: np.ndarray) -> Agreement:
        """The figures at the means of the rows, [..., 3]."""
        p_a, p_b, observed = np.moveaxis(means, -1, 0)
        expected = p_a * p_b + (1 - p_a) * (1 - p_b) + self.expected_between
        return Agreement(observed, expected, 1 - np.abs(p_a - p_b) - self.apart_between)

    def estimates(self, **units: str) -> dict[str, Estimate]:
        """Figures of `Agreement` by name, each in its unit, with percentile intervals from one set of resampled images."""
        found = self.agreement(self.counts @ self.rows / self.n)
        resampled = self.agreement(resampled_means(self.rows, self.counts, "error_table"))
        return {name: self._estimate(float(getattr(found, name)), getattr(resampled, name), unit) for name, unit in units.items()}

    def _estimate(self, value: float, resampled: np.ndarray, unit: str) -> Estimate:
        low, high = percentile_interval(resampled)
        return Estimate(value, min(low, value), max(high, value), n=self.n, unit=unit)


def right_or_wrong(correct_a: np.ndarray, correct_b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both arrays as booleans. Raises ValueError where they are empty, of other images, or hold anything but right or wrong."""
    a, b = not_empty(np.asarray(correct_a), "correct_a"), not_empty(np.asarray(correct_b), "correct_b")
    if a.shape[-1] != b.shape[-1]:
        raise ValueError(f"correct_a and correct_b must cover the same images, got {a.shape} and {b.shape}")
    for name, values in {"correct_a": a, "correct_b": b}.items():
        if values.dtype != bool and not np.isin(values, (0, 1)).all():
            raise ValueError(f"{name} must be right or wrong (True or False, 1 or 0), got {values.dtype} with other values")
    return a.astype(bool), b.astype(bool)


def _distinct(right: np.ndarray, n_draws: int) -> tuple[np.ndarray, np.ndarray]:
    """The distinct columns of counts of draws [3, images], as shares [distinct, 3], and how often each occurs."""
    codes, counts = np.unique(np.ravel_multi_index(tuple(right), (n_draws + 1,) * 3), return_counts=True)
    return np.stack(np.unravel_index(codes, (n_draws + 1,) * 3), axis=1) / n_draws, counts


def _refusal(of_draws: np.ndarray, n: int) -> str | None:
    """Why nothing can be told from chance at these accuracies [networks, draws]: on each draw a network is always right or wrong."""
    if not np.isin(of_draws, (0, 1)).any(axis=0).all():
        return None
    p_a, p_b = of_draws.mean(axis=1)
    return (
        f"accuracies of {100 * p_a:.1f} % and {100 * p_b:.1f} % on {n:,} images: a network that is always right or always wrong "
        "agrees with any other as often as chance has it, so that there is nothing to tell from chance"
    )


def _ratio(above: np.ndarray, possible: np.ndarray) -> np.ndarray:
    """`above / possible`, NaN where nothing was possible: a resample in which a network is always right."""
    possible = np.asarray(possible)
    return np.divide(above, possible, out=np.full(possible.shape, np.nan), where=possible > 1e-12)
