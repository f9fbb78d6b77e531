"""Ten textures as patterns, for `trifeature`: light and dark parts at least 2.5 pixels wide when the image is 32 pixels high.

Each takes coordinates in units of 1/32 of the image's height (x to the right, y downwards; any array, first axis images) and a
salt per image, and returns True where the pattern is light. No texture is another's mirror image or another's turn by the jitter.
"""

from collections.abc import Callable

import numpy as np

Pattern = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def stripes(x: np.ndarray, y: np.ndarray, salt: np.ndarray) -> np.ndarray:
    """Horizontal stripes.

    >>> stripes(np.zeros(3), np.array([0.0, 2.4, 2.6]), np.zeros(1)).tolist()
    [True, True, False]
    """
    return np.mod(y, 5) < 2.5


def pillars(x: np.ndarray, y: np.ndarray, salt: np.ndarray) -> np.ndarray:
    return np.mod(x, 5) < 2.5


def checks(x: np.ndarray, y: np.ndarray, salt: np.ndarray) -> np.ndarray:
    return (np.mod(x, 7) < 3.5) == (np.mod(y, 7) < 3.5)


def speckle(x: np.ndarray, y: np.ndarray, salt: np.ndarray) -> np.ndarray:
    """Cells of 2.5 units, each light or dark at random, as the image's salt says."""
    column, row = np.floor(x / 2.5).astype(np.int64), np.floor(y / 2.5).astype(np.int64)
    return _hashed(column, row, salt) % np.uint64(2) == 0


def diagonal(x: np.ndarray, y: np.ndarray, salt: np.ndarray) -> np.ndarray:
    return np.mod(x + y, 5 * np.sqrt(2)) < 2.5 * np.sqrt(2)


def dots(x: np.ndarray, y: np.ndarray, salt: np.ndarray) -> np.ndarray:
    """Light discs on a square grid of 6 units."""
    return (np.mod(x, 6) - 3) ** 2 + (np.mod(y, 6) - 3) ** 2 < 2**2


def broad(x: np.ndarray, y: np.ndarray, salt: np.ndarray) -> np.ndarray:
    """Horizontal stripes of twice the width."""
    return np.mod(y, 11) < 5.5


def zigzag(x: np.ndarray, y: np.ndarray, salt: np.ndarray) -> np.ndarray:
    return np.mod(y + np.abs(np.mod(x, 8) - 4), 6) < 3


def mesh(x: np.ndarray, y: np.ndarray, salt: np.ndarray) -> np.ndarray:
    """Light lines on a square grid of 7 units."""
    return (np.mod(x, 7) < 2.5) | (np.mod(y, 7) < 2.5)


def plain(x: np.ndarray, y: np.ndarray, salt: np.ndarray) -> np.ndarray:
    return np.ones(np.broadcast_shapes(x.shape, y.shape), bool)


TEXTURES: dict[str, Pattern] = {
    texture.__name__: texture for texture in (stripes, pillars, checks, speckle, diagonal, dots, broad, zigzag, mesh, plain)
}


def _hashed(column: np.ndarray, row: np.ndarray, salt: np.ndarray) -> np.ndarray:
    """A well-mixed 64-bit number for each cell (the finaliser of SplitMix64, Steele et al., OOPSLA 2014)."""
    cell = column.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) ^ row.astype(np.uint64) * np.uint64(0xC2B2AE3D27D4EB4F)
    mixed = cell ^ salt.reshape(-1, *[1] * (cell.ndim - 1)).astype(np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed ^ (mixed >> np.uint64(31))
