"""Mosaic: the image averaged in square cells, as many as `superpixel` is asked for segments: a control of it (our definition).

The difference between the two is what boundaries that follow the image add. SLIC makes fewer segments than it is asked for, at 32 pixels
about 30 of 36, so compare the factor `segments` too.
"""

import math

import numpy as np

from crossdistill.core.errors import SettingError
from crossdistill.core.registry import probe
from crossdistill.core.types import ProbeImages
from crossdistill.probes._checks import check_images
from crossdistill.probes._tiles import cell_edges
from crossdistill.probes.superpixel import full_levels, quick_levels


def mosaic_grid(n_segments: int, height: int, width: int) -> tuple[int, int]:
    """(rows, columns) of about `n_segments` cells that are as square as can be.

    >>> mosaic_grid(36, 32, 32), mosaic_grid(48, 48, 64), mosaic_grid(2, 32, 32)
    ((6, 6), (6, 8), (1, 2))
    """
    rows = min(max(1, round(math.sqrt(n_segments * height / width))), height)
    return rows, min(max(1, round(n_segments / rows)), width)


def cell_means(images: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Each cell of the images in its mean colour, uint8, rounded half up; from integer sums, so equal on every machine.

    >>> cell_means(np.array([[[[0, 1, 7, 7]]]], np.uint8), 1, 2).tolist()
    [[[[1, 1, 7, 7]]]]
    """
    down, across = cell_edges(images.shape[2], rows), cell_edges(images.shape[3], columns)
    sums = np.add.reduceat(np.add.reduceat(images, down[:-1], axis=2, dtype=np.int32), across[:-1], axis=3, dtype=np.int64)
    heights, widths = np.diff(down), np.diff(across)
    counts = heights[:, None] * widths
    means = ((2 * sums + counts) // (2 * counts)).astype(np.uint8)
    return means.repeat(heights, axis=2).repeat(widths, axis=3)


@probe(
    isolates=(
        "Sufficiency of coarse colour without boundaries: the image is averaged in square cells. What superpixels give beyond this is "
        "due to boundaries that follow the objects."
    ),
    quick=quick_levels,
    full=full_levels,
    draws={"quick": 1, "full": 1},
    null={"n_segments": 0},
    core=False,
    control_of="superpixel",
    removes=("texture",),
)
def mosaic(images: np.ndarray, labels: np.ndarray, *, n_segments: int = 36) -> ProbeImages:
    """Images uint8 [images, 3, height, width] averaged in about `n_segments` square cells.

    0 asks for no mosaic and returns the clean images. Factor `segments` is the number of cells (of pixels where there is no mosaic).
    Raises SettingError for more cells than pixels.
    """
    check_images(images)
    height, width = images.shape[2:]
    if not 0 <= n_segments <= height * width:
        raise SettingError(f"n_segments must be 0 (none) to {height * width}, the pixels of an image, got {n_segments}")
    rows, columns = mosaic_grid(n_segments, height, width) if n_segments else (height, width)
    painted = cell_means(images, rows, columns)
    return ProbeImages(painted, np.arange(len(images)), labels, {"segments": np.full(len(images), rows * columns)})
