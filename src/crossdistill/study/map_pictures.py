"""Small files of pictures: maps over the images that they belong to as one strip of tiles, and sheets of rows of images."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from crossdistill.core.store import write_atomically

SMALLEST, LARGEST = 64, 96  # px, of a tile's longer side; twelve of the largest are as wide as the page shows
GAP = 4  # px between tiles, white
SHEET_GAP = 2  # the same in sheets, whose tiles are cut out one by one
MAP_SHARE = 0.6  # of the map's colour in each pixel; the rest is the picture in grey
QUALITY = 85

VIRIDIS = ("440154", "482878", "3e4a89", "31688e", "26828e", "1f9e89", "35b779", "6dcd59", "b4de2c", "fde725")
"""Tenths of matplotlib's map of that name: each lighter than the one before, to the colour-blind and in grey too."""


def overlaid(images: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """uint8 [images, 3, height, width]: maps [images, height, width], 0 (dark violet) to 1 (yellow), over the images in grey."""
    grey = np.tensordot(images.astype(np.float64), [0.299, 0.587, 0.114], axes=(1, 0))[:, None]
    mixed = MAP_SHARE * coloured(maps) + (1 - MAP_SHARE) * grey
    return np.rint(mixed).clip(0, 255).astype(np.uint8)


def coloured(values: np.ndarray) -> np.ndarray:
    """The colours of values in 0 to 1, float64 0 to 255, as a new axis after the first.

    >>> coloured(np.array([0.0, 1.0])).round().astype(int).tolist()
    [[68, 1, 84], [253, 231, 37]]
    """
    colours = np.array([list(bytes.fromhex(colour)) for colour in VIRIDIS])
    places = np.linspace(0, 1, len(colours))
    return np.stack([np.interp(values, places, channel) for channel in colours.T], axis=1)


def write_strip(path: Path, images: np.ndarray) -> None:
    """Write uint8 images [images, 3, height, width] side by side as WebP; the same images always give the same bytes.

    Small images are enlarged by a whole number, each pixel to a square.
    """
    from PIL import Image

    tiles = [_tile(Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))) for image in images]
    width, height = tiles[0].size
    strip = Image.new("RGB", (len(tiles) * (width + GAP) - GAP, height), "white")
    for number, tile in enumerate(tiles):
        strip.paste(tile, (number * (width + GAP), 0))
    _save(path, strip)


def write_sheet(path: Path, rows: Sequence[np.ndarray]) -> tuple[int, int]:
    """Write rows of uint8 images [images, 3, height, width], one below the other; returns a tile's (width, height) in px.

    Tiles are as large as the images, at most 64 px a side: the page enlarges small ones.
    """
    from PIL import Image

    tiles = [[Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))) for image in row] for row in rows]
    width, height = tiles[0][0].size
    shrink = min(1.0, SMALLEST / max(width, height))
    size = max(1, round(width * shrink)), max(1, round(height * shrink))
    across, down = size[0] + SHEET_GAP, size[1] + SHEET_GAP
    sheet = Image.new("RGB", (len(tiles[0]) * across - SHEET_GAP, len(tiles) * down - SHEET_GAP), "white")
    for row, images in enumerate(tiles):
        for column, image in enumerate(images):
            shown = image if image.size == size else image.resize(size, Image.Resampling.BOX)
            sheet.paste(shown, (column * across, row * down))
    _save(path, sheet)
    return size


def _save(path: Path, picture: Any) -> None:
    """Write a picture, where it is not there already."""
    buffer = io.BytesIO()
    picture.save(buffer, format="WEBP", quality=QUALITY, method=4)
    if not path.exists() or path.read_bytes() != buffer.getvalue():
        write_atomically(path, lambda file: file.write(buffer.getbuffer()))


def _tile(image: Any) -> Any:
    from PIL import Image

    factor = -(-SMALLEST // max(image.size))
    enlarged = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    enlarged.thumbnail((LARGEST, LARGEST), Image.Resampling.BOX)
    return enlarged
