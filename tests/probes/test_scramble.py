import math

import numpy as np
import pytest
import torch

from crossdistill.core.errors import SettingError
from crossdistill.models._build import build_network
from crossdistill.probes._tiles import centre_crop, permutations, permuted_tiles
from crossdistill.probes.scramble import scramble


def scrambled(images, seed=1, **level):
    return scramble(images, np.zeros(len(images), np.int64), np.arange(len(images)), seed, **level)


def test_all_orders_but_the_identity_are_equally_likely():
    n = 23_000
    drawn = permutations(np.arange(n), 4, 2)
    orders, counts = np.unique(drawn, axis=0, return_counts=True)
    assert len(orders) == math.factorial(4) - 1
    assert [0, 1, 2, 3] not in orders.tolist()
    # Each count is binomial around 1,000 with sd 31; six of these are left by chance once in 10**8.
    assert np.abs(counts - n / 23).max() < 186


@pytest.mark.parametrize("grid", [2, 3, 8, 28])
def test_each_order_holds_every_tile_once(grid):
    drawn = permutations(np.arange(20), 4, grid)
    assert np.array_equal(np.sort(drawn, axis=1), np.tile(np.arange(grid * grid), (20, 1)))


def test_a_redrawn_identity_does_not_hang_on_the_other_images():
    alone = [permutations(np.array([i]), 4, 2)[0] for i in range(200)]  # some 8 of them draw the identity first
    assert np.array_equal(np.array(alone), permutations(np.arange(200), 4, 2))


def test_tiles_go_where_the_permutation_says(make_images):
    images = make_images(5, 48, 64).images
    made = scrambled(images, grid=4)
    for image, result, order in zip(images, made.images, made.factors["permutation"], strict=True):
        for place, tile in enumerate(order):
            row, column = divmod(place, 4)
            from_row, from_column = divmod(int(tile), 4)
            expected = image[:, from_row * 12 : from_row * 12 + 12, from_column * 16 : from_column * 16 + 16]
            assert np.array_equal(result[:, row * 12 : row * 12 + 12, column * 16 : column * 16 + 16], expected)


def test_the_stored_order_undoes_the_scramble(make_images):
    images = make_images(6).images
    made = scrambled(images, grid=8)
    back = np.argsort(made.factors["permutation"], axis=1)
    assert np.array_equal(permuted_tiles(made.images, back, 8), images)


def test_where_the_grid_does_not_divide_the_centre_is_kept(make_images):
    images = make_images(2, 33, 47).images
    assert np.array_equal(centre_crop(images, 4), images[:, :, 0:32, 1:45])  # 33 = 32 + 1, 47 = 44 + 3
    made = scrambled(images, grid=4)
    assert made.images.shape == (2, 3, 32, 44)
    back = np.argsort(made.factors["permutation"], axis=1)
    assert np.array_equal(permuted_tiles(made.images, back, 4), images[:, :, 0:32, 1:45])


def test_no_pixel_is_lost_or_made(make_images):
    images = make_images(4).images
    made = scrambled(images, grid=8).images
    assert np.array_equal(np.sort(made.reshape(4, 3, -1)), np.sort(images.reshape(4, 3, -1)))


@pytest.mark.parametrize("grid", [0, 33])
def test_a_grid_without_pixels_is_refused(make_images, grid):
    with pytest.raises(SettingError, match=f"grid must be 1 to 32.*got {grid}"):
        scrambled(make_images(1).images, grid=grid)


@pytest.fixture
def vit():
    """A ViT of 4-pixel patches whose random weights are large enough for its answers to differ from image to image."""
    torch.manual_seed(0)
    network = build_network("small/vit", 5, (32, 32), settings={"width": 32, "depth": 3, "heads": 2}).eval()
    with torch.no_grad():
        for module in network.model.modules():
            if isinstance(module, torch.nn.Linear):
                torch.nn.init.normal_(module.weight, std=32**-0.5)
        torch.nn.init.normal_(network.model.pos_embed)
    return network


@torch.no_grad()
def largest_change(network, images, grid):
    """Of the logits, which are about 1 in size, between clean and scrambled images."""
    clean, shown = (torch.from_numpy(shown) for shown in (images, scrambled(images, grid=grid).images))
    return float((network(shown).logits - network(clean).logits).abs().max())


@pytest.mark.parametrize("grid", [2, 4, 8])  # tiles of 16, 8 and 4 pixels: whole patches
def test_a_vit_without_positions_does_not_see_a_token_aligned_scramble(vit, make_images, grid):
    images = make_images(6).images
    assert largest_change(vit, images, grid) > 1e-2, "with positions the order of the patches is seen"
    torch.nn.init.zeros_(vit.model.pos_embed)
    # float32, whose sums over tokens come in another order.
    assert largest_change(vit, images, grid) < 1e-5


def test_a_vit_without_positions_sees_a_scramble_of_parts_of_its_patches(vit, make_images):
    torch.nn.init.zeros_(vit.model.pos_embed)
    assert largest_change(vit, make_images(6).images, 16) > 1e-2
