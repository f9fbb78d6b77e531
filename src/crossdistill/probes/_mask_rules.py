"""Which masks of objects can be used: area, number of pieces, and the largest square that fits inside. Exact in every step.

Masks are uint8 [images, height, width], 255 where the object covers the whole pixel; an object stands where it covers half.
"""

import numpy as np

from crossdistill.core.errors import SettingError

HALF = 128
NEARLY_ALL = 230  # nine tenths: a pixel on the edge shows the ground as well, and is no texture of the object
SMALLEST_AREA, LARGEST_AREA, MOST_COMPONENTS = 0.05, 0.85, 3


def check_masks(masks: np.ndarray, images: np.ndarray) -> None:
    """Raise ValueError where the masks do not belong to the images by shape and kind."""
    expected = (len(images), *images.shape[2:])
    if masks.dtype != np.uint8 or masks.shape != expected:
        raise ValueError(f"masks must be uint8 {list(expected)}, one for each image, got {masks.dtype} {list(masks.shape)}")


def areas(masks: np.ndarray) -> np.ndarray:
    """Share of the image that the object covers, 0 to 1: float64 [images].

    >>> areas(np.array([[[255, 0], [0, 255]]], np.uint8)).tolist()
    [0.5]
    """
    return masks.sum(axis=(1, 2), dtype=np.int64) / (255 * masks.shape[1] * masks.shape[2])


def components(masks: np.ndarray) -> np.ndarray:
    """Number of separate pieces of each object, corners joined: int64 [images].

    >>> components(np.array([[[255, 0, 255], [0, 0, 255]], [[255, 0, 0], [0, 255, 0]]], np.uint8)).tolist()
    [2, 1]
    """
    from scipy.ndimage import label

    neighbours = np.zeros((3, 3, 3), bool)
    neighbours[1] = True  # within an image, never from one to the next
    labels = np.empty(masks.shape, np.int32)
    label(masks >= HALF, neighbours, output=labels)
    # Pieces are numbered image after image, so the largest number so far counts them all.
    so_far = np.maximum.accumulate(labels.max(axis=(1, 2), initial=0))
    return np.diff(so_far, prepend=0).astype(np.int64)


def usable(masks: np.ndarray, smallest_area: float, largest_area: float, most_components: int) -> np.ndarray:
    """Masks that show one object that is neither a speck nor the whole picture: bool [images].

    Raises SettingError where the rules leave no mask at all.
    """
    if not 0 <= smallest_area < largest_area <= 1:
        raise SettingError(f"smallest_area must be below largest_area, both 0 to 1, got {smallest_area} and {largest_area}")
    if most_components < 1:
        raise SettingError(f"most_components must be at least 1, got {most_components}")
    area, pieces = areas(masks), components(masks)
    return (area >= smallest_area) & (area <= largest_area) & (pieces >= 1) & (pieces <= most_components)


def largest_squares(masks: np.ndarray, at_most: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(top, left, side) of the largest square of at most `at_most` pixels a side inside each object, int64 [images] each; side 0 if none.

    Squares keep off the object's edge. Of several of one size the one nearest to the object's centre of mass is taken, then the first in
    reading order.

    >>> [values.tolist() for values in largest_squares(np.array([[[255, 255, 0], [255, 255, 255]]], np.uint8), 9)]
    [[0], [0], [2]]
    """
    inside = masks >= NEARLY_ALL
    fits = inside.copy()  # whether the square of `side` pixels whose first pixel is here lies inside
    sides, corners = np.zeros(len(masks), np.int64), np.zeros_like(fits)
    for side in range(1, at_most + 1):
        growing = np.flatnonzero(fits.any(axis=(1, 2)))
        if not len(growing):
            break
        sides[growing], corners[growing] = side, fits[growing]
        grown = np.zeros_like(fits)
        grown[:, :-1, :-1] = fits[:, :-1, :-1] & fits[:, 1:, :-1] & fits[:, :-1, 1:] & fits[:, 1:, 1:]
        fits = grown
    place = _nearest_to_centre(corners, inside, sides)
    return place // masks.shape[2], place % masks.shape[2], sides


def _nearest_to_centre(corners: np.ndarray, inside: np.ndarray, sides: np.ndarray) -> np.ndarray:
    """The flat position of the corner whose square has its centre nearest to the centre of mass, in half pixels: int64 [images]."""
    distance = [np.empty(0)] * 2
    for axis, n in enumerate(inside.shape[1:]):
        at, profile = np.arange(n), inside.sum(axis=2 - axis)
        centre = 2 * (profile * at).sum(axis=1) // np.maximum(profile.sum(axis=1), 1)
        distance[axis] = (2 * at + sides[:, None] - 1 - centre[:, None]) ** 2
    total = distance[0][:, :, None] + distance[1][:, None, :]
    return np.where(corners, total, np.iinfo(np.int64).max).reshape(len(inside), inside.shape[1] * inside.shape[2]).argmin(axis=1)
