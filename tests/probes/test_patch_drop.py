import numpy as np
import pytest

from crossdistill.core.errors import SettingError
from crossdistill.probes.patch_drop import cell_of, patch_drop, tile


def dropped(images, seed=1, **level):
    return patch_drop(images, np.zeros(len(images), np.int64), np.arange(len(images)), seed, **level)


@pytest.mark.parametrize(("aligned", "offset"), [(True, 0), (False, 2)])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_cells_that_are_told_are_black_and_nothing_else_changed(make_images, share, aligned, offset):
    images = np.maximum(make_images(6).images, 1)  # so that black is what was painted
    made = dropped(images, share=share, aligned=aligned)
    for image, result, cells in zip(images, made.images, made.factors["dropped"], strict=True):
        gone = np.kron(cells.reshape(8, 8), np.ones((4, 4), np.int64)).astype(bool)
        gone = np.roll(gone, (offset, offset), axis=(0, 1))
        assert (result[:, gone] == 0).all()
        assert np.array_equal(result[:, ~gone], image[:, ~gone])


@pytest.mark.parametrize(("share", "count"), [(0.0, 0), (0.1, 6), (0.5, 32), (1.0, 64)])
def test_the_share_of_the_cells_is_the_one_asked_for(make_images, share, count):
    made = dropped(make_images(30).images, share=share)
    assert made.factors["dropped"].sum(axis=1).tolist() == [count] * 30


def test_cells_are_equally_likely_to_go():
    n = 4000
    counts = dropped(np.zeros((n, 3, 8, 8), np.uint8), share=0.25, grid=4).factors["dropped"].sum(axis=0)
    # Binomial around 1,000 with sd 27; six of these are left by chance once in 10**8.
    assert np.abs(counts - n / 4).max() < 164


def test_conditions_share_their_cells_and_levels_do_not(make_images):
    images = make_images(20).images
    off, on, mean = (dropped(images, **level).factors["dropped"] for level in ({}, {"aligned": True}, {"fill": "mean"}))
    assert np.array_equal(off, on)
    assert np.array_equal(off, mean)
    fewer = dropped(images, share=0.3).factors["dropped"]
    assert (fewer.astype(bool) & ~off.astype(bool)).any(axis=1).all(), "a milder level is not a part of a harder one"


def test_both_grids_drop_the_same_area_also_where_the_cells_divide_the_image(make_images):
    images = np.maximum(make_images(20, 48, 64).images, 1)
    areas = [(dropped(images, share=0.3, aligned=aligned).images == 0).sum() for aligned in (True, False)]
    assert areas == [20 * 3 * 19 * 6 * 8] * 2  # round(0.3 * 64) = 19 cells of 6 x 8


def test_the_mean_colour_can_be_painted_instead(make_images):
    images = make_images(3, 33, 47).images
    made = dropped(images, fill="mean", share=1.0).images
    expected = np.floor(images.astype(float).mean(axis=(2, 3)) + 0.5)
    assert (made == expected[:, :, None, None]).all()


@pytest.mark.parametrize(("side", "grid"), [(32, 8), (33, 8), (47, 10), (224, 14)])
def test_off_the_grid_no_cell_begins_where_an_aligned_one_does(side, grid):
    borders = {aligned: set(np.flatnonzero(np.diff(cell_of(side, grid, aligned)))) for aligned in (True, False)}
    assert not borders[True] & borders[False]


def test_the_tile_is_the_grid_on_which_all_borders_lie():
    assert tile((32, 48), {"aligned": True}) == (4, 6)
    assert tile((32, 48), {}) == (2, 3)  # borders at 2, 6, 10 ... and at 3, 9, 15 ...
    assert tile((40, 40), {}) == (1, 1)  # cells of 5 pixels, 2 pixels off
    assert tile((33, 47), {"aligned": True}) == (1, 1)


@pytest.mark.parametrize(
    ("level", "message"),
    [
        ({"share": 1.1}, "share must be 0 to 1, got 1.1"),
        ({"share": -0.1}, "share must be 0 to 1"),
        ({"grid": 0}, "grid must be 1 to 32"),
        ({"grid": 33}, "grid must be 1 to 32"),
    ],
)
def test_settings_out_of_range_are_refused(make_images, level, message):
    with pytest.raises(SettingError, match=message):
        dropped(make_images(1).images, **level)
