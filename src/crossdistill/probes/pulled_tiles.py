"""Pulled tiles: the tiles of `scramble` pulled apart in place by a narrow gap, none moved: a control for its seams (our definition).

All pixels are kept, so the images come back larger by the gaps, grid - 1 pixels with gaps of one. A network that resizes them then
sees everything smaller, by a fifth at a grid of 8 and 32 pixels: part of what this costs is scale and not seams. Painting the gap over
the seams would keep the size, but at 4-pixel tiles take almost half of the pixels.
"""

import numpy as np

from crossdistill.core.errors import SettingError
from crossdistill.core.registry import probe
from crossdistill.core.types import ProbeImages
from crossdistill.probes._checks import check_images
from crossdistill.probes._tiles import centre_crop, checked_grid, full_levels, mean_colour


@probe(
    isolates=(
        "The seams of scramble without its disorder: the same tiles stand in their places, parted by a gap in the mean colour of the "
        "image. The images grow by the gaps, so a network that resizes them sees everything smaller, and part of what it loses here "
        "is due to scale, not to seams."
    ),
    quick=[{"grid": 2}, {"grid": 4}],
    full=full_levels,
    draws={"quick": 1, "full": 1},
    null={"grid": 1},
    core=False,
    control_of="scramble",
)
def pulled_tiles(images: np.ndarray, labels: np.ndarray, *, grid: int = 4, gap: int = 1) -> ProbeImages:
    """Images uint8 [images, 3, height + (grid - 1) * gap, width + (grid - 1) * gap]: tiles in place, `gap` pixels between them.

    Cropped as in `scramble` where the grid does not divide height and width. The gap has the mean colour of the image, which stands
    out neither from a dark nor from a light one. Raises SettingError where a tile would have no pixel, or a gap none.
    """
    check_images(images)
    checked_grid(grid, images.shape[2:])
    if gap < 1:
        raise SettingError(f"gap must be at least 1 pixel, got {gap}")
    kept = centre_crop(images, grid)
    n, channels, height, width = kept.shape
    rows, columns = _places(height, grid, gap), _places(width, grid, gap)
    pulled = np.empty((n, channels, rows[-1] + 1, columns[-1] + 1), np.uint8)
    pulled[:] = mean_colour(kept)
    pulled[:, :, rows[:, None], columns] = kept
    return ProbeImages(pulled, np.arange(n), labels)


def _places(side: int, grid: int, gap: int) -> np.ndarray:
    """Where each row (or column) of pixels stands when its tile is pulled away."""
    pixels = np.arange(side)
    return pixels + pixels // (side // grid) * gap
