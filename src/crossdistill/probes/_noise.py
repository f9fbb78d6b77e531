"""Gaussian noise from raw draws: 16-bit words through a table of rounded normal quantiles, so that bytes are equal on every machine."""

import math
from functools import cache

import numpy as np

from crossdistill.core.errors import SettingError
from crossdistill.core.seeds import key
from crossdistill.probes._checks import check_choice
from crossdistill.probes._draws import below, raw_words, words16

QUANTILE_BITS, SIGMA_BITS = 24, 16  # after the binary point; their product with any usual sigma stays far below 2**63

POSITIONS = ("random", "centre")
FULL = [{"fraction": fraction, "sigma": sigma} for sigma in (0.1, 0.25, 0.5) for fraction in (0.05, 0.1, 0.2, 0.4)]
QUICK = [{"fraction": 0.05, "sigma": 0.5}, {"fraction": 0.2, "sigma": 0.5}, {"fraction": 0.4, "sigma": 0.5}]


@cache
def upper_quantiles() -> np.ndarray:
    """The upper 32,768 of 65,536 equally likely standard normal quantiles, in units of 2**-24: int64."""
    from scipy.special import ndtri

    shares = (np.arange(2**15, 2**16) + 0.5) / 2**16
    return np.rint(ndtri(shares) * 2**QUANTILE_BITS).astype(np.int64)


def noise_table(sigma: float) -> np.ndarray:
    """Normal noise in grey levels for each 16-bit draw: int16 [65536], symmetric, rounded once.

    `sigma` is in units of the full range (1 = 255 grey levels). The largest value stands 4.3 sigma out; what exceeds 255 grey levels is
    given as 255, which clips alike.

    >>> table = noise_table(0.1)
    >>> int(table[0]), int(table[32768]), int(table[65535])
    (-110, 0, 110)
    """
    step = round(255 * sigma * 2**SIGMA_BITS)
    point = QUANTILE_BITS + SIGMA_BITS
    upper = (upper_quantiles() * step + (1 << point - 1)) >> point
    upper = np.minimum(upper, 255).astype(np.int16)
    return np.concatenate([-upper[::-1], upper])


def square_side(fraction: float, height: int, width: int) -> int:
    """Side in pixels of the square that covers `fraction` of the largest square in the image, at least 1.

    >>> [square_side(fraction, 32, 32) for fraction in (0.05, 0.1, 0.2, 0.4)]
    [7, 10, 14, 20]
    """
    return max(1, round(math.sqrt(fraction) * min(height, width)))


def noisy_squares(
    images: np.ndarray, index: np.ndarray, seed: int, fraction: float, sigma: float, position: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Copies of the images with noise inside one square each, clipped once, and where the squares stand: top, left (int64 [images]).

    `position` is "random" or "centre"; both have the same noise. Raises SettingError for a fraction or sigma out of range and for
    another position.
    """
    check_choice("position", position, POSITIONS)
    if not 0 < fraction <= 1:
        raise SettingError(f"fraction must be above 0 and at most 1, got {fraction}")
    if sigma < 0:
        raise SettingError(f"sigma must not be negative, got {sigma}")
    height, width = images.shape[2:]
    side = square_side(fraction, height, width)
    n_values = 3 * side * side
    words = raw_words(key(seed, float(fraction), float(sigma)), index, 2 + -(-n_values // 4))
    top, left = below(words[:, 0], height - side + 1), below(words[:, 1], width - side + 1)
    if position == "centre":
        top, left = np.full_like(top, (height - side) // 2), np.full_like(left, (width - side) // 2)

    noise = noise_table(sigma)[words16(words[:, 2:])[:, :n_values]].reshape(-1, 3, side, side)
    noisy = np.array(images)
    squares = np.lib.stride_tricks.sliding_window_view(noisy, (side, side), axis=(2, 3), writeable=True)  # type: ignore[call-overload]
    rows = np.arange(len(noisy))
    squares[rows, :, top, left] = np.clip(squares[rows, :, top, left] + noise, 0, 255)
    return noisy, top, left
