import numpy as np
import pytest

from crossdistill.core.errors import SettingError
from crossdistill.probes.low_pass import full_levels, low_pass


def passed(images, **level):
    return low_pass(images, np.zeros(len(images), np.int64), **level).images


def grating(height, width, *, down=0.0, right=0.0):
    """A sine of 40 grey levels around 128; `down` and `right` in cycles per pixel."""
    waves = np.arange(height)[:, None] * down + np.arange(width) * right
    return np.rint(128 + 40 * np.sin(2 * np.pi * waves + 0.3)).astype(np.uint8)


def as_images(*planes):
    return np.stack([np.broadcast_to(plane, (3, *plane.shape)) for plane in planes])


def slow_low_pass(image, radius):
    """The same filter through the full complex transform, its frequencies counted one by one."""
    height, width = image.shape[1:]
    side, found = min(height, width), np.fft.fft2(image.astype(float))
    for row in range(height):
        for column in range(width):
            down, right = min(row, height - row) / height, min(column, width - column) / width
            if (down**2 + right**2) * side**2 > radius**2 + 1e-9:
                found[:, row, column] = 0
    return np.fft.ifft2(found).real


@pytest.mark.parametrize(("height", "width"), [(32, 32), (24, 36), (21, 15)])
@pytest.mark.parametrize("radius", [0, 2, 4.5, 5])
def test_equals_a_slow_filter_of_the_full_spectrum(make_images, height, width, radius):
    images = make_images(2, height, width).images
    for image, found in zip(images, passed(images, radius=radius), strict=True):
        expected = np.clip(slow_low_pass(image, radius), 0, 255)
        assert abs(found - expected).max() <= 0.5 + 1e-5  # one rounding, to multiples of 2**-20 before


def test_slow_gratings_stay_and_fast_ones_go():
    images = as_images(grating(32, 32, right=6 / 32), grating(32, 32, right=7 / 32), grating(32, 32, down=5 / 32, right=5 / 32))
    found = passed(images, radius=6)
    assert np.array_equal(found[0], images[0]) or abs(found[0].astype(int) - images[0]).max() <= 1  # harmonics of its rounding go
    assert np.ptp(found[1]) <= 1
    assert np.ptp(found[2]) <= 1  # sqrt(50) cycles


def test_a_cycle_is_as_long_along_both_sides_of_an_image_that_is_not_square():
    tall = as_images(grating(64, 32, down=1 / 8), grating(64, 32, right=1 / 8))
    assert (np.ptp(passed(tall, radius=4), axis=(1, 2, 3)) > 70).all()  # 32 / 8 = 4 cycles per smaller side
    assert (np.ptp(passed(tall, radius=3.9), axis=(1, 2, 3)) <= 1).all()


def test_radius_0_leaves_the_mean_colour_rounded_half_up():
    images = np.zeros((1, 3, 32, 32), np.uint8)
    images[0, 0, ::2] = 1  # mean 1/2
    images[0, 1, :8] = 255  # mean 63.75
    found = passed(images, radius=0)
    assert [np.unique(channel).tolist() for channel in found[0]] == [[1], [64], [0]]


def test_levels_go_from_mild_to_hard_and_grow_with_the_image():
    assert [level["radius"] for level in full_levels((32, 32))] == [12, 8, 6, 4, 2]
    assert [level["radius"] for level in full_levels((224, 224))] == [48, 24, 12, 8, 6, 4, 2]


def test_a_negative_radius_is_refused():
    with pytest.raises(SettingError, match=r"radius must not be negative, got -1"):
        passed(np.zeros((1, 3, 32, 32), np.uint8), radius=-1)
