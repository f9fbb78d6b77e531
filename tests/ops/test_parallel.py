"""The seam for many devices where there is one process; two of them are in tests/test_devices.py."""

from typing import Any

import pytest
import torch
from timm.layers.norm_act import BatchNormAct2d, SyncBatchNormAct
from torch import nn

from crossdistill.core.errors import SettingError
from crossdistill.ops import parallel
from crossdistill.ops.losses import counted, cross_entropy


@pytest.fixture
def first_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "_here", parallel.World(0, 2))


def test_one_process_sends_nothing_and_copies_nothing() -> None:
    rows = torch.arange(3.0, requires_grad=True)
    assert parallel.gathered(rows) is rows
    assert parallel.own_rows(rows) is rows
    assert parallel.averaged(rows) is rows
    assert parallel.drawn_rows(lambda n: torch.full((n,), n), 5).tolist() == [5] * 5
    assert (parallel.agreed(True), parallel.agreed(False), parallel.from_first(0.5), parallel.told("this")) == (True, False, 0.5, "this")
    with parallel.first_ahead(), parallel.alone():
        assert parallel.world() == parallel.World(0, 1)


@pytest.mark.parametrize(("batch_size", "accumulate", "devices"), [(6, 1, 4), (12, 4, 2), (14, 4, 4), (2, 4, 2)])
def test_a_batch_that_leaves_a_rank_with_fewer_images_is_refused(batch_size: int, accumulate: int, devices: int) -> None:
    assert any(len(part) % devices for part in torch.arange(batch_size).chunk(accumulate)), "as the loop cuts it"
    with pytest.raises(SettingError, match=f"cannot be shared evenly by {devices} devices: set `batch_size` to a multiple of"):
        parallel.refuse_uneven(batch_size, accumulate, devices)


@pytest.mark.parametrize(("batch_size", "accumulate", "devices"), [(7, 3, 1), (12, 3, 2), (10, 3, 2), (128, 1, 8)])  # 10 in 3: 4, 4 and 2
def test_a_batch_that_every_rank_has_its_share_of_is_taken(batch_size: int, accumulate: int, devices: int) -> None:
    parallel.refuse_uneven(batch_size, accumulate, devices)


def test_the_mean_over_labelled_images_divides_by_their_number() -> None:
    assert counted(torch.tensor([True, False, True])).item() == 2
    assert counted(torch.tensor([False])).item() == 1
    targets = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    assert cross_entropy(torch.zeros(3, 2), targets).item() == pytest.approx(0.6931, abs=1e-4)  # log 2 of the one that is labelled


def test_batch_norm_is_synchronised_on_gpus_alone_and_keeps_its_parameters(first_of_two: None) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), BatchNormAct2d(4))
    before: dict[str, Any] = dict(network.named_parameters())
    parallel.synchronise_batch_norm(network, torch.device("cpu"))
    assert type(network[1]) is nn.BatchNorm2d
    parallel.synchronise_batch_norm(network, torch.device("cuda"))
    assert [type(layer) for layer in network[1:]] == [nn.SyncBatchNorm, SyncBatchNormAct]
    assert isinstance(network[2].act, nn.ReLU), "the activation that timm's layer holds"
    assert all(before[name] is value for name, value in network.named_parameters())
    assert network.eval()(torch.zeros(1, 3, 2, 2)).shape == (1, 4, 2, 2)  # evaluation needs neither the others nor a GPU


def test_a_frozen_batch_norm_takes_no_statistics() -> None:
    layer = nn.BatchNorm2d(2)
    assert parallel.has_batch_norm(None, nn.Sequential(layer))
    assert not parallel.has_batch_norm(nn.LayerNorm(2), layer.requires_grad_(False))
