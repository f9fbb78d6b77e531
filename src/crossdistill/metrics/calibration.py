"""Whether confidence can be believed: expected calibration error, NLL, Brier score (Guo et al., ICML 2017, https://arxiv.org/abs/1706.04599)."""

import numpy as np

from crossdistill.core import seeds
from crossdistill.core.registry import metric
from crossdistill.core.types import Estimate
from crossdistill.metrics._answers import finite, mean_over_images, not_empty
from crossdistill.stats import LEVEL

BINS = 15
RESAMPLES = 2000
TOLERANCE = 1e-3
"""How far a row may be from adding up to 1: half-precision probabilities of 1,000 classes are."""


@metric(source="Guo et al., ICML 2017; Brier, Monthly Weather Review 1950", unit="probability; nats; score")
def calibration(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, Estimate]:
    """`ece` (15 bins of equal width), `ece_equal_mass` (15 of equal mass), `nll` in nats and `brier`, 0 to 2; 0 is best in all four.

    ECE = sum over bins of |right - confidence|, each summed over the bin's answers, divided by the number of images; confidence is the
    largest probability. A bin holds its lower edge, the last one both; in bins of equal mass, equal confidences stay together. Brier is
    the squared distance from the truth, summed over classes. `probabilities` are [images, classes], or [draws, images, classes]: draws
    count as parts of an image. `labels` are columns of them, or names: then the columns are the names in sorted order, and
    each must occur.

    NLL and Brier have Student's t intervals over images; NLL is not measurable where a label has probability 0. ECE is biased upward, the
    more so with few images: compare it between networks at equal numbers of images only. A percentile interval would carry the bias
    twice (of a calibrated network it never holds the truth), so that the interval is the basic bootstrap, in fixed bins, and it
    reaches down to 0 wherever a calibrated network shows such an ECE in 1 of 40 test sets.

    >>> two_sure_of_four = np.array([[1.0, 0.0], [1.0, 0.0], [0.5, 0.5], [0.5, 0.5]])
    >>> {name: round(e.value, 3) for name, e in calibration(two_sure_of_four, np.array([0, 0, 0, 0])).items()}
    {'ece': 0.25, 'ece_equal_mass': 0.25, 'nll': 0.347, 'brier': 0.25}
    """
    p = _checked(np.asarray(probabilities))
    columns = _columns(np.asarray(labels), p.shape)
    of_label = np.take_along_axis(p, np.broadcast_to(columns, p.shape[:-1])[..., None], axis=-1)[..., 0]
    confidences = p.max(axis=-1)
    gaps = (p.argmax(axis=-1) == columns) - confidences
    return {
        "ece": _calibration_error(gaps, equal_width_bins(confidences)),
        "ece_equal_mass": _calibration_error(gaps, equal_mass_bins(confidences)),
        "nll": _nll(of_label),
        "brier": mean_over_images(np.maximum((p * p).sum(axis=-1) - 2 * of_label + 1, 0.0), unit="score"),
    }


def equal_width_bins(confidences: np.ndarray) -> np.ndarray:
    """The bin of each confidence, 0 to 14; a bin holds its lower edge, the last one both."""
    return np.minimum(np.searchsorted(np.linspace(0, 1, BINS + 1), confidences, side="right") - 1, BINS - 1)


def equal_mass_bins(confidences: np.ndarray) -> np.ndarray:
    """The bin of each confidence, 0 to 14, by its mid-rank: sizes differ by one at most where no two are equal, and equal ones share a bin.

    >>> np.bincount(equal_mass_bins(np.linspace(0, 1, 32)))
    array([2, 2, 2, 3, 2, 2, 2, 2, 2, 2, 2, 3, 2, 2, 2])
    """
    _, codes, counts = np.unique(confidences, return_inverse=True, return_counts=True)
    middles = np.cumsum(counts) - counts / 2
    return np.floor(middles * BINS / confidences.size).astype(np.int64)[codes].reshape(confidences.shape)


def _calibration_error(gaps: np.ndarray, bins: np.ndarray) -> Estimate:
    """Sum over bins of |mean over images of `gaps` in the bin|; both are [images] or [draws, images]."""
    gaps, bins = np.atleast_2d(gaps), np.atleast_2d(bins)
    n = gaps.shape[1]
    if n < 2:
        return Estimate.not_measurable("the calibration of 1 image has no interval", n=n, unit="probability")
    by_bin = np.zeros((n, BINS))
    for draw_gaps, draw_bins in zip(gaps, bins, strict=True):
        by_bin[np.arange(n), draw_bins] += draw_gaps / len(gaps)
    by_bin = by_bin[:, by_bin.any(axis=0)]
    value = float(np.abs(by_bin.mean(axis=0)).sum())
    deviations = _resampled_deviations(by_bin)
    lower, upper = _ends(np.abs(by_bin.mean(axis=0) + deviations).sum(axis=1))
    could_be_calibrated = value <= _ends(np.abs(deviations).sum(axis=1))[1]
    low = 0.0 if could_be_calibrated else max(0.0, min(2 * value - upper, value))
    return Estimate(value, low, max(2 * value - lower, value), n=n, unit="probability")


def _ends(resampled: np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(resampled, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return float(low), float(high)


def _resampled_deviations(columns: np.ndarray) -> np.ndarray:
    """How far the column means of resampled rows stray, [resamples, columns], by the normal law with the same covariance.

    To resample the rows themselves takes a second for 10,000 images; the means of so many rows have this law.
    """
    n, k = columns.shape
    covariance = np.atleast_2d(np.cov(columns, rowvar=False, bias=True)).reshape(k, k) / n
    root = np.linalg.cholesky(covariance + (1e-12 * np.trace(covariance) + np.finfo(float).tiny) * np.eye(k))  # it may be singular
    normals = np.random.Generator(seeds.bits("bootstrap", "calibration")).standard_normal((RESAMPLES, k))
    return normals @ root.T


def _nll(of_label: np.ndarray) -> Estimate:
    impossible = int(np.atleast_2d(of_label == 0).any(axis=0).sum())
    if impossible:
        refusal = f"the label of {impossible:,} images was given probability 0: the log likelihood is infinite"
        return Estimate.not_measurable(refusal, n=of_label.shape[-1], unit="nats")
    return mean_over_images(-np.log(np.minimum(of_label, 1.0)), unit="nats")


def _checked(probabilities: np.ndarray) -> np.ndarray:
    if probabilities.ndim not in (2, 3):
        raise ValueError(f"probabilities must be [images, classes] or [draws, images, classes], got {probabilities.shape}")
    p = finite(not_empty(probabilities, "probabilities"), "probabilities").astype(np.float64)
    off = float(np.abs(p.sum(axis=-1) - 1).max())
    if p.min() < 0 or off > TOLERANCE:
        raise ValueError(f"probabilities must be at least 0 and add up to 1, got {p.min():.3g} and sums up to {off:.3g} off: apply softmax")
    return p


def _columns(labels: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The labels as columns of the probabilities."""
    n_images, n_classes = shape[-2:]
    if labels.shape != (n_images,):
        raise ValueError(f"labels must be one an image, got {labels.shape} for probabilities {shape}")
    if labels.dtype.kind not in "iu":
        names, labels = np.unique(labels, return_inverse=True)
        if len(names) != n_classes:
            raise ValueError(
                f"{n_classes} classes, but {len(names)} names among the labels: give integers, the columns of the probabilities"
            )
    if labels.min() < 0 or labels.max() >= n_classes:
        raise ValueError(f"labels must be 0 to {n_classes - 1}, the columns of the probabilities, got {labels.min()} to {labels.max()}")
    return labels
