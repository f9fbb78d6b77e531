"""Maps over the images that they belong to, as one strip of tiles in a small file."""

import io
from pathlib import Path
from typing import Any

import numpy as np

from crossdistill.core.store import write_atomically

SMALLEST, LARGEST = 64, 96  # px, of a tile's longer side; twelve of the largest are as wide as the page shows
GAP = 4  # px between tiles, white
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
    buffer = io.BytesIO()
    strip.save(buffer, format="WEBP", quality=QUALITY, method=4)
    if not path.exists() or path.read_bytes() != buffer.getvalue():
        write_atomically(path, lambda file: file.write(buffer.getbuffer()))


def _tile(image: Any) -> Any:
    from PIL import Image

    factor = -(-SMALLEST // max(image.size))
    enlarged = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    enlarged.thumbnail((LARGEST, LARGEST), Image.Resampling.BOX)
    return enlarged
