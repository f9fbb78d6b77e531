import pytest
import torch
from torch import nn

from crossdistill.ops.modes import evaluating, frozen


def _network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout())


def test_evaluating_restores_each_submodules_own_mode():
    network = _network()
    network[1].eval()
    with evaluating(network):
        assert not any(module.training for module in network.modules())
    assert [module.training for module in network] == [True, False, True]


def test_evaluating_restores_the_mode_after_an_error_too():
    network = _network()
    with pytest.raises(RuntimeError, match="stop"), evaluating(network):
        raise RuntimeError("stop")
    assert network.training


def test_a_frozen_network_stays_in_eval_mode_inside_a_parent_that_trains():
    parent = nn.ModuleDict({"teacher": frozen(_network()), "student": _network()})
    parent.train()
    assert not any(module.training for module in parent["teacher"].modules())
    assert parent["student"].training


def test_a_frozen_networks_batch_statistics_do_not_move():
    network = frozen(_network())
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.train()
    network(torch.rand(4, 3, 2, 2))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(parameter.requires_grad for parameter in network.parameters())
