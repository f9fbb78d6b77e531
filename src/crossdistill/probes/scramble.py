"""Patch scramble: the image cut into a grid of tiles that change places (after Naseer et al., NeurIPS 2021, https://arxiv.org/abs/2105.10497).

Unlike the paper's code, which draws one permutation a batch, every image has its own, keyed by its index; the identity is never drawn.
What seams do without disorder is shown by `pulled_tiles`, what a milder disorder does by `half_scramble`.
"""

import numpy as np

from crossdistill.core.registry import probe
from crossdistill.core.types import ProbeImages
from crossdistill.probes._checks import check_images
from crossdistill.probes._tiles import centre_crop, checked_grid, full_levels, permutations, permuted_tiles, tile_size


@probe(
    isolates=(
        "Independence of global layout: the image is cut into a grid of tiles that change places, so shapes larger than a tile are gone "
        "while local texture and colour stay. A high accuracy means that the global layout is not needed."
    ),
    about=("permutation",),
    quick=[{"grid": 2}, {"grid": 4}],
    full=full_levels,
    draws={"quick": 1, "full": 5},
    null={"grid": 1},
    tile=tile_size,
)
def scramble(images: np.ndarray, labels: np.ndarray, index: np.ndarray, seed: int, *, grid: int = 4) -> ProbeImages:
    """Images uint8 [images, 3, height, width] with the tiles of a `grid` x `grid` in another order, one for each image.

    Where the grid does not divide height and width, the images are cropped around the centre to the largest multiple, so they come back
    smaller. Factor `permutation` [images, grid * grid] is the order of the tiles. Raises SettingError where a tile would have no pixel.
    """
    check_images(images)
    checked_grid(grid, images.shape[2:])
    order = permutations(index, seed, grid)
    scrambled = permuted_tiles(centre_crop(images, grid), order, grid)
    return ProbeImages(scrambled, np.arange(len(scrambled)), labels, {"permutation": order})
