"""Accuracy on a probe beyond what clean accuracy foretells: "effective robustness" (Taori et al., NeurIPS 2020, arXiv 2007.00644)."""

import math
from dataclasses import dataclass

import numpy as np

from crossdistill.core.registry import metric
from crossdistill.core.types import Estimate
from crossdistill.metrics._answers import finite, not_empty, per_image
from crossdistill.stats import difference_spread, t_quantile

FEWEST = 3
"""Networks in a pool: any two lie on a line."""


@dataclass(frozen=True)
class Line:
    """The least-squares line of logit(probe accuracy) on logit(clean accuracy) over a pool of networks."""

    slope: float
    mean_x: float
    mean_y: float
    spread_x: float  # sum of squares about the mean
    residual_sd: float  # with n - 2 degrees of freedom
    n: int

    @classmethod
    def through(cls, clean_accuracies: np.ndarray, probe_accuracies: np.ndarray) -> "Line":
        x, y = logit(clean_accuracies), logit(probe_accuracies)
        spread_x = float(((x - x.mean()) ** 2).sum())
        slope = float(((x - x.mean()) * (y - y.mean())).sum()) / spread_x
        residuals = y - y.mean() - slope * (x - x.mean())
        return cls(slope, float(x.mean()), float(y.mean()), spread_x, math.sqrt(float((residuals**2).sum()) / (len(x) - 2)), len(x))

    def at(self, x: float) -> float:
        return self.mean_y + self.slope * (x - self.mean_x)

    def variance_at(self, x: float) -> float:
        return self.residual_sd**2 * (1 / self.n + (x - self.mean_x) ** 2 / self.spread_x)


@metric(source="Taori et al., NeurIPS 2020", unit="logit; share")
def accuracy_residual(
    probe_correct: np.ndarray, clean_correct: np.ndarray, pool_probe_accuracies: np.ndarray, pool_clean_accuracies: np.ndarray
) -> dict[str, Estimate]:
    """How far a network lies above its pool's line: `logit` and `share` (accuracy minus the accuracy foretold), and `pool_sd`.

    The line is that of logit(probe accuracy) on logit(clean accuracy) over a pool of reference networks, [networks], fitted by least
    squares; the network itself should not be one of them. `probe_correct` [images] or [draws, images] and `clean_correct` [images] are
    right or wrong on the same images. Not measurable where the clean accuracy lies outside the pool's, for that would be extrapolation;
    with fewer than 3 networks or equal ones; where a logit is infinite. The intervals hold the network's images (paired) and the
    line's own uncertainty, with Welch-Satterthwaite degrees of freedom. They do not hold the scatter of networks round the line:
    `pool_sd`, in logits, is what one more network of the pool strays by.

    >>> network = np.repeat([1, 0], [60, 40]), np.repeat([1, 0], [80, 20])
    >>> estimates = accuracy_residual(*network, np.array([0.3, 0.5, 0.7]), np.array([0.7, 0.8, 0.9]))
    >>> {name: round(e.value, 2) for name, e in estimates.items()}
    {'logit': 0.52, 'share': 0.13, 'pool_sd': 0.14}
    """
    probe, clean = per_image(not_empty(np.asarray(probe_correct), "probe_correct")), per_image(clean_correct)
    if probe.shape != clean.shape:
        raise ValueError(f"probe_correct and clean_correct must cover the same images, got {len(probe)} and {len(clean)}")
    pool_probe = _accuracies(pool_probe_accuracies, "pool_probe_accuracies")
    pool_clean = _accuracies(pool_clean_accuracies, "pool_clean_accuracies")
    if pool_probe.shape != pool_clean.shape:
        raise ValueError(f"the pool must have both accuracies of each network, got {len(pool_probe)} and {len(pool_clean)}")
    if refusal := _refusal(float(probe.mean()), float(clean.mean()), pool_probe, pool_clean):
        units = {"logit": "logit", "share": "share", "pool_sd": "logit"}
        return {name: Estimate.not_measurable(refusal, n=len(probe), unit=unit) for name, unit in units.items()}
    return _residuals(probe, clean, Line.through(pool_clean, pool_probe))


def _residuals(probe: np.ndarray, clean: np.ndarray, line: Line) -> dict[str, Estimate]:
    probe_accuracy, clean_accuracy = float(probe.mean()), float(clean.mean())
    x = float(logit(clean_accuracy))
    foretold = 1 / (1 + math.exp(-line.at(x)))
    # d logit / d accuracy = 1 / (accuracy (1 - accuracy)), and back.
    per_clean, per_logit = line.slope / (clean_accuracy * (1 - clean_accuracy)), foretold * (1 - foretold)
    in_logits = (probe - probe_accuracy) / (probe_accuracy * (1 - probe_accuracy)) - per_clean * (clean - clean_accuracy)
    in_shares = (probe - probe_accuracy) - per_logit * per_clean * (clean - clean_accuracy)
    return {
        "logit": _estimate(float(logit(probe_accuracy)) - line.at(x), in_logits, line.variance_at(x), line, unit="logit"),
        "share": _estimate(probe_accuracy - foretold, in_shares, per_logit**2 * line.variance_at(x), line, unit="share"),
        "pool_sd": Estimate(line.residual_sd, n=line.n, unit="logit"),
    }


def _estimate(value: float, influence: np.ndarray, line_variance: float, line: Line, *, unit: str) -> Estimate:
    """A residual from the influence of each image on it and the variance of the line."""
    n = len(influence)
    spread = difference_spread(float(influence.var(ddof=1)) / n, n - 1, line_variance, line.n - 2)
    half = t_quantile(spread.freedom) * spread.standard_error
    return Estimate(value, value - half, value + half, n=n, unit=unit)


def _refusal(probe: float, clean: float, pool_probe: np.ndarray, pool_clean: np.ndarray) -> str | None:
    if len(pool_clean) < FEWEST:
        return f"a line through {len(pool_clean)} networks: it takes at least {FEWEST}"
    if not all(0 < accuracy < 1 for accuracy in (probe, clean, *pool_probe, *pool_clean)):
        return "an accuracy of 0 or 1, of this network or of one in the pool, has no logit"
    low, high = float(pool_clean.min()), float(pool_clean.max())
    if low == high:
        return "all networks of the pool have one clean accuracy: no line can be drawn"
    if not low <= clean <= high:
        return f"clean accuracy {100 * clean:.1f} % lies outside the pool's {100 * low:.1f} to {100 * high:.1f} %: no line leads there"
    return None


def _accuracies(accuracies: np.ndarray, name: str) -> np.ndarray:
    accuracies = np.asarray(accuracies, dtype=np.float64)
    if accuracies.ndim != 1 or not len(accuracies):
        raise ValueError(f"{name} must be one accuracy a network, at least one, got shape {accuracies.shape}")
    if not ((finite(accuracies, name) >= 0) & (accuracies <= 1)).all():
        raise ValueError(f"{name} must be shares, 0 to 1, got {accuracies.min()} to {accuracies.max()}")
    return accuracies


def logit(share: np.ndarray | float) -> np.ndarray:
    """log(share / (1 - share)); infinite at 0 and 1, so that callers refuse these first."""
    return np.log(share) - np.log1p(-np.asarray(share))
