"""Corruptions by digital processing: contrast, elastic deformation, pixelation, JPEG."""

from io import BytesIO

import numpy as np

from crossdistill.probes._corruptions_linear import mirror_edge, mirror_inside, rounded, smoothed
from crossdistill.probes._corruptions_noise import Draw

PLACE_BITS = 10  # 1/1024 of a pixel; 255 grey levels with two such weights stay below 2**28


def contrast(images: np.ndarray, percent: int, draw: Draw) -> np.ndarray:
    """`percent` % of the distance of each value from the mean of its channel."""
    n_pixels = images.shape[2] * images.shape[3]
    sums = images.sum(axis=(2, 3), keepdims=True, dtype=np.int64)
    hundredths = percent * n_pixels * images.astype(np.int64) + (100 - percent) * sums
    return ((hundredths + 50 * n_pixels) // (100 * n_pixels)).astype(np.uint8)


def elastic_transform(images: np.ndarray, shape: tuple[float, float, float], draw: Draw) -> np.ndarray:
    """A random affine map, then random displacements; `shape`: their size, their smoothness, and how far the affine map moves its corners.

    All in shares of the shorter side. The published code interpolates twice, once for each, here it is done once.
    """
    n, _, height, width = images.shape
    alpha, sigma, jitter = (share * min(height, width) for share in shape)
    draws = 2 * draw(6 + 2 * height * width).astype(np.int64) + 1 - 2**16  # odd numbers between -2**16 and 2**16
    y, x = np.mgrid[:height, :width].astype(np.float64)
    if alpha:
        field = smoothed(draws[:, 6:].reshape(n, 2, height, width), sigma, 3, mirror_edge) * (alpha / 2.0**48)
        x, y = x + field[:, 0], y + field[:, 1]
    x, y = affine_places(draws[:, :6].reshape(n, 3, 2) * (jitter / 2**16), x, y, height, width)
    return interpolated(images, x, y)


def affine_places(jitter: np.ndarray, x: np.ndarray, y: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Where an affine map takes the pixels x, y [height, width] from: float64 [images, height, width] each.

    The map moves three corners of a square around the centre by `jitter` [images, 3, (x, y)] pixels. Only basic arithmetic, value by
    value, which is exact to the last bit everywhere.
    """
    reach = min(height, width) // 3
    corners = np.array([width // 2, height // 2]) + reach * np.array([[1, 1], [1, -1], [-1, -1]])
    moved = corners + jitter
    first, second = (moved[:, 0] - moved[:, 1]).T, (moved[:, 2] - moved[:, 1]).T  # x and y of each image
    area = first[0] * second[1] - first[1] * second[0]
    # Coordinates along the moved sides, which are those along the sides before: (0, 2 reach) and (-2 reach, 0).
    from_x, from_y = (x - moved[:, 1, 0, None, None], y - moved[:, 1, 1, None, None])
    scale = (2 * reach / np.where(area == 0, 1, area))[:, None, None]
    first, second = first[..., None, None], second[..., None, None]
    along_first = (from_x * second[1] - from_y * second[0]) * scale
    along_second = (from_y * first[0] - from_x * first[1]) * scale
    return corners[1, 0] - along_second, corners[1, 1] + along_first


def interpolated(images: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Images uint8 taken at the places x, y [images, height, width], linearly between pixels and mirrored at the border: uint8."""
    n, channels, height, width = images.shape
    one = 1 << PLACE_BITS
    fine_x, fine_y = (np.rint(places * one).astype(np.int64) for places in (x, y))
    x_share, y_share = (fine_x & (one - 1)).reshape(n, 1, -1), (fine_y & (one - 1)).reshape(n, 1, -1)
    columns, rows = fine_x >> PLACE_BITS, fine_y >> PLACE_BITS
    pixels = images.reshape(n, channels, -1)
    sums = np.zeros(pixels.shape, np.int64)
    for down, row_share in ((0, one - y_share), (1, y_share)):
        for across, share in ((0, one - x_share), (1, x_share)):
            places = mirror_inside(rows + down, height) * width + mirror_inside(columns + across, width)
            sums += np.take_along_axis(pixels, places.reshape(n, 1, -1), axis=2) * (row_share * share)
    return rounded(sums, 2 * PLACE_BITS).astype(np.uint8).reshape(images.shape)


def box_samples(n_in: int, n_out: int) -> np.ndarray:
    """Which of `n_in` pixels each of `n_out` is the mean of: those whose centre it covers, at least one. float64 of 0 and 1 [n_out, n_in].

    >>> box_samples(4, 2).tolist(), box_samples(2, 3).tolist()
    ([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]], [[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    """
    distances = n_out * (2 * np.arange(n_in) + 1) - n_in * (2 * np.arange(n_out)[:, None] + 1)
    reach = max(n_in, n_out)
    return ((-reach < distances) & (distances <= reach)).astype(np.float64)


def pixelate(images: np.ndarray, percent: int, draw: Draw) -> np.ndarray:
    """The image at `percent` % of its resolution, in large pixels."""
    height, width = images.shape[2:]
    small = [max(1, side * percent // 100) for side in (height, width)]
    down, across = box_samples(height, small[0]), box_samples(width, small[1])
    sums = down @ (images.astype(np.float64) @ across.T)  # whole numbers, exact
    counts = (down.sum(axis=1)[:, None] * across.sum(axis=1)).astype(np.int64)
    means = ((2 * sums.astype(np.int64) + counts) // (2 * counts)).astype(np.uint8)
    rows, columns = (box_samples(few, side).argmax(axis=1) for few, side in zip(small, (height, width), strict=True))
    return means[:, :, rows[:, None], columns]


def jpeg_compression(images: np.ndarray, quality: int, draw: Draw) -> np.ndarray:
    """The image after JPEG of this quality, by Pillow: the bytes are those of its libjpeg."""
    from PIL import Image

    compressed = np.empty(images.shape, np.uint8)
    for row, image in enumerate(images):
        file = BytesIO()
        Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).save(file, "JPEG", quality=quality)
        compressed[row] = np.asarray(Image.open(file)).transpose(2, 0, 1)
    return compressed
