"""Spread noise: the squared error of `localized_noise` spread over the whole image, a control of it (our definition).

For each image a square is made noisy as `localized_noise` would, its squared error after clipping is summed, and noise over the whole
image is scaled until it does, after rounding and clipping, as much. Error shrinks where pixels clip, so the scale is found for each
image, by halving: the error never falls as the scale grows.
"""

from typing import Literal

import numpy as np

from crossdistill.core.registry import probe
from crossdistill.core.seeds import key
from crossdistill.core.types import ProbeImages
from crossdistill.probes._checks import check_images
from crossdistill.probes._draws import raw_words, words16
from crossdistill.probes._noise import FULL, QUANTILE_BITS, QUICK, noisy_squares, upper_quantiles

SCALE_BITS = 14  # scales from 0 to 2 sigma in steps of sigma / 2**13: the error is met to 0.1 % on average
NORMAL_BITS = 20  # after the binary point of the draws, which then fit into float32
EXACT = 256  # so many squares of grey levels add up to less than 2**24: exact in float32, in any order
CHUNK = 2**18  # values worked on at once, small enough for the processor's cache


def standard_normal(words: np.ndarray, n_values: int) -> np.ndarray:
    """`n_values` standard normal draws for each row of raw words: float32 [images, values], multiples of 2**-20, so equal everywhere."""
    coarse = QUANTILE_BITS - NORMAL_BITS
    upper = ((upper_quantiles() + (1 << coarse - 1)) >> coarse).astype(np.float32) / np.float32(2**NORMAL_BITS)
    return np.concatenate([-upper[::-1], upper])[words16(words)[:, :n_values]]


def squared_error(noisy: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """The sum of squared differences for each row of whole grey levels, whose number is a multiple of 256: int64 [images].

    >>> squared_error(np.full((1, 512), 3, np.float32), np.zeros((1, 512), np.float32)).tolist()
    [4608]
    """
    difference = (noisy - clean).reshape(len(clean), -1, EXACT)
    return np.einsum("ipv,ipv->ip", difference, difference).sum(axis=1, dtype=np.float64).astype(np.int64)


def noised(clean: np.ndarray, normal: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Whole grey levels [images, values] with `scale` [images] times the draws added, rounded, then clipped to 0 and 255."""
    noisy = normal * scale.astype(np.float32)[:, None]  # rounded as IEEE 754 has it, so equal on every machine
    np.rint(noisy, out=noisy)
    noisy += clean
    return np.clip(noisy, 0, 255, out=noisy)


def noised_to_error(clean: np.ndarray, normal: np.ndarray, wanted: np.ndarray, sigma: float) -> np.ndarray:
    """The images [images, values] with the most noise, of at most 2 `sigma`, whose squared error is not above `wanted` [images]."""
    step = 255 * sigma / 2 ** (SCALE_BITS - 1)
    steps = np.zeros(len(clean), np.int64)
    for bit in reversed(range(SCALE_BITS)):
        tried = steps + (1 << bit)
        fits = squared_error(noised(clean, normal, tried * step), clean) <= wanted
        steps = np.where(fits, tried, steps)
    return noised(clean, normal, steps * step)


@probe(
    isolates=(
        "Tolerance of noise that is nowhere in particular: as much squared error as in localized_noise, over the whole image. Where a "
        "network bears this worse or better than localized noise, it is the place of the damage that matters."
    ),
    about=("noise",),
    quick=QUICK,
    full=FULL,
    draws={"quick": 1, "full": 5},
    null={"sigma": 0.0},
    core=False,
    control_of="localized_noise",
    version=2,
)
def spread_noise(
    images: np.ndarray,
    labels: np.ndarray,
    index: np.ndarray,
    seed: int,
    *,
    fraction: float = 0.2,
    sigma: float = 0.5,
    position: Literal["random", "centre"] = "random",
) -> ProbeImages:
    """Images uint8 [images, 3, height, width] with as much squared error as `localized_noise` of these settings does, everywhere.

    Factors, in squared grey levels summed over an image: `localized_error`, that of the square which `localized_noise` draws for this
    index and seed, and `squared_error`, the one done, not above it and within half a percent of it. Raises SettingError for a fraction
    or sigma out of range and for another position.
    """
    check_images(images)
    spread = np.empty(images.shape, np.uint8)
    wanted, done = np.empty(len(images), np.int64), np.empty(len(images), np.int64)
    n_values = 3 * images.shape[2] * images.shape[3]
    noise_key = key(seed, float(fraction), float(sigma), "spread")
    n_rows = max(1, CHUNK // n_values)
    for rows in (slice(start, start + n_rows) for start in range(0, len(images), n_rows)):
        localized, _, _ = noisy_squares(images[rows], index[rows], seed, fraction, sigma, position)
        normal = standard_normal(raw_words(noise_key, index[rows], -(-n_values // 4)), n_values)
        clean = _padded(images[rows])
        wanted[rows] = squared_error(_padded(localized), clean)
        noisy = noised_to_error(clean, _padded(normal), wanted[rows], sigma)
        done[rows] = squared_error(noisy, clean)
        spread[rows] = noisy[:, :n_values].reshape(images[rows].shape)
    return ProbeImages(spread, np.arange(len(images)), labels, {"localized_error": wanted, "squared_error": done})


def _padded(values: np.ndarray) -> np.ndarray:
    """The values of each image in a row of float32, filled up with zeros to a multiple of 256."""
    rows = values.reshape(len(values), -1)
    return np.pad(rows.astype(np.float32), [(0, 0), (0, -rows.shape[1] % EXACT)])
