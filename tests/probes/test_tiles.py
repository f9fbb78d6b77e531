import numpy as np
import pytest

from crossdistill.core import registry
from crossdistill.probes._tiles import cell_edges, full_levels, mean_colour, permutations, tile_size, token_aligned


@pytest.mark.parametrize(
    ("size", "grids"),
    [
        ((28, 28), [2, 4, 7]),
        ((64, 64), [2, 4, 5, 8, 16]),
        ((48, 64), [2, 4, 5, 8]),
        ((33, 33), [2, 4, 5, 8]),
        ((224, 224), [2, 4, 7, 8, 14, 16, 28]),
    ],
)
def test_full_levels_have_a_grid_that_no_halving_of_the_image_has(size, grids):
    assert [level["grid"] for level in full_levels(size)] == grids


@pytest.mark.parametrize(("size", "patch_grid"), [((32, 32), (8, 8)), ((32, 32), (14, 14)), ((224, 224), (14, 14)), ((224, 224), (7, 7))])
def test_each_patch_grid_has_a_level_that_is_aligned_and_one_that_is_not(size, patch_grid):
    aligned = {token_aligned(tile_size(size, level), size, patch_grid) for level in full_levels(size)}
    assert aligned == {True, False}


def test_alignment_asks_for_whole_patches_in_both_directions():
    assert token_aligned((8, 16), (32, 64), (8, 8))
    assert not token_aligned((8, 12), (32, 64), (8, 8))  # 12 pixels across are one and a half patches
    assert not token_aligned((10, 16), (32, 64), (8, 8))


def test_alignment_does_not_hang_on_the_size_to_which_a_network_resizes():
    # A 14 x 14 grid over 32 pixels: patches of 16 / 7 pixels, seven of them in 16.
    assert token_aligned((16, 16), (32, 32), (14, 14))
    assert token_aligned((112, 112), (224, 224), (14, 14))


@pytest.mark.parametrize("name", ["scramble", "half_scramble", "patch_drop"])
def test_probes_on_a_grid_tell_the_size_of_its_cells(name):
    tile = registry.get("probe", name).facts["tile"]
    for level in [{}, {"grid": 8}, registry.get("probe", name).facts["null"]]:
        height, width = tile((48, 64), level)
        assert 48 % height == 0
        assert 64 % width == 0


def test_tiles_stay_in_their_part():
    drawn = permutations(np.arange(200), 4, 4, parts=(8, 8))
    assert np.array_equal(np.sort(drawn[:, :8], axis=1), np.tile(np.arange(8), (200, 1)))
    assert np.array_equal(np.sort(drawn[:, 8:], axis=1), np.tile(np.arange(8, 16), (200, 1)))


def test_orders_within_parts_are_equally_likely():
    n = 3000
    orders, counts = np.unique(permutations(np.arange(n), 4, 2, parts=(2, 2)), axis=0, return_counts=True)
    assert sorted(map(tuple, orders.tolist())) == [(0, 1, 3, 2), (1, 0, 2, 3), (1, 0, 3, 2)]
    # Each count is binomial around 1,000 with sd 26; six of these are left by chance once in 10**8.
    assert np.abs(counts - n / 3).max() < 156


def test_one_part_is_the_whole_grid():
    assert np.array_equal(permutations(np.arange(9), 4, 3), permutations(np.arange(9), 4, 3, parts=(9,)))


@pytest.mark.parametrize(("side", "cells"), [(32, 8), (33, 8), (224, 14), (47, 6), (5, 5), (7, 1)])
def test_cells_cover_a_side_and_differ_by_one_pixel_at_most(side, cells):
    edges = cell_edges(side, cells)
    sizes = np.diff(edges)
    assert (edges[0], edges[-1], len(sizes)) == (0, side, cells)
    assert sizes.max() - sizes.min() <= 1


def test_mean_colours_are_those_of_the_pixels_rounded_half_up(make_images):
    images = make_images(5, 33, 47).images
    expected = np.floor(images.astype(float).mean(axis=(2, 3)) + 0.5)  # 1551 pixels: a mean is never exactly a half
    assert np.array_equal(mean_colour(images)[:, :, 0, 0], expected)
