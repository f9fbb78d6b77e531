import numpy as np
import pytest

from crossdistill.core.errors import SettingError
from crossdistill.probes.pulled_tiles import pulled_tiles


def pulled(images, **level):
    return pulled_tiles(images, np.zeros(len(images), np.int64), **level).images


@pytest.mark.parametrize(("grid", "gap"), [(2, 1), (4, 1), (4, 3)])
def test_tiles_stand_in_their_places_with_gaps_between_them(make_images, grid, gap):
    images = make_images(3, 48, 64).images
    made = pulled(images, grid=grid, gap=gap)
    height, width = 48 // grid, 64 // grid
    assert made.shape == (3, 3, 48 + (grid - 1) * gap, 64 + (grid - 1) * gap)
    left_over = np.ones(made.shape[2:], bool)
    for row in range(grid):
        for column in range(grid):
            y, x = row * (height + gap), column * (width + gap)
            expected = images[:, :, row * height : (row + 1) * height, column * width : (column + 1) * width]
            assert np.array_equal(made[:, :, y : y + height, x : x + width], expected)
            left_over[y : y + height, x : x + width] = False
    mean = np.floor(images.astype(float).mean(axis=(2, 3)) + 0.5)
    assert (made[:, :, left_over] == mean[:, :, None]).all()


def test_a_plain_image_shows_no_gaps():
    plain = np.full((1, 3, 32, 32), 77, np.uint8)
    assert (pulled(plain, grid=8) == 77).all()


def test_where_the_grid_does_not_divide_the_centre_is_kept(make_images):
    assert pulled(make_images(1, 33, 47).images, grid=4).shape == (1, 3, 32 + 3, 44 + 3)


@pytest.mark.parametrize(
    ("level", "message"), [({"grid": 40}, "grid must be 1 to 32.*got 40"), ({"gap": 0}, "gap must be at least 1 pixel, got 0")]
)
def test_settings_out_of_range_are_refused(make_images, level, message):
    with pytest.raises(SettingError, match=message):
        pulled(make_images(1).images, **level)
