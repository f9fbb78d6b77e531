import numpy as np
import pytest

from crossdistill.core.errors import SettingError
from crossdistill.functional import localized_noise, patch_drop, silhouette
from crossdistill.probes._checks import check_images
from crossdistill.probes.spread_noise import spread_noise

IMAGES, LABELS, INDEX = np.zeros((2, 3, 32, 32), np.uint8), np.zeros(2, np.int64), np.arange(2)


@pytest.mark.parametrize(
    ("images", "came"),
    [
        (np.zeros((2, 3, 8, 8), np.float32), r"float32 \[2, 3, 8, 8\]"),
        (np.zeros((2, 8, 8, 3), np.uint8), r"uint8 \[2, 8, 8, 3\]"),
        (np.zeros((3, 8, 8), np.uint8), r"uint8 \[3, 8, 8\]"),
    ],
)
def test_other_images_are_refused_with_what_came(images, came):
    with pytest.raises(ValueError, match=rf"images must be uint8 \[images, 3, height, width\], got {came}"):
        check_images(images)


@pytest.mark.parametrize("noise", [localized_noise, spread_noise])
def test_another_position_is_refused(noise):
    with pytest.raises(SettingError, match="position must be 'random' or 'centre', got 'center'"):
        noise(IMAGES, LABELS, INDEX, 0, position="center")


def test_another_fill_is_refused():
    with pytest.raises(SettingError, match="fill must be 'black' or 'mean', got 'white'"):
        patch_drop(IMAGES, LABELS, INDEX, 0, fill="white")


def test_another_polarity_is_refused():
    with pytest.raises(SettingError, match="polarity must be 'dark' or 'light' or 'grey', got 'black'"):
        silhouette(IMAGES, LABELS, IMAGES[:, 0], polarity="black")
