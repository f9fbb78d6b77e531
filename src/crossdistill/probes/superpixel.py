"""Superpixels: every SLIC segment painted in its mean colour (SLIC: Achanta et al., TPAMI 2012; scikit-image's implementation).

There is no chance in this probe, so it has one draw. SLIC makes fewer or more segments than it is asked for; the count that it made is
reported as factor `segments`.
"""

import math
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated

import numpy as np
from pydantic import Field

from crossdistill.core.errors import SettingError
from crossdistill.core.registry import probe
from crossdistill.core.types import ProbeImages
from crossdistill.probes._checks import check_images

COMPACTNESS = 10
MOST_THREADS = 8  # slic releases the GIL, the colour conversion around it does not


def full_levels(size: tuple[int, int]) -> list[dict[str, int]]:
    """Segments asked for, finest first: 64, 36, 16 up to 32 px; 196, 100, 64, 25 from 224 px on; between, with the logarithm of the area.

    >>> [level["n_segments"] for level in full_levels((32, 32))], [level["n_segments"] for level in full_levels((224, 224))]
    ([64, 36, 16], [196, 100, 64, 25])
    """
    share = math.log(size[0] * size[1] / 32**2) / math.log((224 / 32) ** 2)
    share = min(max(share, 0.0), 1.0)
    sides = [round(small + share * (large - small)) for small, large in ((8, 14), (8, 10), (6, 8), (4, 5))]
    return [{"n_segments": side**2} for side in dict.fromkeys(sides)]


def quick_levels(size: tuple[int, int]) -> list[dict[str, int]]:
    """The three coarsest levels of the full preset."""
    return full_levels(size)[-3:]


def mean_colours(image: np.ndarray, segments: np.ndarray) -> np.ndarray:
    """The image uint8 [height, width, 3] with each segment in its mean colour, rounded half up.

    Sums are integers, so the bytes are equal on every machine; `skimage.color.label2rgb(kind="avg")` cuts the fraction off instead.

    >>> mean_colours(np.array([[[0, 0, 0], [1, 2, 3], [9, 9, 9]]], np.uint8), np.array([[1, 1, 2]])).tolist()
    [[[1, 1, 2], [1, 1, 2], [9, 9, 9]]]
    """
    flat = segments.ravel()
    counts = np.maximum(np.bincount(flat), 1)
    # Weights are added as float64, exactly: 255 times the pixels of any image stays far below 2**53.
    sums = np.stack([np.bincount(flat, image[..., channel].ravel()) for channel in range(3)], axis=1).astype(np.int64)
    means = (2 * sums + counts[:, None]) // (2 * counts[:, None])
    return means.astype(np.uint8)[segments]


@probe(
    isolates=(
        "Sufficiency of coarse layout and colour: every superpixel is painted in its mean colour, so fine texture is gone while "
        "regions and their colours stay. A high accuracy means that fine local texture is not needed."
    ),
    about=("texture", "locality"),
    quick=quick_levels,
    full=full_levels,
    draws={"quick": 1, "full": 1},
    null={"n_segments": 0},
    removes=("texture",),
)
def superpixel(
    images: np.ndarray, labels: np.ndarray, *, n_segments: int = 36, iterations: Annotated[int, Field(ge=1)] = 10
) -> ProbeImages:  # fmt: skip
    """Images uint8 [images, 3, height, width] with about `n_segments` superpixels each, painted in their mean colours.

    0 asks for no segmentation and returns the clean images. `iterations` are SLIC's. Factor `segments` is the count that SLIC made
    (the number of pixels where there is no segmentation). Raises SettingError for more segments than pixels.
    """
    from skimage.segmentation import slic

    check_images(images)
    n_pixels = images.shape[2] * images.shape[3]
    if not 0 <= n_segments <= n_pixels:
        raise SettingError(f"n_segments must be 0 (none) to {n_pixels}, the pixels of an image, got {n_segments}")
    everything = np.arange(len(images))
    if n_segments == 0:
        return ProbeImages(np.array(images), everything, labels, {"segments": np.full(len(images), n_pixels)})

    painted, made = np.empty(images.shape, np.uint8), np.empty(len(images), np.int64)

    def paint(row: int) -> None:
        image = images[row].transpose(1, 2, 0)
        segments = slic(image, n_segments=n_segments, compactness=COMPACTNESS, max_num_iter=iterations, start_label=1, channel_axis=-1)
        painted[row] = mean_colours(image, segments).transpose(2, 0, 1)
        made[row] = np.count_nonzero(np.bincount(segments.ravel()))

    with ThreadPoolExecutor(min(os.cpu_count() or 1, MOST_THREADS)) as pool:
        list(pool.map(paint, everything))  # listed, so that an error in a thread is raised here
    return ProbeImages(painted, everything, labels, {"segments": made})
