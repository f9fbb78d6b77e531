"""The effective receptive field of networks whose theoretical one is known, and the squares that hold it."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from crossdistill.instruments.receptive_field import centre_gradient, mass_within, receptive_field
from crossdistill.metrics.effective_receptive_field import effective_receptive_field
from crossdistill.models._build import build_network
from crossdistill.ops.network import Network


class GlobalAverage(nn.Module):
    """Every position of its map is the mean of the image."""

    def forward(self, x):
        return x.mean(dim=(2, 3), keepdim=True).expand_as(x).contiguous()


def _network(side: int, *layers: nn.Module, n_channels: int = 4) -> Network:
    torch.manual_seed(0)
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(n_channels, 3))
    return Network(model, 3, (side, side))


def _convolutions(side: int, n: int, stride: int = 1) -> Network:
    channels = [3] + [4] * n
    return _network(side, *(nn.Conv2d(a, b, 3, padding=1, stride=stride) for a, b in pairwise(channels)))


def _images(side: int, n: int = 4) -> torch.Tensor:
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(0))


def _sides(network: Network, images: torch.Tensor) -> tuple[float, float]:
    found = effective_receptive_field(receptive_field(network, images))
    return found["side_50"].value, found["side_99"].value


@pytest.mark.parametrize("n", [1, 3, 5])
@pytest.mark.parametrize("side", [31, 32])
def test_three_by_three_convolutions_see_no_further_than_their_theoretical_field(n, side):
    network, images = _convolutions(side, n), _images(side)
    field = 2 * n + 1 + (side % 2 == 0)  # four middle units see one pixel more
    gradient = centre_gradient(network, images)
    edge = (side - field) // 2
    inside = gradient[:, edge : edge + field, edge : edge + field]
    assert (inside > 0).all()
    assert gradient.count_nonzero() == inside.numel()
    half, nearly_all = _sides(network, images)
    assert 0 < half < nearly_all <= field / side + 1 / 256


def test_stride_widens_it():
    assert _sides(_convolutions(32, 3, stride=2), _images(32)) > _sides(_convolutions(32, 3), _images(32))
    assert _sides(_convolutions(32, 3, stride=2), _images(32))[1] <= 31 / 32  # 1 + 2 + 4 + 8 each way, and 16 between the middle four


def test_a_global_average_is_flat():
    network = _network(32, nn.Conv2d(3, 4, 1), GlobalAverage(), nn.Conv2d(4, 4, 1))
    assert _sides(network, _images(32)) == pytest.approx((math.sqrt(0.5), math.sqrt(0.99)), abs=1e-3)


def test_it_is_the_gradient_of_the_centre_unit_by_differences():
    """A linear network: the gradient is what the sum of the centre's channels gains from one pixel."""
    network = _convolutions(9, 2).double()
    images = _images(9, 1).double()

    @torch.no_grad()
    def centre(pixels: torch.Tensor) -> float:
        return float(network(pixels, ["stage4"]).stages["stage4"].grid[0, :, 4, 4].sum())

    expected = np.zeros((9, 9))
    for row in range(9):
        for column in range(9):
            for colour in range(3):
                moved = images.clone()
                moved[0, colour, row, column] += 0.25
                expected[row, column] += abs(centre(moved) - centre(images)) / 0.25
    np.testing.assert_allclose(centre_gradient(network, images)[0].numpy(), expected, rtol=1e-4, atol=1e-6)


def test_a_vision_transformer_before_training_sees_more_than_a_small_cnn_and_is_not_silent():
    """The channels of a LayerNorm's output add up to nothing, so a gradient taken after it would be rounding."""
    torch.manual_seed(0)
    vit = build_network("small/vit", 5, (32, 32), settings=dict(width=32, depth=4))
    gradient = centre_gradient(vit, _images(32))
    assert gradient.mean() > 1e-3
    assert (gradient > 0).all()
    cnn = build_network("small/resnet8", 5, (32, 32))
    assert _sides(vit, _images(32))[1] > _sides(cnn, _images(32))[1]


def test_it_is_read_at_the_images_own_size():
    network = _convolutions(32, 1)
    assert centre_gradient(network, _images(64)).shape == (4, 64, 64)
    assert _sides(network, _images(64))[1] == pytest.approx(_sides(network, _images(32))[1], abs=0.05)


def test_batchnorm_is_in_eval_mode_so_images_do_not_depend_on_their_company():
    network = build_network("small/resnet8", 5, (32, 32)).train()
    images = _images(32)
    np.testing.assert_allclose(receptive_field(network, images)[:1], receptive_field(network, images[:1]), rtol=1e-4)


@pytest.mark.parametrize("side", [7, 8])
def test_squares_hold_the_pixels_that_lie_in_them(side):
    values = np.random.default_rng(0).random((3, side, side))
    found = mass_within(values)
    assert found.shape == (3, 257)
    assert (np.diff(found) >= 0).all()
    assert found[:, 0].tolist() == [0, 0, 0]
    np.testing.assert_allclose(found[:, -1], values.sum(axis=(1, 2)))
    if side == 8:  # squares of 2, 4 and 6 pixels fall on the grid of sides
        for pixels in (2, 4, 6):
            edge = (8 - pixels) // 2
            np.testing.assert_allclose(found[:, 256 * pixels // 8], values[:, edge : 8 - edge, edge : 8 - edge].sum(axis=(1, 2)))


def test_an_even_map_fills_squares_by_their_area():
    np.testing.assert_allclose(mass_within(np.ones((1, 32, 32)))[0], 1024 * np.linspace(0, 1, 257) ** 2, atol=1e-9)


def test_oblong_images_are_measured_in_shares_of_both_sides():
    values = np.zeros((1, 8, 16))
    values[0, 2:6, 4:12] = 1
    assert mass_within(values)[0, 128] == 32
    assert mass_within(values)[0, 127] < 32
