import numpy as np
import pytest
from scipy import ndimage

from crossdistill.core.errors import SettingError
from crossdistill.probes.shift import offsets, shift


def shifted(images, seed=1, **level):
    return shift(images, np.zeros(len(images), np.int64), np.arange(len(images)), seed, **level)


@pytest.mark.parametrize(("height", "width", "pixels"), [(32, 32, 1), (33, 47, 4), (8, 12, 7)])
def test_is_scipys_shift_with_a_mirrored_border(make_images, height, width, pixels):
    images = make_images(10, height, width).images
    made = shifted(images, pixels=pixels)
    for image, result, down, right in zip(images, made.images, made.factors["down"], made.factors["right"], strict=True):
        # SciPy calls mirror what leaves the outermost pixel single.
        assert np.array_equal(result, ndimage.shift(image, (0, down, right), order=0, mode="mirror"))


@pytest.mark.parametrize("pixels", [1, 2, 3, 8, 28])
def test_shifts_have_the_length_asked_for_to_half_a_pixel(pixels):
    lengths = np.hypot(*offsets(pixels).T)
    assert np.abs(lengths - pixels).max() <= 0.5
    down, right = np.mgrid[-2 * pixels : 2 * pixels + 1, -2 * pixels : 2 * pixels + 1]
    assert len(lengths) == (np.abs(np.hypot(down, right) - pixels) < 0.5).sum(), "no such shift is left out"


def test_all_directions_are_equally_likely():
    n = 8000
    made = shifted(np.zeros((n, 3, 4, 4), np.uint8), pixels=1)
    pairs, counts = np.unique(np.stack([made.factors["down"], made.factors["right"]]), axis=1, return_counts=True)
    assert sorted(map(tuple, pairs.T.tolist())) == sorted(map(tuple, offsets(1).tolist()))
    # Binomial around 1,000 with sd 30; six of these are left by chance once in 10**8.
    assert np.abs(counts - n / 8).max() < 178


@pytest.mark.parametrize("pixels", [-1, 32])
def test_shifts_out_of_range_are_refused(make_images, pixels):
    with pytest.raises(SettingError, match=f"pixels must be 0 to 31.*got {pixels}"):
        shifted(make_images(1).images, pixels=pixels)
