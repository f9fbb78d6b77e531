"""Greyscale: the colours of the image faded to their luma (ITU-R BT.601; after Ojha et al., NeurIPS 2023, section 4.3).

There is no chance in this probe, so it has one draw.
"""

import numpy as np

from crossdistill.core.errors import SettingError
from crossdistill.core.registry import probe
from crossdistill.core.types import ProbeImages
from crossdistill.probes._checks import check_images

LUMA = np.array([19595, 38470, 7471], np.uint32)  # 0.299, 0.587, 0.114 of red, green, blue in units of 2**-16; they add up to 2**16
STEPS = 256  # of the share: 8 bits of colour, 16 of the weights and 8 of the share just fit into 32


@probe(
    isolates=(
        "Independence of colour: each pixel is faded to a grey as bright as it was, so shapes and textures stay. A high accuracy means "
        "that colour is not needed."
    ),
    quick=[{"share": 0.5}, {"share": 1.0}],
    full=[{"share": 0.25}, {"share": 0.5}, {"share": 0.75}, {"share": 1.0}],
    draws={"quick": 1, "full": 1},
    null={"share": 0.0},
    removes=("colour",),
)
def grayscale(images: np.ndarray, labels: np.ndarray, *, share: float = 1.0) -> ProbeImages:
    """Images uint8 [images, 3, height, width] in which a `share` (0 to 1, in steps of 1/256) of each pixel is its luma, rounded once.

    With a share of 1 the three channels are equal. Raises SettingError for a share out of range.
    """
    check_images(images)
    if not 0 <= share <= 1:
        raise SettingError(f"share must be 0 to 1, got {share}")
    grey = np.uint32(round(share * STEPS))
    faded = images.astype(np.uint32)
    luma = np.einsum("nchw,c->nhw", faded, LUMA)
    # Integers up to 255 * 2**24 + 2**23, which is below 2**32.
    faded *= (np.uint32(STEPS) - grey) << np.uint32(16)
    faded += (luma * grey)[:, None] + np.uint32(2**23)
    return ProbeImages((faded >> np.uint32(24)).astype(np.uint8), np.arange(len(images)), labels)
