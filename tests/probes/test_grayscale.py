import numpy as np
import pytest
from PIL import Image

from crossdistill.core.errors import SettingError
from crossdistill.probes.grayscale import grayscale


def faded(images, **level):
    return grayscale(images, np.zeros(len(images), np.int64), **level).images


def random_colours():
    raw = np.random.Philox(key=8).random_raw(4 * 3 * 64 * 64) >> np.uint64(56)
    return raw.astype(np.uint8).reshape(4, 3, 64, 64)


def test_all_grey_is_pillows_greyscale():
    images = random_colours()
    for image, result in zip(images, faded(images), strict=True):
        expected = np.asarray(Image.fromarray(image.transpose(1, 2, 0)).convert("L"))
        assert all(np.array_equal(channel, expected) for channel in result)


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_in_between_colours_are_mixed_with_their_luma_and_rounded_once(share):
    images = random_colours()
    luma = np.tensordot(images.astype(float), [0.299, 0.587, 0.114], axes=(1, 0))[:, None]
    exact = (1 - share) * images + share * luma
    # Weights are rounded to 2**-16: 255 times three half steps is 0.006 grey levels.
    assert np.abs(faded(images, share=share) - exact).max() <= 0.5 + 0.006


def test_greys_stay_as_they_are_and_white_does_not_wrap():
    greys = np.broadcast_to(np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16), (1, 3, 16, 16))
    for share in (0.0, 0.3, 1.0):
        assert np.array_equal(faded(greys, share=share), greys)


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_shares_out_of_range_are_refused(share):
    with pytest.raises(SettingError, match=f"share must be 0 to 1, got {share}"):
        faded(np.zeros((1, 3, 2, 2), np.uint8), share=share)
