"""Images cut into a grid of tiles: for the probes that move tiles, and for telling whether tiles are whole patches of a network."""

import numpy as np

from crossdistill.core.errors import SettingError
from crossdistill.core.seeds import key
from crossdistill.probes._draws import raw_words

GRIDS = (2, 4, 7, 8, 14, 16, 28)
SMALLEST_TILE = 4  # pixels; smaller tiles hold no shape or texture of their own
ODD_GRID = 5


def full_levels(size: tuple[int, int]) -> list[dict[str, int]]:
    """Grids whose tiles have at least 4 pixels a side and need no crop; where there is none, 2, 4 and 8 with a crop.

    Where all of them halve and halve again, 5 comes in with a crop of some pixels: the tiles of the others may all be whole patches
    of a ViT, which favours it by construction, and each network should be shown a grid that does not.

    >>> [level["grid"] for level in full_levels((32, 32))], [level["grid"] for level in full_levels((224, 224))]
    ([2, 4, 5, 8], [2, 4, 7, 8, 14, 16, 28])
    """
    exact = [grid for grid in GRIDS if min(size) // grid >= SMALLEST_TILE and all(side % grid == 0 for side in size)]
    grids = exact or [2, 4, 8]
    if all(grid & (grid - 1) == 0 for grid in grids):
        grids = sorted([*grids, ODD_GRID])
    return [{"grid": grid} for grid in grids]


def tile_size(size: tuple[int, int], level: dict[str, int], default: int = 4) -> tuple[int, int]:
    """(height, width) in pixels of the tiles of images of `size` at a level; `default` is the grid of a level that names none.

    >>> tile_size((32, 48), {"grid": 8}), tile_size((33, 33), {})
    ((4, 6), (8, 8))
    """
    grid = level.get("grid", default)
    return size[0] // grid, size[1] // grid


def token_aligned(tile: tuple[int, int], size: tuple[int, int], patch_grid: tuple[int, int]) -> bool:
    """Whether each tile holds whole patches of a network that cuts images of `size` into `patch_grid` (rows, columns).

    `tile` and `size` are (height, width) in pixels of the probe's images; the network may resize them, which moves tiles and patches alike.

    >>> token_aligned((8, 8), (32, 32), (8, 8)), token_aligned((8, 8), (32, 32), (14, 14)), token_aligned((2, 2), (32, 32), (8, 8))
    (True, False, False)
    """
    patches = [tile[axis] * patch_grid[axis] for axis in (0, 1)]  # in a tile, times the side of the image
    return all(patches[axis] and patches[axis] % size[axis] == 0 for axis in (0, 1))


def checked_grid(grid: int, size: tuple[int, int]) -> None:
    """Raises SettingError where a tile of the grid would have no pixel."""
    if not 1 <= grid <= min(size):
        raise SettingError(f"grid must be 1 to {min(size)}, the smallest side of the images in pixels, got {grid}")


def cell_edges(side: int, cells: int) -> np.ndarray:
    """Where the `cells` cells of a side begin and the last one ends, int64 [cells + 1]; they differ by one pixel at most.

    >>> cell_edges(32, 6).tolist()
    [0, 5, 10, 16, 21, 26, 32]
    """
    return np.arange(cells + 1) * side // cells


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


def permutations(index: np.ndarray, seed: int, grid: int, parts: tuple[int, ...] = ()) -> np.ndarray:
    """One permutation of the grid's tiles for each image, uniform over all but the identity: uint16 [images, grid * grid].

    `parts` cuts the tiles, in reading order, into runs of so many, and tiles then stay inside their run. A grid of 1 has only the
    identity, which is what comes back.
    """
    n_tiles = grid * grid
    identity = np.arange(n_tiles)
    run = np.repeat(np.arange(len(parts)), parts) if parts else np.zeros(n_tiles, np.int64)
    drawn = np.tile(identity, (len(index), 1))
    pending, attempt = np.arange(len(index) if grid > 1 else 0), 0
    while len(pending):
        words = raw_words(key(seed, grid, attempt), index[pending], n_tiles)
        by_word = np.argsort(words, axis=1, kind="stable")
        drawn[pending] = np.take_along_axis(by_word, np.argsort(run[by_word], axis=1, kind="stable"), axis=1)
        pending, attempt = pending[(drawn[pending] == identity).all(axis=1)], attempt + 1
    return drawn.astype(np.uint16)


def mean_colour(images: np.ndarray) -> np.ndarray:
    """The mean colour of each image, uint8 [images, 3, 1, 1], rounded half up; from integer sums, so equal on every machine.

    >>> mean_colour(np.array([[[[0, 1]], [[9, 9]], [[2, 4]]]], np.uint8)).ravel().tolist()
    [1, 9, 3]
    """
    n_pixels = images.shape[2] * images.shape[3]
    sums = images.sum(axis=(2, 3), dtype=np.int64, keepdims=True)
    return ((2 * sums + n_pixels) // (2 * n_pixels)).astype(np.uint8)
