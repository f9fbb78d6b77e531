"""FLOPs of a forward pass: by hand, whatever path torch would take, and unknown where nobody can count."""

from typing import cast

import pytest
import torch
from torch import Tensor, nn

from crossdistill.models._build import build_network
from crossdistill.ops.flops import forward_flops
from crossdistill.ops.network import Network


class Small(nn.Module):
    """A convolution of 3 channels to 4, 3 x 3 on 8 x 8 pixels, and a linear layer of 4 to 5."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Linear(4, 5)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.norm(self.conv(images)).mean(dim=(2, 3)))


@torch.library.custom_op("crossdistill_test::twice", mutates_args=())
def twice(values: Tensor) -> Tensor:
    return values * 2


class Foreign(Small):
    """The same, with an operator of another package."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(twice(images))


def test_products_and_convolutions_are_counted_by_hand() -> None:
    network = Network(Small(), 5, (8, 8)).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    # 8 * 8 places, 4 channels of 3 * 3 * 3 products each, and 4 * 5 products; each with its addition.
    assert forward_flops(network) == 2 * (8 * 8 * 4 * 27 + 4 * 5)
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


class Encoder(nn.Module):
    """Four patches of 16 channels, and an encoder's layer for which torch has a fused path that nobody can look into."""

    input_size = (8, 8)
    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(1))
        self.patches = nn.Conv2d(3, 16, 4, 4)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)

    def forward(self, images: Tensor) -> Tensor:
        return self.layer(self.patches(images).flatten(2).transpose(1, 2))


def test_attention_counts_whatever_path_torch_takes() -> None:
    patches, projections, products, mlp = 4 * 16 * 48, 4 * 4 * 16 * 16, 2 * 4 * 4 * 16, 2 * 4 * 16 * 32
    assert forward_flops(cast(Network, Encoder())) == 2 * (patches + projections + products + mlp)
    assert torch.backends.mha.get_fastpath_enabled()


def test_a_vits_patches_layers_and_attention_are_counted_by_hand() -> None:
    network = build_network("small/vit", 3, (16, 16), settings={"width": 32, "depth": 1, "heads": 1}).eval()
    n, d = 17, 32  # 16 patches of 4 pixels and the class token
    layers = n * (d * 3 * d + d * d + 2 * d * 4 * d) + 16 * 48 * d + 3 * d
    assert forward_flops(network) == 2 * (layers + 2 * n * n * d)


@pytest.mark.parametrize(("name", "settings"), [("small/resnet8", {}), ("small/vit", {"width": 16, "depth": 1, "heads": 2})])
def test_the_count_is_the_same_each_time_and_for_any_weights(name: str, settings: dict) -> None:
    found = {forward_flops(build_network(name, 4, (16, 16), settings=settings)) for _ in range(2)}
    assert len(found) == 1
    assert min(count or 0 for count in found) > 10_000


def test_what_another_packages_operator_costs_is_not_known() -> None:
    assert forward_flops(Network(Foreign(), 5, (8, 8))) is None
