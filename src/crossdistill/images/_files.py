"""Decoding of image files, the same for every source that reads them: RGB, one size on request, damage named rather than guessed at."""

import io
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from crossdistill.core.errors import SettingError
from crossdistill.images._raw import Damaged

Size = int | tuple[int, int] | None
"""Side, or (height, width), in pixels; None keeps the images as they are."""

# What Pillow raises for bytes that are not a whole image; a truncated one is an OSError, since LOAD_TRUNCATED_IMAGES stays off.
DAMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, struct.error, Image.DecompressionBombError)


def file_decoder(size: Size) -> Callable[[list[Path | bytes | None]], list[np.ndarray | Damaged]]:
    """A function that decodes a batch of files or of their bytes. Raises SettingError for a size that no image can have."""
    height_width: tuple[int, int] | None = (size, size) if isinstance(size, int) else size
    if height_width and min(height_width) < 1:
        raise SettingError(f"size must be at least 1 pixel, got {size}")
    return partial(_decode_all, height_width)


def _decode_all(size: tuple[int, int] | None, batch: list[Path | bytes | None]) -> list[np.ndarray | Damaged]:
    return [decoded_image(data, size) for data in batch]


def decoded_image(data: Path | bytes | None, size: tuple[int, int] | None) -> np.ndarray | Damaged:
    """One image as uint8 [3, height, width], or what is wrong with it.

    With a size the image is scaled (bicubic, anti-aliased) until it covers height x width and cropped to its centre, so that
    shapes keep their proportions. Grey and palette become RGB, transparency is dropped; an EXIF orientation is not applied.
    """
    if data is None:
        return Damaged("no bytes")
    try:
        with Image.open(io.BytesIO(data) if isinstance(data, bytes) else data) as image:
            image.load()
            rgb = _rgb(image)
            if size and (rgb.height, rgb.width) != size:
                rgb = ImageOps.fit(rgb, (size[1], size[0]), method=Image.Resampling.BICUBIC)
            return np.asarray(rgb).transpose(2, 0, 1)
    except DAMAGE as error:
        return Damaged(_reason(error))


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        # Pillow would clip 16-bit grey at 255; its upper byte is the image.
        return Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError(f"pixels of mode '{image.mode}' have no known range")
    return image.convert("RGB")


def _reason(error: Exception) -> str:
    """Pillow's words without the path or buffer, which the report of damage names itself."""
    text = (error.strerror if isinstance(error, OSError) and error.strerror else str(error)) or type(error).__name__
    return "not an image" if text.startswith("cannot identify image file") else text
