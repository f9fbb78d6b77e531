"""Corruptions by noise: Gaussian, of photons, of dead and saturated pixels. All from 16-bit draws through tables of whole numbers."""

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from crossdistill.probes._noise import noise_table, upper_quantiles

Draw = Callable[[int], np.ndarray]
"""The first n 16-bit draws of each image: n -> uint16 [images, n]."""


def normal_quantiles() -> np.ndarray:
    """65,536 equally likely standard normal quantiles in units of 2**-QUANTILE_BITS, for each 16-bit draw: int64, symmetric."""
    upper = upper_quantiles()
    return np.concatenate([-upper[::-1], upper])


def gaussian_noise(images: np.ndarray, percent: int, draw: Draw) -> np.ndarray:
    """Normal noise on each value, its standard deviation in percent of the full range."""
    noise = noise_table(percent / 100)[draw(images[0].size)].reshape(images.shape)
    return np.clip(images + noise, 0, 255).astype(np.uint8)


@lru_cache(maxsize=1)
def shot_table(photons: int) -> np.ndarray:
    """What a grey level becomes for each 16-bit draw: uint8 [256 * 65536], level first.

    The count is Poisson with mean `photons` * level / 255; `photons` and more of them are white.
    """
    from scipy.special import pdtr

    counts = np.arange(photons)
    at_most = np.rint(pdtr(counts, photons * np.arange(256)[:, None] / 255) * 2**16).astype(np.int64)
    bounds = np.concatenate([np.zeros((256, 1), np.int64), at_most, np.full((256, 1), 2**16)], axis=1)
    levels = (2 * 255 * np.arange(photons + 1) + photons) // (2 * photons)
    return np.repeat(np.tile(levels.astype(np.uint8), 256), np.diff(bounds).ravel())


def shot_noise(images: np.ndarray, photons: int, draw: Draw) -> np.ndarray:
    """The noise of counted light: a white value stands for `photons` on average."""
    draws = draw(images[0].size).reshape(images.shape)
    return shot_table(photons)[images.astype(np.int64) << 16 | draws]


def impulse_noise(images: np.ndarray, percent: int, draw: Draw) -> np.ndarray:
    """`percent` % of the values, each channel for itself, become 0 or 255 with equal chances."""
    draws = draw(images[0].size).reshape(images.shape)
    share = percent * 2**15 // 100  # of the 65,536 draws, on either side
    noisy = np.where(draws < share, np.uint8(0), images)
    return np.where(draws >= 2**16 - share, np.uint8(255), noisy)
