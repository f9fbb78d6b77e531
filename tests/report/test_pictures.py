"""Previews inside the page."""

import base64
import io

import numpy as np
from PIL import Image

from crossdistill.report.pictures import WIDEST, data_uri, picture_size


def decoded(address: str) -> Image.Image:
    kind, _, data = address.partition(",")
    assert kind == "data:image/webp;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_flat_pictures_come_back_pixel_for_pixel(tmp_path):
    pixels = np.kron(np.arange(64, dtype=np.uint8).reshape(8, 8), np.ones((12, 12), dtype=np.uint8))
    Image.fromarray(pixels).save(tmp_path / "preview.png")
    assert np.array_equal(np.asarray(decoded(data_uri(tmp_path / "preview.png")).convert("L")), pixels)
    assert picture_size(tmp_path / "preview.png") == (96, 96)


def test_large_photographs_are_made_small(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (600, 2000, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "preview.png")
    address = data_uri(tmp_path / "preview.png")
    assert decoded(address).size == (WIDEST, 360)
    assert len(address) < (tmp_path / "preview.png").stat().st_size / 2
