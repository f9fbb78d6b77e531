"""Edge maps: contours as thin lines and nothing else (the detector of Canny, TPAMI 1986; as a test of networks: Geirhos et al., ICLR 2019, https://arxiv.org/abs/1811.12231).

scikit-image's detector interpolates in floating point, one image and channel at a time. This one calculates in integers throughout, so
that bytes are equal on every machine, for many images at once, and follows in each pixel the colour channel that changes most.
There is no chance in this probe, so it has one draw.
"""

import math
from typing import Any, Literal, cast

import numpy as np

from crossdistill.core.errors import SettingError
from crossdistill.core.registry import probe
from crossdistill.core.types import ProbeImages
from crossdistill.probes._checks import check_images
from crossdistill.probes._spectrum import chunks

KERNEL_ONE = 2**8  # what the weights of the smoothing kernel sum up to, roughly
STRONGER_SHARE = (3, 10)  # of the pixels are steep enough to start a line: MATLAB's default, as is
LOW_TO_HIGH = (2, 5)  # the ratio of the slope that goes on with a line to the one that starts it
SMALLEST_SLOPE = 2  # grey levels per pixel: what is flatter is no contour in any image
TANGENT = (13573, 2**15)  # of 22.5 degrees


def sigmas(size: tuple[int, int]) -> list[float]:
    """Smoothing in pixels, finest first: 0.5, 1, 1.5 at 32 px; it grows with the square root of the smaller side.

    >>> sigmas((32, 32)), sigmas((224, 224))
    ([0.5, 1.0, 1.5], [1.3, 2.6, 4.0])
    """
    return [round(sigma * math.sqrt(min(size) / 32), 1) for sigma in (0.5, 1.0, 1.5)]


def full_levels(size: tuple[int, int]) -> list[dict[str, Any]]:
    """Each smoothing in both polarities."""
    return [{"sigma": sigma, "polarity": polarity} for sigma in sigmas(size) for polarity in ("black", "white")]


def quick_levels(size: tuple[int, int]) -> list[dict[str, Any]]:
    """Both polarities at the middle smoothing."""
    return full_levels(size)[2:4]


def weighted(values: np.ndarray, weights: np.ndarray, axis: int) -> np.ndarray:
    """Correlation of int32 values with an odd number of integer weights along an axis; borders are repeated outwards.

    >>> weighted(np.array([[0, 0, 1, 5]], np.int32), np.array([-1, 0, 1]), 1).tolist()
    [[0, 1, 5, 4]]
    """
    reach, length = len(weights) // 2, values.shape[axis]
    padded = np.pad(values, [(reach, reach) if dimension == axis else (0, 0) for dimension in range(values.ndim)], mode="edge")
    result = np.zeros_like(values)
    for start, weight in enumerate(weights):
        if weight:
            result += np.take(padded, range(start, start + length), axis=axis) * np.int32(weight)
    return result


def smoothing_kernel(sigma: float) -> np.ndarray:
    """Integer weights of a Gaussian, cut off at 3 sigma; their sum is 256 but for rounding.

    >>> smoothing_kernel(0.5).tolist(), smoothing_kernel(0).tolist()
    ([27, 201, 27], [256])
    """
    reach = math.ceil(3 * sigma)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / max(sigma, 1e-9)) ** 2)
    weights = np.rint(KERNEL_ONE * weights / weights.sum()).astype(np.int32)
    return np.trim_zeros(weights)


