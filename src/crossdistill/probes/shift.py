"""Shift: the whole image moved by a few pixels, its border mirrored (after Zhang, ICML 2019, https://arxiv.org/abs/1904.11486).

What a network answers here and on the clean image should be the same; convolutions are built for that, patches are not.
"""

import numpy as np

from crossdistill.core.errors import SettingError
from crossdistill.core.registry import probe
from crossdistill.core.seeds import key
from crossdistill.core.types import ProbeImages
from crossdistill.probes._checks import check_images
from crossdistill.probes._draws import below, raw_words


def full_levels(size: tuple[int, int]) -> list[dict[str, int]]:
    """Pixels: 1, 2, 4 and so on, up to an eighth of the smaller side.

    >>> [[level["pixels"] for level in full_levels((side, side))] for side in (28, 32, 224)]
    [[1, 2, 3], [1, 2, 4], [1, 2, 4, 8, 16, 28]]
    """
    farthest = max(min(size) // 8, 1)
    doubled = [2**power for power in range(farthest.bit_length()) if 2**power < farthest]
    return [{"pixels": pixels} for pixels in [*doubled, farthest]]


def quick_levels(size: tuple[int, int]) -> list[dict[str, int]]:
    """A sixteenth and an eighth of the smaller side; 1 and 2 pixels in images that are too small for that.

    >>> quick_levels((32, 32)), quick_levels((224, 224))
    ([{'pixels': 2}, {'pixels': 4}], [{'pixels': 14}, {'pixels': 28}])
    """
    farthest = max(min(size) // 8, 2)
    return [{"pixels": farthest // 2}, {"pixels": farthest}]


def offsets(pixels: int) -> np.ndarray:
    """All shifts (down, right) whose length is `pixels` when rounded to whole pixels: int64 [directions, 2].

    >>> len(offsets(0)), len(offsets(1)), len(offsets(2)), offsets(4)[0].tolist()
    (1, 8, 12, [-4, -2])
    """
    steps = np.arange(-pixels, pixels + 1)
    down, right = (axis.ravel() for axis in np.meshgrid(steps, steps, indexing="ij"))
    twice_squared = 4 * (down**2 + right**2)
    near = (twice_squared >= (2 * pixels - 1) ** 2) & (twice_squared < (2 * pixels + 1) ** 2)
    return np.stack([down, right], axis=1)[near if pixels else slice(None)]


@probe(
    isolates=(
        "Indifference to small shifts: the whole image is moved by some pixels in a direction of its own, and its border mirrored. "
        "Nothing is hidden: an answer that changes hung on where things stand to the pixel."
    ),
    quick=quick_levels,
    full=full_levels,
    draws={"quick": 1, "full": 5},
    null={"pixels": 0},
)
def shift(images: np.ndarray, labels: np.ndarray, index: np.ndarray, seed: int, *, pixels: int = 2) -> ProbeImages:
    """Images uint8 [images, 3, height, width] moved by about `pixels`, each in a direction of its own; the border is mirrored.

    All whole-pixel shifts of that length, rounded, are equally likely. Factors `down` and `right` say how far the content moved.
    Raises SettingError for a shift as long as the image, or longer.
    """
    check_images(images)
    longest = min(images.shape[2:]) - 1
    if not 0 <= pixels <= longest:
        raise SettingError(f"pixels must be 0 to {longest}, the smallest side of the images less one, got {pixels}")
    directions = offsets(pixels)
    chosen = directions[below(raw_words(key(seed, pixels), index, 1)[:, 0], len(directions))]
    down, right = chosen[:, 0], chosen[:, 1]
    mirrored = np.pad(images, [(0, 0), (0, 0), (pixels, pixels), (pixels, pixels)], mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(mirrored, images.shape[2:], axis=(2, 3))
    shifted = windows[np.arange(len(images)), :, pixels - down, pixels - right]
    return ProbeImages(shifted, np.arange(len(images)), labels, {"down": down, "right": right})
