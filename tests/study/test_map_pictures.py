"""Strips of tiles: where each image stands, what a map adds to it, and that the files are small and the same each time."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crossdistill.study.map_pictures import GAP, SHEET_GAP, VIRIDIS, coloured, overlaid, write_sheet, write_strip


def opened(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "WEBP"
        return np.asarray(image.convert("RGB")).astype(int)


def flat(*colours: tuple[int, int, int], size: tuple[int, int]) -> np.ndarray:
    return np.array(colours, np.uint8)[:, :, None, None] * np.ones(size, np.uint8)


def test_a_map_is_mixed_with_the_grey_picture() -> None:
    image = flat((100, 50, 200), (100, 50, 200), size=(1, 1))
    found = overlaid(image, np.array([[[0.0]], [[1.0]]]))
    grey = 0.299 * 100 + 0.587 * 50 + 0.114 * 200
    for tile, colour in zip(found, [(68, 1, 84), (253, 231, 37)], strict=True):
        np.testing.assert_allclose(tile[:, 0, 0], [0.6 * c + 0.4 * grey for c in colour], atol=0.5)


def test_more_is_lighter_also_between_the_colours_and_without_colour() -> None:
    colours = coloured(np.linspace(0, 1, 500))
    luma = colours @ [0.299, 0.587, 0.114]
    assert (np.diff(luma) > 0).all()
    assert np.rint(coloured(np.array([3 / 9])))[0].tolist() == list(bytes.fromhex(VIRIDIS[3]))


@pytest.mark.parametrize(("size", "tile"), [((16, 16), (64, 64)), ((28, 28), (84, 84)), ((64, 32), (64, 32)), ((224, 224), (96, 96))])
def test_small_images_are_enlarged_and_large_ones_reduced(tmp_path: Path, size: tuple[int, int], tile: tuple[int, int]) -> None:
    write_strip(tmp_path / "strip.webp", flat((250, 0, 0), (0, 0, 250), size=size))
    found = opened(tmp_path / "strip.webp")
    assert found.shape == (tile[0], 2 * tile[1] + GAP, 3)
    np.testing.assert_allclose(found[tile[0] // 2, tile[1] // 2], (250, 0, 0), atol=8)  # compressed
    np.testing.assert_allclose(found[tile[0] // 2, -tile[1] // 2], (0, 0, 250), atol=8)


def test_each_pixel_of_a_small_image_becomes_a_square(tmp_path: Path) -> None:
    image = np.zeros((1, 3, 16, 16), np.uint8)
    image[:, :, 5, 9] = 255
    write_strip(tmp_path / "strip.webp", image)
    found = opened(tmp_path / "strip.webp").mean(axis=2)
    assert found[20:24, 36:40].mean() > 200
    assert np.delete(found, range(16, 28), axis=0).max() < 60


def test_files_of_noise_stay_small_and_equal_images_give_equal_bytes(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (12, 3, 96, 96), dtype=np.uint8)
    for name in ("a.webp", "b.webp"):
        write_strip(tmp_path / name, images)
    first = (tmp_path / "a.webp").read_bytes()
    assert len(first) < 100_000
    assert first == (tmp_path / "b.webp").read_bytes()
    write_strip(tmp_path / "a.webp", images[::-1])
    assert (tmp_path / "a.webp").read_bytes() != first


def test_a_sheet_sets_rows_one_below_the_other_and_names_the_size_of_a_tile(tmp_path: Path) -> None:
    rows = [flat((250, 0, 0), (0, 0, 250), size=(16, 32)), flat((0, 250, 0), (0, 0, 0), size=(16, 32))]
    assert write_sheet(tmp_path / "sheet.webp", rows) == (32, 16)
    found = opened(tmp_path / "sheet.webp")
    assert found.shape == (2 * 16 + SHEET_GAP, 2 * 32 + SHEET_GAP, 3)
    np.testing.assert_allclose(found[8, 16], (250, 0, 0), atol=8)
    np.testing.assert_allclose(found[8, -16], (0, 0, 250), atol=8)
    np.testing.assert_allclose(found[-8, 16], (0, 250, 0), atol=8)


def test_large_images_of_a_sheet_are_made_small_and_sheets_of_other_sizes_fit(tmp_path: Path) -> None:
    rows = [flat((250, 0, 0), size=(224, 112)), flat((0, 250, 0), size=(112, 56))]  # a probe may change the size
    assert write_sheet(tmp_path / "sheet.webp", rows) == (32, 64)
    assert opened(tmp_path / "sheet.webp").shape == (2 * 64 + SHEET_GAP, 32, 3)
