"""Similarity of two networks' features on the same images: unbiased CKA over minibatches (Nguyen et al., ICLR 2021, arXiv 2010.15327)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from crossdistill.core.registry import metric
from crossdistill.core.types import Estimate
from crossdistill.metrics._answers import finite, not_empty
from crossdistill.stats import t_quantile

BATCH = 256
"""The fewest images of a minibatch, where there are as many."""

FEWEST = 4
"""HSIC1 divides by n (n - 3)."""

NO_SPREAD = 1e-10
"""Below this part of a kernel's squares, what is left of it after centring is rounding."""


@metric(source="Nguyen et al., ICLR 2021; Song et al., JMLR 2012", unit="CKA")
def cka(features_a: np.ndarray, features_b: np.ndarray) -> Estimate:
    """Linear CKA of two sets of features [images, ...] of the same images: 1 up to rotation and scale, 0 on average where unrelated.

    sum_b HSIC1(K, L) / sqrt(sum_b HSIC1(K, K) sum_b HSIC1(L, L)) over minibatches b of 256 images or more, with the unbiased HSIC1 of
    Song et al.; a little below 0 is possible. Axes after the first are flattened. Image i goes to minibatch i modulo their number,
    so that images sorted by class do not make minibatches of one class. The interval is the delete-one-image jackknife's, wide
    near 0; images must not be resampled, since the diagonal that HSIC1 leaves out would come back through the copies. A high CKA is no
    evidence of equal behaviour (Davari et al., arXiv 2210.16156).

    >>> features = np.random.default_rng(0).normal(size=(20, 3))
    >>> round(cka(features, -2 * features[:, ::-1]).value, 6)
    1.0
    """
    return cka_of(kernels_of(features_a, "features_a"), kernels_of(features_b, "features_b"))


@dataclass(frozen=True)
class Hsic:
    """HSIC1 summed over minibatches, the same with each image left out, and the sum before anything was centred."""

    total: float
    without_image: np.ndarray  # [images]; empty where there are too few to lose one
    uncentred: float


@dataclass(frozen=True)
class Kernels:
    """One set of features as CKA sees it: a kernel for each minibatch, float64, and their HSIC1 with themselves."""

    name: str
    batches: tuple[np.ndarray, ...]
    own: Hsic

    @property
    def n(self) -> int:
        return sum(len(kernel) for kernel in self.batches)


def kernels_of(features: np.ndarray, name: str) -> Kernels:
    """The kernels of features [images, ...], which messages call `name`; made once, they serve for CKA with many others."""
    rows = _rows(features, name)
    if len(rows) < FEWEST:
        raise ValueError(f"unbiased CKA needs at least {FEWEST} images, got {len(rows)}")
    n_batches = max(len(rows) // BATCH, 1)
    batches = tuple(_kernel(rows[start::n_batches]) for start in range(n_batches))
    return Kernels(name, batches, _hsic(batches, batches))


def cka_of(a: Kernels, b: Kernels) -> Estimate:
    """`cka` of two sets of features whose kernels are there already."""
    if a.n != b.n:
        raise ValueError(f"features must be of the same images in the same order, got {a.n} and {b.n} images")
    for kernels in (a, b):
        if kernels.own.total <= NO_SPREAD * kernels.own.uncentred:
            return Estimate.not_measurable(f"{kernels.name} are alike for all images, or for all but a few", n=a.n, unit="CKA")
    across = _hsic(a.batches, b.batches)
    value = float(np.clip(across.total / np.sqrt(a.own.total * b.own.total), -1, 1))
    return Estimate(value, *_jackknife(value, across, a.own, b.own), n=a.n, unit="CKA")


def _rows(features: np.ndarray, name: str) -> np.ndarray:
    features = np.asarray(features)
    if features.ndim < 2:
        raise ValueError(f"{name} must be [images, ...], got shape {features.shape}")
    rows = features.reshape(len(features), -1) if features.size else features
    return finite(not_empty(rows, name), name)


def _kernel(features: np.ndarray) -> np.ndarray:
    """The kernel with its diagonal zeroed. HSIC1 does not change with the features' mean, but loses digits to a large one."""
    centred = features.astype(np.float64) - features.mean(axis=0, dtype=np.float64)
    kernel = centred @ centred.T
    np.fill_diagonal(kernel, 0)
    return kernel


def _hsic(kernels: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> Hsic:
    parts = [_hsic_of_batch(k, m) for k, m in zip(kernels, others, strict=True)]
    total = sum(whole for whole, _, _ in parts)
    return Hsic(total, np.concatenate([total - whole + without for whole, without, _ in parts]), sum(raw for _, _, raw in parts))


def _hsic_of_batch(k: np.ndarray, m: np.ndarray) -> tuple[float, np.ndarray, float]:
    """HSIC1 of one minibatch; of the same without each of its images, by taking that image's row and column out of the sums; uncentred."""
    n, of_image = len(k), (k * m).sum(axis=1)
    rows_k, rows_m = k.sum(axis=1), m.sum(axis=1)
    trace, sum_k, sum_m, joint = of_image.sum(), rows_k.sum(), rows_m.sum(), rows_k @ rows_m
    whole = _hsic1(trace, sum_k, sum_m, joint, n)
    if n <= FEWEST:
        return float(whole), np.empty(0), float(trace) / (n * (n - 3))
    joint_without = joint - rows_k * rows_m - k @ rows_m - m @ rows_k + of_image
    without = _hsic1(trace - 2 * of_image, sum_k - 2 * rows_k, sum_m - 2 * rows_m, joint_without, n - 1)
    return float(whole), without, float(trace) / (n * (n - 3))


def _hsic1(trace: np.ndarray, sum_k: np.ndarray, sum_m: np.ndarray, joint: np.ndarray, n: int) -> np.ndarray:
    """[tr(KL) + 1'K1 1'L1 / ((n-1)(n-2)) - 2/(n-2) 1'KL1] / (n(n-3)), diagonals zeroed (Song et al. 2012, equation 5)."""
    return (trace + sum_k * sum_m / ((n - 1) * (n - 2)) - 2 / (n - 2) * joint) / (n * (n - 3))


def _jackknife(value: float, across: Hsic, own_a: Hsic, own_b: Hsic) -> tuple[float | None, float | None]:
    """The interval of CKA over images; none where it cannot be had without one of them."""
    n = len(across.without_image)
    if not n or min((own.without_image / own.uncentred).min() for own in (own_a, own_b)) <= NO_SPREAD:
        return None, None
    without = across.without_image / np.sqrt(own_a.without_image * own_b.without_image)
    half = t_quantile(n - 1) * float(np.sqrt((n - 1) / n * ((without - without.mean()) ** 2).sum()))
    return max(value - half, -1.0), min(value + half, 1.0)