def slopes(images: np.ndarray, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """Vertical and horizontal Sobel slopes of the smoothed channel that changes most: int64 [images, height, width] each."""
    kernel, smooth, difference = smoothing_kernel(sigma), np.array([1, 2, 1]), np.array([-1, 0, 1])
    blurred = weighted(weighted(images.astype(np.int32), kernel, 2), kernel, 3)
    down = weighted(weighted(blurred, smooth, 3), difference, 2).astype(np.int64)
    right = weighted(weighted(blurred, smooth, 2), difference, 3).astype(np.int64)
    steepest = (down**2 + right**2).argmax(axis=1)[:, None]
    return np.take_along_axis(down, steepest, 1)[:, 0], np.take_along_axis(right, steepest, 1)[:, 0]


def crests(strength: np.ndarray, down: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Where the slope is steeper than before and behind, in the nearest of four directions: bool [images, height, width]."""
    height, width = strength.shape[1:]
    padded = np.pad(strength, ((0, 0), (1, 1), (1, 1)))
    part, whole = TANGENT
    flat, steep = abs(down) * whole < abs(right) * part, abs(right) * whole < abs(down) * part
    falling = (down > 0) == (right > 0)
    directions = {(0, 1): flat, (1, 0): steep, (1, 1): ~flat & ~steep & falling, (1, -1): ~flat & ~steep & ~falling}
    result = np.zeros(strength.shape, bool)
    for (rows, columns), chosen in directions.items():
        behind = padded[:, 1 + rows : 1 + rows + height, 1 + columns : 1 + columns + width]
        before = padded[:, 1 - rows : 1 - rows + height, 1 - columns : 1 - columns + width]
        result |= chosen & (strength > before) & (strength >= behind)  # of two equal neighbours one
    return result


def edge_maps(images: np.ndarray, sigma: float) -> np.ndarray:
    """Where contours run, in lines of one pixel: bool [images, height, width].

    A line starts where the slope is among the image's steepest and goes on while it stays above 2/5 of that.
    """
    from scipy.ndimage import label

    down, right = slopes(images, sigma)
    strength = down**2 + right**2
    crest = crests(strength, down, right)
    ordered = np.sort(strength.reshape(len(strength), -1), axis=1)
    n_pixels = ordered.shape[1]
    part, whole = STRONGER_SHARE
    high = ordered[:, n_pixels - 1 - n_pixels * part // whole, None, None]
    kernel_sum = int(smoothing_kernel(sigma).sum())
    floor = (8 * SMALLEST_SLOPE * kernel_sum**2) ** 2  # Sobel's weights sum up to 8 for each grey level per pixel
    part, whole = LOW_TO_HIGH
    going_on = crest & (strength * whole**2 > high * part**2) & (strength >= floor)
    touching = np.pad(np.ones((1, 3, 3), int), ((1, 1), (0, 0), (0, 0)))  # the eight around a pixel, none in other images
    lines, n_lines = cast(tuple[np.ndarray, int], label(going_on, structure=touching))
    started = np.zeros(n_lines + 1, bool)
    started[lines[going_on & (strength > high)]] = True
    return started[lines]


@probe(
    isolates=(
        "Sufficiency of contours: nothing stays but thin lines where the image changes, so colour, shading and fine texture are gone; "
        "the contours of coarse texture go with more smoothing only. A high accuracy means that outlines are enough. Average the two "
        "polarities: polarity alone moves networks."
    ),
    about=("shape",),
    quick=quick_levels,
    full=full_levels,
    draws={"quick": 1, "full": 1},
    null=None,
    core=False,
    removes=("texture", "colour"),
)
def edges(images: np.ndarray, labels: np.ndarray, *, sigma: float = 1.0, polarity: Literal["black", "white"] = "black") -> ProbeImages:
    """Edge maps uint8 [images, 3, height, width]: lines in `polarity` on the other colour, three equal channels.

    `sigma` is the smoothing before, in pixels, 0 to 16. An image without any contour comes back blank; factor `edge_pixels` counts the
    pixels on lines. No level gives the clean images. Raises SettingError for a sigma out of range and a polarity that is neither.
    """
    check_images(images)
    if not 0 <= sigma <= 16:
        raise SettingError(f"sigma must be 0 to 16 pixels, got {sigma}")
    if polarity not in ("black", "white"):
        raise SettingError(f"polarity is the colour of the lines, 'black' or 'white', got '{polarity}'")
    result, counts = np.empty(images.shape, np.uint8), np.empty(len(images), np.int64)
    for rows in chunks(images):
        lines = edge_maps(images[rows], sigma)
        counts[rows] = lines.sum(axis=(1, 2))
        result[rows] = np.where(lines == (polarity == "white"), 255, 0)[:, None]
    return ProbeImages(result, np.arange(len(images)), labels, {"edge_pixels": counts})
