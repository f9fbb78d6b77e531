"""Pictures inside the page: previews of the probes as WebP data URIs, so that the page needs no other file."""

import base64
import io
from pathlib import Path
from typing import Any

WIDEST = 1200  # px; previews show small images enlarged, so that more would only weigh
LOSSLESS_BYTES = 40_000


def data_uri(path: Path) -> str:
    """A picture as a `data:image/webp` address: lossless up to 40 kB, as enlarged pixels and flat colours are, else at quality 85."""
    from PIL import Image

    with Image.open(path) as image:
        picture = image.convert("RGB")
    if picture.width > WIDEST:
        picture = picture.resize((WIDEST, round(picture.height * WIDEST / picture.width)), Image.Resampling.LANCZOS)
    encoded = _webp(picture, lossless=True)
    if len(encoded) > LOSSLESS_BYTES:
        encoded = _webp(picture, quality=85)
    return webp_address(encoded)


def webp_address(encoded: bytes) -> str:
    """The bytes of a WebP file as a `data:image/webp` address."""
    return "data:image/webp;base64," + base64.b64encode(encoded).decode()


def picture_address(path: Path) -> tuple[str, tuple[int, int]]:
    """A WebP file as a data address, with its (width, height) in pixels. Raises OSError where it is no whole picture."""
    from PIL import Image

    encoded = path.read_bytes()
    with Image.open(io.BytesIO(encoded), formats=["WEBP"]) as image:
        image.load()  # a file that was cut off has a head like any other
        return webp_address(encoded), image.size


def picture_size(path: Path) -> tuple[int, int]:
    """(width, height) in pixels, so that the page keeps the place free while it loads."""
    from PIL import Image

    with Image.open(path) as image:
        return image.size


def _webp(picture: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="WEBP", method=6, **options)
    return buffer.getvalue()
