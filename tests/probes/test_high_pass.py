import numpy as np
import pytest

from crossdistill.core.errors import SettingError
from crossdistill.probes.high_pass import full_levels, high_pass
from crossdistill.probes.low_pass import low_pass


def passed(images, probe=high_pass, **level):
    return probe(images, np.zeros(len(images), np.int64), **level).images


@pytest.mark.parametrize(("height", "width"), [(32, 32), (48, 64), (33, 47)])
def test_with_the_low_frequencies_it_adds_up_to_the_image(make_images, height, width):
    images = 96 + make_images(4, height, width).images // 4  # so little contrast that nothing is clipped
    low, high = passed(images, low_pass, radius=5).astype(int), passed(images, radius=5).astype(int)
    mean = images.mean(axis=(2, 3), keepdims=True)
    assert abs(low + high - mean - images).max() <= 1  # two roundings of a half each


def test_the_mean_colour_stays(make_images):
    images = 96 + make_images(4).images // 4
    found = passed(images, radius=8)
    # Rounding errors of up to a half, as good as independent, average out over 1,024 pixels.
    assert abs(found.mean(axis=(2, 3)) - images.mean(axis=(2, 3))).max() < 0.1


def test_shading_goes_and_texture_stays():
    rows, columns = np.indices((32, 32))
    shading = np.rint(40 * np.sin(2 * np.pi * 2 * rows / 32))
    stripes = np.where(columns % 4 < 2, 20, -20)  # 8 cycles
    images = np.broadcast_to(128 + shading + stripes, (1, 3, 32, 32)).astype(np.uint8)
    found = passed(images, radius=4)[0].astype(int)
    assert abs(found - (128 + stripes)).max() <= 1


def test_what_leaves_the_range_is_clipped_and_does_not_wrap():
    rows = np.indices((32, 32))[0]
    images = np.broadcast_to(np.where(rows < 16, 0, 255), (1, 3, 32, 32)).astype(np.uint8)
    narrow = images.copy()
    narrow[..., 1] = 255 - narrow[..., 1]
    found = passed(narrow, radius=1)
    assert found[0, 0, 2:14, 1].min() > 200, "a white line on black stays light"
    assert found[0, 0, 18:30, 1].max() < 56, "a black line on white stays dark"


def test_levels_go_from_mild_to_hard_and_grow_with_the_image():
    assert [level["radius"] for level in full_levels((32, 32))] == [2, 4, 6, 8, 12]
    assert [level["radius"] for level in full_levels((224, 224))] == [2, 4, 6, 8, 12, 24, 48]


def test_a_negative_radius_is_refused():
    with pytest.raises(SettingError, match=r"radius must not be negative, got -0.5"):
        passed(np.zeros((1, 3, 32, 32), np.uint8), radius=-0.5)
