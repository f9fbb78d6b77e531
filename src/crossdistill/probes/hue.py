"""Hue: the hue of every pixel turned around the colour circle, saturation and value kept (after Ojha et al., NeurIPS 2023, section 4.3).

Hue, saturation and value are those of the usual hexagonal model (Smith, SIGGRAPH 1978). There is no chance in this probe, so it has
one draw.
"""

import numpy as np

from crossdistill.core.registry import probe
from crossdistill.core.types import ProbeImages
from crossdistill.probes._checks import check_images

CHUNK = 2**18  # values worked on at once, small enough for the processor's cache


def turned(images: np.ndarray, degrees: int) -> np.ndarray:
    """Colours uint8 [images, 3, ...] with the hue turned by `degrees`, rounded half up once; all in integers.

    >>> turned(np.array([[255, 0, 0]], np.uint8), 120).tolist(), turned(np.array([[255, 0, 0]], np.uint8), 60).tolist()
    ([[0, 255, 0]], [[255, 255, 0]])
    """
    red, green, blue = (images[:, channel].astype(np.int32) for channel in range(3))
    value = np.maximum(np.maximum(red, green), blue)
    chroma = value - np.minimum(np.minimum(red, green), blue)
    # The hue times the chroma, in degrees: from 0 at red over 120 chroma at green and 240 chroma at blue to 360 chroma.
    hue = np.select(
        [value == red, value == green], [60 * (green - blue), 60 * (blue - red) + 120 * chroma], 60 * (red - green) + 240 * chroma
    )
    hue += degrees % 360 * chroma
    circle = np.maximum(360 * chroma, 1)  # grey has none
    painted = np.empty_like(images)
    # Each channel falls from the value to the least one and comes back, the three of them a third of the circle apart.
    for channel, start in enumerate((300, 180, 60)):
        place = (hue + start * chroma) % circle
        fall = np.minimum(np.minimum(place, 240 * chroma - place), 60 * chroma)
        painted[:, channel] = (60 * value - np.maximum(fall, 0) + 30) // 60
    return painted


@probe(
    isolates=(
        "Independence of which colour things have: all hues are turned by one angle, so red may be green, while what differs in colour "
        "still does. A high accuracy means that the colours themselves are not needed."
    ),
    quick=[{"degrees": 90}, {"degrees": 180}],
    full=[{"degrees": degrees} for degrees in (30, 60, 90, 120, 150, 180)],
    draws={"quick": 1, "full": 1},
    null={"degrees": 0},
    removes=("colour",),
)
def hue(images: np.ndarray, labels: np.ndarray, *, degrees: int = 180) -> ProbeImages:
    """Images uint8 [images, 3, height, width] with all hues turned by a whole number of `degrees`, from red towards green.

    Greys stay as they are; 360 is none. Brightness is not kept: a yellow of the same value is lighter than a blue.
    """
    check_images(images)
    painted = np.empty(images.shape, np.uint8)
    n_rows = max(1, CHUNK // max(images[0].size if len(images) else 1, 1))
    for start in range(0, len(images), n_rows):
        painted[start : start + n_rows] = turned(images[start : start + n_rows], degrees)
    return ProbeImages(painted, np.arange(len(images)), labels)
