"""Networks as a notebook has them, as entries of a study: the same for the same network, and never the caller's own module."""

import pytest
import torch
from torch import nn

from crossdistill.core.errors import SettingError
from crossdistill.core.types import ImageSet
from crossdistill.models._build import build_network
from crossdistill.notebook.evaluating import _named
from crossdistill.notebook.networks import finished_entry, label_of, student_entry


@pytest.fixture
def images(pair) -> ImageSet:
    return ImageSet(pair[0][:4], pair[1][:4], pair[1][:4].astype(str), ("0", "1"))


def test_a_module_that_draws_numbers_in_train_mode_has_one_name(images, conv_net, tmp_path):
    torch.manual_seed(0)
    dropping = nn.Sequential(conv_net(4), nn.Dropout(0.5))
    first = finished_entry(dropping, images, tmp_path), student_entry(dropping, images)
    torch.manual_seed(1)
    assert (finished_entry(dropping, images, tmp_path), student_entry(dropping, images)) == first


def test_a_function_that_gives_one_module_again_leaves_it_as_it_is(images, conv_net, bits):
    shared = conv_net(4)
    before = bits(shared)
    name = student_entry(lambda: shared, images)["model"]
    first, second = (build_network(name, 2, (16, 16)).model for _ in range(2))
    with torch.no_grad():
        first.head.weight.add_(1)
    assert bits(shared) == before == bits(second)


def test_what_torch_puts_around_a_module_is_taken_off(images, conv_net):
    torch.manual_seed(0)
    module = conv_net(4)
    compiled = nn.Module()  # stands for torch.compile's, which takes seconds to import
    compiled._orig_mod = module
    wrapped = nn.DataParallel(compiled)
    assert label_of(wrapped) == "ConvNet"
    assert student_entry(wrapped, images) == student_entry(module, images)


def test_a_student_that_is_frozen_is_refused_and_asked_as_it_is(images, conv_net, tmp_path):
    frozen = conv_net(4).requires_grad_(False)
    with pytest.raises(SettingError, match="no weight of ConvNet is to be trained: set requires_grad"):
        student_entry(frozen, images)
    assert "checkpoint" in finished_entry(frozen, images, tmp_path)


def test_a_network_may_be_called_model(conv_net):
    module = conv_net(4)
    assert _named({"model": module}) == {"model": module}
    assert list(_named({"model": "small/vit", "patch": 8})) == ["vit"]
