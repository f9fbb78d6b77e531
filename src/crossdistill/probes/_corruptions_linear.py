"""Linear operations on images in whole numbers, shared by the corruptions: smoothing, magnifying, smearing.

Weights are whole numbers that add up to a power of two, so that a sum is exact in whatever order it is taken (whole numbers below 2**53
are exact in float64 too, hence matrix products and Fourier transforms may be used) and one rounding, half up, ends each operation.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np

WEIGHT_BITS = 16  # 255 grey levels with two such weights stay below 2**41
KERNEL_BITS = 22  # of a kernel in two dimensions, whose weights are smaller; sums stay below 2**30
ZOOM_BITS = 8  # 1/256 of a pixel; 255 grey levels with two such weights, 27 times added, stay below 2**31

Fold = Callable[[np.ndarray, int], np.ndarray]


def whole_weights(weights: np.ndarray, bits: int = WEIGHT_BITS) -> np.ndarray:
    """Weights in the ratio of those given, as whole numbers that add up to 2**bits: int64.

    The largest takes what rounding leaves; of several that are equal the one in the middle, which keeps a symmetric kernel symmetric.

    >>> whole_weights(np.array([1.0, 2.0, 4.0]), 4).tolist(), whole_weights(np.array([1.0, 1.0, 1.0]), 4).tolist()
    ([2, 5, 9], [5, 6, 5])
    """
    whole = np.rint(weights / weights.sum() * 2**bits).astype(np.int64)
    largest = np.flatnonzero(whole == whole.max())
    whole.flat[largest[len(largest) // 2]] += 2**bits - whole.sum()
    return whole


def rounded(sums: np.ndarray, bits: int) -> np.ndarray:
    """`sums` / 2**bits, rounded half up.

    >>> rounded(np.array([7, 8, 24]), 4).tolist()
    [0, 1, 2]
    """
    return (sums + (1 << bits - 1)) >> bits


def repeat_edge(places: np.ndarray, n: int) -> np.ndarray:
    """Where to look for pixels beyond the border: in the nearest one. aaa|abcd|ddd"""
    return np.clip(places, 0, n - 1)


def mirror_edge(places: np.ndarray, n: int) -> np.ndarray:
    """Where to look for pixels beyond the border: mirrored, the edge shown twice. cba|abcd|dcb"""
    places = places % (2 * n)
    return np.minimum(places, 2 * n - 1 - places)


def mirror_inside(places: np.ndarray, n: int) -> np.ndarray:
    """Where to look for pixels beyond the border: mirrored, the edge shown once. dcb|abcd|cba"""
    period = max(2 * (n - 1), 1)
    places = places % period
    return np.minimum(places, period - places)


def gaussian(sigma: float, reach: int) -> np.ndarray:
    """A sampled Gaussian from -reach to reach, not normalised; sigma 0 is a single peak."""
    places = np.arange(-reach, reach + 1)
    return np.exp(-0.5 * (places / sigma) ** 2) if sigma else (places == 0).astype(float)


@lru_cache(maxsize=8)
def smoothing_matrix(n: int, sigma: float, truncate: float, fold: Fold) -> np.ndarray:
    """The matrix that smooths `n` pixels by a Gaussian cut off at `truncate` sigma, rows adding up to 2**16: float64 [n, n]."""
    reach = int(truncate * sigma + 0.5)
    weights = whole_weights(gaussian(sigma, reach))
    matrix = np.zeros((n, n))
    for offset, weight in zip(range(-reach, reach + 1), weights, strict=True):
        np.add.at(matrix, (np.arange(n), fold(np.arange(n) + offset, n)), weight)
    return matrix


def smoothed(images: np.ndarray, sigma: float, truncate: float, fold: Fold) -> np.ndarray:
    """Gaussian smoothing of whole-numbered images [..., height, width], not yet divided by 2**32: float64, exact."""
    height, width = images.shape[-2:]
    across = images.astype(np.float64) @ smoothing_matrix(width, sigma, truncate, fold).T
    return smoothing_matrix(height, sigma, truncate, fold) @ across


def filtered(images: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Images uint8 filtered by a symmetric kernel of odd sides, whole numbers that add up to 2**22; mirrored at the border: uint8."""
    from scipy import fft

    reach = len(kernel) // 2
    padded = images[..., mirror_inside(np.arange(-reach, images.shape[-2] + reach), images.shape[-2]), :]
    padded = padded[..., mirror_inside(np.arange(-reach, images.shape[-1] + reach), images.shape[-1])]
    size = [fft.next_fast_len(side, real=True) for side in padded.shape[-2:]]
    spectrum, factors = (np.asarray(fft.rfft2(values.astype(np.float64), size)) for values in (padded, kernel))
    # The exact sums are whole numbers below 2**30: the transform's error of some 1e-6 is rounded away.
    sums = np.rint(np.asarray(fft.irfft2(spectrum * factors, size))).astype(np.int64)
    height, width = images.shape[-2:]
    return rounded(sums[..., 2 * reach : 2 * reach + height, 2 * reach : 2 * reach + width], KERNEL_BITS).astype(np.uint8)


