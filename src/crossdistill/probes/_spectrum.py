"""Fourier transforms of images and the way back to bytes, for the probes that change frequencies.

Transforms differ in their last bits from machine to machine, so values are rounded to multiples of 2**-20 before anything hangs on
them: a byte, or whether a coefficient is zero.
"""

from collections.abc import Iterator
from typing import cast

import numpy as np

FRACTION = 2.0**20  # far coarser than the error of a transform (1e-8 at 1024 pixels a side), far finer than a grey level
CHUNK_VALUES = 2**18  # values transformed at once: they stay in the processor's cache
RADII = (2, 4, 6, 8, 12, 24, 48)  # cycles per smaller side; beyond 48 nothing is seen of a photograph


def usable_radii(size: tuple[int, int]) -> list[int]:
    """The radii below the highest frequency of the smaller side, ascending.

    >>> usable_radii((32, 32)), usable_radii((224, 300))
    ([2, 4, 6, 8, 12], [2, 4, 6, 8, 12, 24, 48])
    """
    return [radius for radius in RADII if 2 * radius < min(size)]


def frequencies(height: int, width: int) -> np.ndarray:
    """Radial frequency of each coefficient that `spectrum` gives, in cycles per smaller side: float64 [height, width // 2 + 1].

    A cycle has the same length in pixels along both axes, so a disc of these treats all directions alike in images that are not square.

    >>> frequencies(4, 8)[:, :3].tolist()[:2]
    [[0.0, 0.5, 1.0], [1.0, 1.118033988749895, 1.4142135623730951]]
    """
    side = min(height, width)
    vertical = np.fft.fftfreq(height, 1 / height)[:, None] * (side / height)
    horizontal = np.arange(width // 2 + 1) * (side / width)
    return np.sqrt(vertical**2 + horizontal**2)  # exact for whole frequencies of a square image: sqrt(25) is 5


def chunks(images: np.ndarray) -> Iterator[slice]:
    """Slices of some images each, small enough to be transformed in the cache."""
    step = max(1, CHUNK_VALUES // images[0].size) if len(images) else 1
    for start in range(0, len(images), step):
        yield slice(start, start + step)


def spectrum(images: np.ndarray) -> np.ndarray:
    """Coefficients of each channel in grey levels, not divided by the number of pixels: complex128 [..., height, width // 2 + 1]."""
    from scipy.fft import rfft2

    return cast(np.ndarray, rfft2(images.astype(np.float64)))


def quantised(values: np.ndarray) -> np.ndarray:
    """The values, float64 or complex128, rounded to multiples of 2**-20; in place."""
    parts = values.view(np.float64)
    parts *= FRACTION
    np.rint(parts, out=parts)
    parts *= 1 / FRACTION
    return values


def image_bytes(coefficients: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The uint8 images of (height, width) that have these coefficients, rounded half up and clipped."""
    from scipy.fft import irfft2

    grey_levels = quantised(cast(np.ndarray, irfft2(coefficients, s=size)))
    grey_levels += 0.5  # exact, as all that follows
    return np.clip(np.floor(grey_levels, out=grey_levels), 0, 255, out=grey_levels).astype(np.uint8)


def filtered(images: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Images uint8 without the coefficients where `kept`, bool [height, width // 2 + 1], is False."""
    result = np.empty(images.shape, np.uint8)
    for rows in chunks(images):
        result[rows] = image_bytes(spectrum(images[rows]) * kept, images.shape[2:])
    return result
