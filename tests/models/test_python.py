import sys

import pytest
import torch

from crossdistill.core.errors import SettingError, UnknownNameError
from crossdistill.models._build import build_network, load_network, save_network

SOURCE = """
import torch
from torch import nn
from crossdistill.ops.network import Network

def small_net(n_classes, size, *, width=4):
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, n_classes))

def whole_network(n_classes, size):
    return Network(small_net(n_classes, size), n_classes, (16, 16), mean=(0, 0, 0), std=(1, 1, 1))

def stubborn(n_classes, size):
    return small_net(3, size)

def no_module(n_classes, size):
    return "resnet"
"""


@pytest.fixture(autouse=True)
def own_models(tmp_path, monkeypatch):
    """A module `own_models` in the current folder, which Python does not search by itself here."""
    (tmp_path / "own_models.py").write_text(SOURCE)
    (tmp_path / "needs_more.py").write_text("import nowhere_to_be_found")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in ("own_models", "needs_more"):
        sys.modules.pop(name, None)


def test_a_function_in_the_current_folder_builds_the_network():
    network = build_network("python:own_models:small_net", 5, (8, 8), settings=dict(options=dict(width=6), mean=(0.1, 0.1, 0.1)))
    assert network.shapes()["pooled"] == (6,)
    assert network.input_size == (8, 8)
    assert network.mean.flatten().tolist() == pytest.approx([0.1] * 3)


def test_a_network_that_the_function_wrapped_itself_is_taken_as_it_is():
    network = build_network("python:own_models:whole_network", 5, (8, 8))
    assert network.input_size == (16, 16)
    assert network.std.flatten().tolist() == [1, 1, 1]


def test_it_can_be_saved_and_loaded(tmp_path):
    network = build_network("python:own_models:small_net", 5, (8, 8), settings=dict(options=dict(width=6))).eval()
    save_network(network, tmp_path / "own.safetensors", class_names="abcde")
    images = torch.rand(2, 3, 8, 8)
    assert torch.equal(load_network(tmp_path / "own.safetensors").eval()(images).logits, network(images).logits)


@pytest.mark.parametrize(
    ("model", "kind", "text"),
    [
        ("python:own_models", SettingError, "is called python:MODULE:FUNCTION"),
        ("python:own_model:small_net", UnknownNameError, "no Python module is called 'own_model'"),
        ("python:own_models:smal_net", UnknownNameError, "Did you mean 'small_net'"),
        ("python:own_models:stubborn", SettingError, "was asked for 5 classes and gives 3 logits"),
        ("python:own_models:no_module", SettingError, "gives an nn.Module or a Network, got str"),
    ],
)
def test_what_does_not_fit_is_refused(model, kind, text):
    with pytest.raises(kind, match=text):
        build_network(model, 5, (8, 8))


def test_a_missing_import_of_the_users_module_is_not_hidden():
    with pytest.raises(ModuleNotFoundError, match="nowhere_to_be_found"):
        build_network("python:needs_more:net", 5, (8, 8))


def test_pretrained_is_refused_with_the_ways_that_exist():
    with pytest.raises(SettingError, match="knows nothing of published weights"):
        build_network("python:own_models:small_net", 5, (8, 8), pretrained=True)
