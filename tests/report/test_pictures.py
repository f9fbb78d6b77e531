"""Previews inside the page."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from crossdistill.report.pictures import WIDEST, data_uri, picture_address, picture_size


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


def test_a_picture_that_was_cut_off_is_refused(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "whole.webp", format="WEBP")
    address, size = picture_address(tmp_path / "whole.webp")
    assert (decoded(address).size, size) == ((64, 64), (64, 64))
    whole = (tmp_path / "whole.webp").read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"no picture"):
        (tmp_path / "cut.webp").write_bytes(damaged)
        with pytest.raises(OSError, match=r"cannot identify|truncated|could not create decoder|failed"):
            picture_address(tmp_path / "cut.webp")
    Image.fromarray(noise).save(tmp_path / "other.webp", format="PNG")
    with pytest.raises(OSError, match=r"cannot identify|truncated|could not create decoder|failed"):
        picture_address(tmp_path / "other.webp")
