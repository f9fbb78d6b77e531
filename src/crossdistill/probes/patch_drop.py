"""PatchDrop: a random share of the cells of a grid painted black (Naseer et al., NeurIPS 2021, https://arxiv.org/abs/2105.10497).

The cells are black before any normalisation. The grid stands half a cell off, so that the dropped cells are not whole patches of a ViT;
`aligned` puts it in place. Each level drops cells of its own draw: the cells of a milder level are no part of those of a harder one.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from crossdistill.core.errors import SettingError
from crossdistill.core.registry import probe
from crossdistill.core.seeds import key
from crossdistill.core.types import ProbeImages
from crossdistill.probes._checks import check_choice, check_images
from crossdistill.probes._draws import raw_words
from crossdistill.probes._tiles import cell_edges, checked_grid, mean_colour

CELL_PX, SMALLEST_GRID = 16, 8


def usual_grid(size: tuple[int, int]) -> int:
    """Cells a side: 16-pixel ones, as the paper's 14 x 14 at 224 pixels, but never fewer than 8.

    >>> [usual_grid((side, side)) for side in (32, 64, 128, 224, 384)]
    [8, 8, 8, 14, 24]
    """
    return min(max(SMALLEST_GRID, round(min(size) / CELL_PX)), *size)


def cell_of(side: int, grid: int, aligned: bool) -> np.ndarray:
    """The cell in which each pixel of a side lies, int64 [side]. Off the grid the last cell goes on at the other border.

    So both conditions drop the same area in the same number of cells.

    >>> cell_of(8, 2, True).tolist(), cell_of(8, 2, False).tolist()
    ([0, 0, 0, 0, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0, 1, 1])
    """
    cells = np.repeat(np.arange(grid), np.diff(cell_edges(side, grid)))
    return cells if aligned else np.roll(cells, side // (2 * grid))


def tile(size: tuple[int, int], level: Mapping[str, Any]) -> tuple[int, int]:
    """(height, width) in pixels of the coarsest grid on whose lines all borders of cells lie.

    >>> tile((32, 32), {"share": 0.5, "aligned": True}), tile((32, 32), {"share": 0.5}), tile((224, 224), {})
    ((4, 4), (2, 2), (8, 8))
    """
    grid, aligned = level.get("grid") or usual_grid(size), level.get("aligned", False)
    height, width = (math.gcd(side, *np.flatnonzero(np.diff(cell_of(side, grid, aligned))) + 1) for side in size)
    return int(height), int(width)


@probe(
    isolates=(
        "Tolerance of missing parts: a share of the cells of a grid is painted black, here and there. A high accuracy means that the "
        "answer can be put together from what is left."
    ),
    about=("locality",),
    quick=[{"share": 0.3}, {"share": 0.5}, {"share": 0.7}],
    full=[{"share": tenths / 10} for tenths in range(1, 10)],
    draws={"quick": 1, "full": 5},
    null={"share": 0.0},
    tile=tile,
)
def patch_drop(
    images: np.ndarray,
    labels: np.ndarray,
    index: np.ndarray,
    seed: int,
    *,
    share: float = 0.5,
    grid: int | None = None,
    aligned: bool = False,
    fill: Literal["black", "mean"] = "black",
) -> ProbeImages:
    """Images uint8 [images, 3, height, width] with a `share` (0 to 1) of the cells of a `grid` x `grid` painted over.

    `grid` None: 16-pixel cells, at least 8 a side. `aligned`: the grid begins at the corner, else half a cell off. `fill`: black, or
    the mean colour of the image; both, and both places of the grid, drop the same cells. Factor `dropped` uint8
    [images, grid * grid] is 1 for those. Raises SettingError for a share or grid out of range.
    """
    check_images(images)
    check_choice("fill", fill, ("black", "mean"))
    height, width = images.shape[2:]
    if not 0 <= share <= 1:
        raise SettingError(f"share must be 0 to 1, got {share}")
    if grid is not None:
        checked_grid(grid, (height, width))
    grid = grid or usual_grid((height, width))
    words = raw_words(key(seed, grid, float(share)), index, grid * grid)
    dropped = np.zeros(words.shape, np.uint8)
    np.put_along_axis(dropped, np.argsort(words, axis=1, kind="stable")[:, : round(share * grid * grid)], 1, axis=1)

    rows, columns = cell_of(height, grid, aligned), cell_of(width, grid, aligned)
    gone = dropped.astype(bool)[:, None, rows[:, None] * grid + columns]  # images 1 height width
    filling = mean_colour(images) if fill == "mean" else np.uint8(0)
    return ProbeImages(np.where(gone, filling, images), np.arange(len(images)), labels, {"dropped": dropped})
