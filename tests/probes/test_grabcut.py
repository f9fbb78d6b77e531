import importlib.util

import numpy as np
import pytest

from crossdistill.probes._grabcut import SPECK, _without_specks, grabcut, grabcut_masks

needs_opencv = pytest.mark.skipif(not importlib.util.find_spec("cv2"), reason="OpenCV is not installed")


def scenes(n=6, height=32, width=32):
    """A reddish ellipse on a bluish ground, both with noise; and where the ellipse is."""
    rows, columns = np.arange(height)[:, None], np.arange(width)
    generator = np.random.default_rng(0)
    inside = np.stack(
        [
            ((rows - height / 2) / (height * (0.22 + 0.02 * i))) ** 2 + ((columns - width / 2) / (width * (0.36 - 0.02 * i))) ** 2 < 1
            for i in range(n)
        ]
    )
    paint = np.where(inside[:, None], np.array([190, 70, 60])[:, None, None], np.array([60, 80, 170])[:, None, None])
    return np.clip(paint + generator.normal(0, 12, paint.shape), 0, 255).astype(np.uint8), inside


@needs_opencv
@pytest.mark.parametrize(("height", "width"), [(32, 32), (48, 64), (33, 47), (160, 160)])
def test_an_object_on_another_ground_is_found(height, width):
    images, inside = scenes(3, height, width)
    found = grabcut_masks(images) >= 128
    overlap = (found & inside).sum(axis=(1, 2)) / (found | inside).sum(axis=(1, 2))
    # A band of half a pixel along an edge of 60 pixels around some 300 is a tenth; GrabCut smooths a little more.
    assert overlap.min() > 0.8


@needs_opencv
def test_small_masks_are_anti_aliased():
    assert len(np.unique(grabcut_masks(scenes(2)[0]))) > 8


@needs_opencv
def test_masks_do_not_depend_on_company_order_or_thread():
    images, _ = scenes(6)
    whole = grabcut_masks(images)
    assert np.array_equal(grabcut_masks(images[::-1]), whole[::-1])
    assert np.array_equal(np.concatenate([grabcut_masks(images[i : i + 1]) for i in range(6)]), whole)


@needs_opencv
def test_a_picture_in_which_nothing_stands_out_has_no_object():
    assert not grabcut_masks(np.full((1, 3, 32, 32), 90, np.uint8)).any()
    assert grabcut_masks(np.zeros((0, 3, 32, 32), np.uint8)).shape == (0, 32, 32)


@needs_opencv
def test_the_identity_names_the_version_that_cut():
    assert grabcut().identity["opencv"] != "unknown"


def test_specks_and_pinholes_are_removed_and_the_rest_stays():
    inside = np.zeros((50, 50), bool)
    inside[10:40, 10:40] = True
    clean = inside.copy()
    inside[20:22, 20:22] = False
    inside[2:5, 2:5] = True
    assert SPECK * inside.size == 25  # pixels: larger than the hole of 4 and the piece of 9
    assert np.array_equal(_without_specks(inside), clean * np.uint8(255))
