"""Silhouettes: the object as one flat colour on a plain ground, so that its outline alone is left (Geirhos et al., ICLR 2019, https://arxiv.org/abs/1811.12231).

Objects come from masks: those that the image source knows, a folder of pictures, a segmentation network, or GrabCut. Masks that are
specks, nearly the whole picture or many pieces are dropped, and the clean accuracy beside this probe is taken on the images kept.
"""

from typing import Literal

import numpy as np

from crossdistill.core.registry import probe
from crossdistill.core.types import ProbeImages
from crossdistill.probes._checks import check_choice, check_images
from crossdistill.probes._mask_rules import LARGEST_AREA, MOST_COMPONENTS, SMALLEST_AREA, areas, check_masks, usable

Polarity = Literal["dark", "light", "grey"]

COLOURS: dict[Polarity, tuple[int, int]] = {"dark": (0, 255), "light": (255, 0), "grey": (128, 255)}
"""Grey levels of object and ground."""

POLARITIES = [{"polarity": polarity} for polarity in COLOURS]


def painted(masks: np.ndarray, object_level: int, ground_level: int) -> np.ndarray:
    """Objects of one grey level on a ground of another, in shares of the covered pixel, rounded half up: uint8 [images, 3, height, width].

    >>> painted(np.array([[[0, 51, 255]]], np.uint8), 0, 255)[0, 0].tolist()
    [[255, 204, 0]]
    """
    covered = np.arange(256)
    table = (2 * (covered * object_level + (255 - covered) * ground_level) + 255) // 510
    return np.repeat(table.astype(np.uint8)[masks][:, None], 3, axis=1)


@probe(
    isolates=(
        "Sufficiency of the outline: the object is one flat colour on a plain ground, so texture, colour, inner edges and background are "
        "gone. A high accuracy means that the outline alone is enough."
    ),
    about=("shape",),
    quick=POLARITIES,
    full=POLARITIES,
    draws={"quick": 1, "full": 1},
    null=None,
    core=False,
    removes=("texture", "colour"),
)
def silhouette(
    images: np.ndarray,
    labels: np.ndarray,
    masks: np.ndarray,
    *,
    polarity: Polarity = "dark",
    smallest_area: float = SMALLEST_AREA,
    largest_area: float = LARGEST_AREA,
    most_components: int = MOST_COMPONENTS,
) -> ProbeImages:
    """Silhouettes uint8 [kept, 3, height, width] of the objects in `masks` uint8 [images, height, width], 255 where they cover a pixel.

    "dark" is black on white, "light" white on black, "grey" middle grey on white; the figure is the average over the three. Kept are
    images whose object covers `smallest_area` to `largest_area` of the picture in at most `most_components` pieces. Factor `coverage` is
    the covered share in thousandths. No level gives the clean images. Raises SettingError for rules that leave nothing.
    """
    check_images(images)
    check_choice("polarity", polarity, COLOURS)
    check_masks(masks, images)
    kept = np.flatnonzero(usable(masks, smallest_area, largest_area, most_components))
    coverage = np.floor(areas(masks[kept]) * 1000 + 0.5).astype(np.int64)
    return ProbeImages(painted(masks[kept], *COLOURS[polarity]), kept, labels[kept], {"coverage": coverage})
