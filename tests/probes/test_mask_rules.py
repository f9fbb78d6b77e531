import numpy as np
import pytest
from scipy import ndimage

from crossdistill.core.errors import SettingError
from crossdistill.probes._mask_rules import areas, check_masks, components, largest_squares, usable

RULES = (0.05, 0.85, 3)


@pytest.fixture
def blobs():
    """Masks of many kinds: smooth noise cut at a level, from nothing to nearly everything."""
    generator = np.random.default_rng(3)
    smooth = ndimage.gaussian_filter(generator.normal(size=(60, 33, 47)), (0, 3, 3))
    cut = np.linspace(-0.25, 0.4, 60)[:, None, None]
    return np.clip((smooth - cut) * 4000 + 128, 0, 255).astype(np.uint8)


def square_mask(side, n=1, size=20):
    masks = np.zeros((n, size, size), np.uint8)
    masks[:, :side, :side] = 255
    return masks


def test_components_are_those_that_scipy_counts_image_by_image(blobs):
    expected = [ndimage.label(mask >= 128, np.ones((3, 3)))[1] for mask in blobs]
    assert components(blobs).tolist() == expected
    assert len(set(expected)) > 3
    assert components(blobs[:0]).tolist() == []


def test_pieces_of_neighbouring_images_are_not_joined():
    assert components(np.full((5, 4, 4), 255, np.uint8)).tolist() == [1] * 5


def test_areas_count_partly_covered_pixels_by_their_share():
    assert areas(np.full((1, 3, 5), 51, np.uint8)).tolist() == [0.2]


def test_usable_masks_are_neither_specks_nor_all_of_the_picture_nor_in_many_pieces():
    # 4, 5 and 18 of 20 pixels a side: 4 %, 6.25 % and 81 % of the area; 19: 90 %.
    masks = np.concatenate([square_mask(side) for side in (0, 4, 5, 18, 19, 20)])
    assert usable(masks, *RULES).tolist() == [False, False, True, True, False, False]
    four = np.zeros((1, 20, 20), np.uint8)
    four[0, ::5, :8] = 255
    assert usable(four, *RULES).tolist() == [False]
    assert usable(four, 0.05, 0.85, 4).tolist() == [True]


def test_an_empty_mask_is_never_usable():
    assert not usable(square_mask(0), 0.0, 1.0, 99).any()


def slow_square(mask, at_most):
    """Every square of every size, largest first: the first that fits, nearest to the centre of mass in half pixels."""
    inside = mask >= 230
    height, width = mask.shape
    centre = [2 * int(at.sum()) // max(1, inside.sum()) for at in np.nonzero(inside)]
    for side in range(at_most, 0, -1):
        fits = [
            ((2 * top + side - 1 - centre[0]) ** 2 + (2 * left + side - 1 - centre[1]) ** 2, top, left)
            for top in range(height - side + 1)
            for left in range(width - side + 1)
            if inside[top : top + side, left : left + side].all()
        ]
        if fits:
            _, top, left = min(fits)
            return top, left, side
    return None


@pytest.mark.parametrize("at_most", [5, 33])
def test_largest_squares_are_those_of_a_slow_search(blobs, at_most):
    top, left, side = largest_squares(blobs, at_most)
    for i in range(0, len(blobs), 3):
        expected = slow_square(blobs[i], at_most)
        assert (side[i] == 0) if expected is None else (top[i], left[i], side[i]) == expected
    assert side.max() == at_most or at_most == 33
    assert side.min() == 0


def test_squares_keep_off_pixels_that_are_partly_ground():
    mask = square_mask(10)
    mask[0, 9, :10] = 200
    assert [values.tolist() for values in largest_squares(mask, 20)] == [[0], [0], [9]]


@pytest.mark.parametrize("rules", [(0.5, 0.5, 3), (-0.1, 0.5, 3), (0.1, 1.5, 3)])
def test_areas_out_of_order_are_refused(rules):
    with pytest.raises(SettingError, match="smallest_area must be below largest_area, both 0 to 1, got"):
        usable(square_mask(5), *rules)


def test_less_than_one_piece_is_refused():
    with pytest.raises(SettingError, match="most_components must be at least 1, got 0"):
        usable(square_mask(5), 0.05, 0.85, 0)


def test_masks_of_another_size_or_kind_are_refused():
    images = np.zeros((2, 3, 8, 9), np.uint8)
    with pytest.raises(ValueError, match=r"masks must be uint8 \[2, 8, 9\], one for each image, got uint8 \[2, 9, 8\]"):
        check_masks(np.zeros((2, 9, 8), np.uint8), images)
    with pytest.raises(ValueError, match="got bool"):
        check_masks(np.zeros((2, 8, 9), bool), images)