def zoom_samples(n: int, percent: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the central part of `n` pixels, magnified to `percent` %, takes its pixels from.

    Gives the lower of two neighbours, int64 [n], and the share of the upper one in 1/256, int64 [n].
    """
    part = -(-100 * n // percent)
    magnified = round(part * percent / 100)
    places = np.arange(n) + (magnified - n) // 2
    fine = places * (part - 1) * 2**ZOOM_BITS // max(magnified - 1, 1)
    lower = (fine >> ZOOM_BITS) + (n - part) // 2
    return lower, fine & (2**ZOOM_BITS - 1)


def zoomed(images: np.ndarray, percent: int) -> np.ndarray:
    """The centre of whole-numbered images [..., height, width] magnified to `percent` % of its size, linearly; not yet divided by 2**16.

    The result has the type of `images`, which must have room for 16 bits more.
    """
    for axis in (-2, -1):
        n = images.shape[axis]
        lower, share = zoom_samples(n, percent)
        share = (share[:, None] if axis == -2 else share).astype(images.dtype)
        upper = np.minimum(lower + 1, n - 1)
        images = np.take(images, lower, axis) * (2**ZOOM_BITS - share) + np.take(images, upper, axis) * share
    return images


def streak_offsets(angles: np.ndarray, n_taps: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels down and to the right of each step along lines at `angles` (degrees, clockwise from the right): int64 [images, taps]."""
    steps = np.arange(n_taps)
    turned = np.deg2rad(angles)[:, None]
    down, right = (np.ceil(steps * part - 0.5).astype(np.int64) for part in (np.sin(turned), np.cos(turned)))
    return down, right


def streaked(images: np.ndarray, angles: np.ndarray, radius: int, sigma: float) -> np.ndarray:
    """Images uint8 [images, channels, height, width] smeared along lines: each pixel mixes those ahead of it, by half a Gaussian.

    The angle is in degrees, one for each image; 2 * `radius` + 1 pixels count. As ImageMagick's motion blur, which the published
    corruptions use. Pixels beyond the border are those at the border.
    """
    weights = whole_weights(gaussian(sigma, 2 * radius)[2 * radius :])
    weights = weights[: np.flatnonzero(weights)[-1] + 1]
    height, width = images.shape[2:]
    reach = len(weights) - 1
    padded = np.pad(images, [(0, 0), (0, 0), (reach, reach), (reach, reach)], mode="edge").astype(np.int32)
    down, right = streak_offsets(angles, len(weights))
    sums = np.zeros(images.shape, np.int32)
    for row in range(len(images)):
        for weight, top, left in zip(weights.astype(np.int32), down[row] + reach, right[row] + reach, strict=True):
            sums[row] += weight * padded[row, :, top : top + height, left : left + width]
    return rounded(sums, WEIGHT_BITS).astype(np.uint8)
