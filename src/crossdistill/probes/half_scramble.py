"""Half scramble: tiles that change places only within the upper and within the lower half, a control of `scramble` (our definition).

It makes as many seams as `scramble` and moves as many tiles, but leaves the coarsest layout: what stood above stays above.
"""

from typing import Any

import numpy as np

from crossdistill.core.registry import probe
from crossdistill.core.types import ProbeImages
from crossdistill.probes._checks import check_images
from crossdistill.probes._tiles import centre_crop, checked_grid, permutations, permuted_tiles, tile_size
from crossdistill.probes._tiles import full_levels as levels_of_scramble


def full_levels(size: tuple[int, int]) -> list[dict[str, Any]]:
    """Those of `scramble` but for a grid of 2, which leaves three orders.

    >>> [level["grid"] for level in full_levels((32, 32))]
    [4, 5, 8]
    """
    return [level for level in levels_of_scramble(size) if level["grid"] > 2]


@probe(
    isolates=(
        "The part of scramble that is not the coarsest layout: tiles change places only within the upper and within the lower half of "
        "the image. What a network loses from here to scramble is due to losing what stands above what."
    ),
    about=("permutation",),
    quick=[{"grid": 4}, {"grid": 8}],
    full=full_levels,
    draws={"quick": 1, "full": 5},
    null={"grid": 1},
    core=False,
    control_of="scramble",
    tile=tile_size,
    version=2,
)
def half_scramble(images: np.ndarray, labels: np.ndarray, index: np.ndarray, seed: int, *, grid: int = 4) -> ProbeImages:
    """Images uint8 [images, 3, height, width] with the tiles of each half of a `grid` x `grid` in another order, one for each image.

    The upper half has the rows 0 to grid // 2 - 1. Cropped as in `scramble`. Factor `permutation` [images, grid * grid] is the order
    of the tiles, never the identity. Raises SettingError where a tile would have no pixel.
    """
    check_images(images)
    checked_grid(grid, images.shape[2:])
    upper = grid // 2 * grid
    order = permutations(index, seed, grid, parts=(upper, grid * grid - upper))
    scrambled = permuted_tiles(centre_crop(images, grid), order, grid)
    return ProbeImages(scrambled, np.arange(len(scrambled)), labels, {"permutation": order})
