"""Patch scramble: the image cut into a grid of tiles that change places (after Naseer et al., NeurIPS 2021, https://arxiv.org/abs/2105.10497).

Unlike the paper's code, which draws one permutation a batch, every image has its own, keyed by its index; the identity is never drawn.
"""

import numpy as np

from crossdistill.core.errors import SettingError
from crossdistill.core.registry import probe
from crossdistill.core.seeds import key
from crossdistill.core.types import ProbeImages
from crossdistill.probes._draws import raw_words

GRIDS = (2, 4, 7, 8, 14, 16, 28)
SMALLEST_TILE = 4  # pixels; smaller tiles hold no shape or texture of their own


def full_levels(size: tuple[int, int]) -> list[dict[str, int]]:
    """Grids whose tiles have at least 4 pixels a side and need no crop; where there is none, 2, 4 and 8 with a crop.

    >>> [level["grid"] for level in full_levels((32, 32))], [level["grid"] for level in full_levels((224, 224))]
    ([2, 4, 8], [2, 4, 7, 8, 14, 16, 28])
    """
    exact = [grid for grid in GRIDS if min(size) // grid >= SMALLEST_TILE and all(side % grid == 0 for side in size)]
    return [{"grid": grid} for grid in exact or (2, 4, 8)]


def permutations(index: np.ndarray, seed: int, grid: int) -> np.ndarray:
    """One permutation of the grid's tiles for each image, uniform over all but the identity: uint16 [images, grid * grid].

    A grid of 1 has only the identity, which is what comes back.
    """
    identity = np.arange(grid * grid)
    drawn = np.tile(identity, (len(index), 1))
    pending, attempt = np.arange(len(index) if grid > 1 else 0), 0
    while len(pending):
        words = raw_words(key(seed, grid, attempt), index[pending], len(identity))
        drawn[pending] = np.argsort(words, axis=1, kind="stable")
        pending, attempt = pending[(drawn[pending] == identity).all(axis=1)], attempt + 1
    return drawn.astype(np.uint16)


def centre_crop(images: np.ndarray, grid: int) -> np.ndarray:
    """The central part whose height and width are the largest multiples of `grid`; nothing is cut where the grid divides both."""
    height, width = images.shape[2:]
    top, left = height % grid // 2, width % grid // 2
    return images[:, :, top : top + height // grid * grid, left : left + width // grid * grid]


def permuted_tiles(images: np.ndarray, order: np.ndarray, grid: int) -> np.ndarray:
    """Images [images, channels, height, width] whose tile k, in reading order, is tile `order[:, k]` of the input.

    >>> permuted_tiles(np.array([[[[1, 2], [3, 4]]]]), np.array([[3, 2, 1, 0]]), 2).tolist()
    [[[[4, 3], [2, 1]]]]
    """
    n, channels, height, width = images.shape
    tile_height, tile_width = height // grid, width // grid
    tiles = images.reshape(n, channels, grid, tile_height, grid, tile_width).transpose(0, 2, 4, 1, 3, 5)
    tiles = tiles.reshape(n, grid * grid, channels, tile_height, tile_width)[np.arange(n)[:, None], order]
    tiles = tiles.reshape(n, grid, grid, channels, tile_height, tile_width).transpose(0, 3, 1, 4, 2, 5)
    return tiles.reshape(n, channels, height, width)


@probe(
    isolates=(
        "Independence of global layout: the image is cut into a grid of tiles that change places, so shapes larger than a tile are gone "
        "while local texture and colour stay. A high accuracy means that the global layout is not needed."
    ),
    quick=[{"grid": 2}, {"grid": 4}],
    full=full_levels,
    draws={"quick": 1, "full": 5},
    null={"grid": 1},
)
def scramble(images: np.ndarray, labels: np.ndarray, index: np.ndarray, seed: int, *, grid: int = 4) -> ProbeImages:
    """Images uint8 [images, 3, height, width] with the tiles of a `grid` x `grid` in another order, one for each image.

    Where the grid does not divide height and width, the images are cropped around the centre to the largest multiple, so they come back
    smaller. Factor `permutation` [images, grid * grid] is the order of the tiles. Raises SettingError where a tile would have no pixel.
    """
    smallest = min(images.shape[2:])
    if not 1 <= grid <= smallest:
        raise SettingError(f"grid must be 1 to {smallest}, the smallest side of the images in pixels, got {grid}")
    order = permutations(index, seed, grid)
    scrambled = permuted_tiles(centre_crop(images, grid), order, grid)
    return ProbeImages(scrambled, np.arange(len(scrambled)), labels, {"permutation": order})
