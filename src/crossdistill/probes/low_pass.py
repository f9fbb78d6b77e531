"""Low-pass filter: spatial frequencies above a radius are removed (radial mask of Wang et al., CVPR 2020, https://arxiv.org/abs/1905.13545).

There is no chance in this probe, so it has one draw. The edge of the disc is sharp, so contours ring, and the transform takes the
image as one tile of a plane: opposite borders leak into one another. Gaussian blur does neither: it is a level of `corrupt`.
"""

from typing import Any

import numpy as np

from crossdistill.core.errors import SettingError
from crossdistill.core.registry import probe
from crossdistill.core.types import ProbeImages
from crossdistill.probes._checks import check_images
from crossdistill.probes._spectrum import filtered, frequencies, usable_radii


def full_levels(size: tuple[int, int]) -> list[dict[str, Any]]:
    """All radii that mean something at this size, mildest (largest) first.

    >>> [level["radius"] for level in full_levels((32, 32))]
    [12, 8, 6, 4, 2]
    """
    return [{"radius": radius} for radius in reversed(usable_radii(size))]


@probe(
    isolates=(
        "Sufficiency of coarse structure: only spatial frequencies up to a radius stay, so fine texture and sharp contours are gone. "
        "A high accuracy means that high frequencies are not needed."
    ),
    quick=[{"radius": 8}, {"radius": 4}],
    full=full_levels,
    draws={"quick": 1, "full": 1},
    null={"radius": 10**6},
)
def low_pass(images: np.ndarray, labels: np.ndarray, *, radius: int | float = 6) -> ProbeImages:
    """Images uint8 [images, 3, height, width] that hold only frequencies of at most `radius` cycles per smaller side, clipped once.

    At 0 only the mean colour stays; beyond all frequencies (half the diagonal of the image in pixels) the image stays as it was.
    Raises SettingError for a negative radius.
    """
    check_images(images)
    if radius < 0:
        raise SettingError(f"radius must not be negative, got {radius}")
    kept = frequencies(*images.shape[2:]) <= radius
    return ProbeImages(filtered(images, kept), np.arange(len(images)), labels)
