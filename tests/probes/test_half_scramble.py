import numpy as np
import pytest

from crossdistill.core.errors import SettingError
from crossdistill.probes._build import build_probe_set, probe_recipe
from crossdistill.probes._tiles import permuted_tiles
from crossdistill.probes.half_scramble import half_scramble


def scrambled(images, **level):
    return half_scramble(images, np.zeros(len(images), np.int64), np.arange(len(images)), 1, **level)


@pytest.mark.parametrize("grid", [2, 4, 5, 8])
def test_what_stood_above_stays_above(make_images, grid):
    images = make_images(6, 40, 40).images
    made = scrambled(images, grid=grid).images
    border = grid // 2 * (40 // grid)
    for part in (slice(0, border), slice(border, None)):
        before, after = images[:, :, part].reshape(6, 3, -1), made[:, :, part].reshape(6, 3, -1)
        assert np.array_equal(np.sort(after), np.sort(before))
    assert (made != images).any(axis=(1, 2, 3)).all()


def test_the_stored_order_undoes_it(make_images):
    images = make_images(6).images
    made = scrambled(images, grid=8)
    assert np.array_equal(permuted_tiles(made.images, np.argsort(made.factors["permutation"], axis=1), 8), images)


def test_the_two_sets_sort_tiles_by_the_same_draws(make_images, tmp_path):
    whole, halves = (
        build_probe_set(name, make_images(20), levels=[{"grid": 4}], folder=tmp_path) for name in ("scramble", "half_scramble")
    )
    order = whole.factor("permutation", 0, 0).astype(int)
    upper = np.argsort(order >= 8, axis=1, kind="stable")  # tiles of the upper half first, else in the order of scramble
    expected = np.take_along_axis(order, upper, axis=1)
    assert np.array_equal(expected, halves.factor("permutation", 0, 0))


@pytest.mark.parametrize("size", [(32, 32), (64, 64), (224, 224), (48, 64), (33, 47), (14, 14), (8, 8)])
def test_no_preset_has_a_grid_of_two(size):
    grids = [level["grid"] for preset in ("quick", "full") for level in probe_recipe("half_scramble", size, preset=preset).levels]
    assert min(grids) > 2


def test_a_grid_without_pixels_is_refused(make_images):
    with pytest.raises(SettingError, match="grid must be 1 to 32.*got 0"):
        scrambled(make_images(1).images, grid=0)
