"""High-pass filter: spatial frequencies up to a radius are removed, the mean colour stays (radial mask of Wang et al., CVPR 2020, https://arxiv.org/abs/1905.13545).

There is no chance in this probe, so it has one draw. Contrast is not stretched afterwards: what fades with the large structures fades.
"""

from typing import Any

import numpy as np

from crossdistill.core.errors import SettingError
from crossdistill.core.registry import probe
from crossdistill.core.types import ProbeImages
from crossdistill.probes._checks import check_images
from crossdistill.probes._spectrum import filtered, frequencies, usable_radii


def full_levels(size: tuple[int, int]) -> list[dict[str, Any]]:
    """All radii that mean something at this size, mildest (smallest) first.

    >>> [level["radius"] for level in full_levels((32, 32))]
    [2, 4, 6, 8, 12]
    """
    return [{"radius": radius} for radius in usable_radii(size)]


@probe(
    isolates=(
        "Sufficiency of fine structure: spatial frequencies up to a radius are removed, so large areas of colour and shading are gone "
        "while texture and contours stay. A high accuracy means that low frequencies are not needed."
    ),
    quick=[{"radius": 2}, {"radius": 6}],
    full=full_levels,
    draws={"quick": 1, "full": 1},
    null={"radius": 0},
)
def high_pass(images: np.ndarray, labels: np.ndarray, *, radius: int | float = 4) -> ProbeImages:
    """Images uint8 [images, 3, height, width] that hold their mean colour and frequencies above `radius` cycles per smaller side.

    Values are clipped once. 0 leaves the image as it was. Raises SettingError for a negative radius.
    """
    check_images(images)
    if radius < 0:
        raise SettingError(f"radius must not be negative, got {radius}")
    kept = frequencies(*images.shape[2:]) > radius
    kept[0, 0] = True  # the mean
    return ProbeImages(filtered(images, kept), np.arange(len(images)), labels)
