import pytest
import torch
from torchvision.models import resnet18

from crossdistill.core.errors import SettingError, UnknownNameError, WeightsError
from crossdistill.models._build import build_network


@pytest.fixture
def published(hub, tmp_path):
    """Random weights where torch keeps those of resnet18 that it has downloaded."""
    torch.manual_seed(1)
    model = resnet18()
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(model.state_dict(), folder / "resnet18-f37072fd.pth")
    return model


def test_published_weights_are_loaded_and_another_head_is_said(published):
    network = build_network("torchvision/resnet18", 10, (64, 64), pretrained=True)
    loaded = network.model.state_dict()
    changed = [
        name for name, value in published.state_dict().items() if loaded[name].shape != value.shape or not torch.equal(loaded[name], value)
    ]
    assert changed == ["fc.weight", "fc.bias"]
    assert "1000 classes, these images have 10" in network.notes[0]
    assert network.input_size == (224, 224)


def test_the_head_is_kept_where_the_class_count_is_theirs(published):
    network = build_network("torchvision/resnet18.IMAGENET1K_V1", 1000, (64, 64), pretrained=True)
    assert torch.equal(network.model.fc.weight, published.fc.weight)
    assert network.notes == []


def test_an_unreachable_server_is_told_with_the_weights_and_the_cache(hub, tmp_path, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr("torch.hub.urlopen", refuse)
    with pytest.raises(WeightsError, match="torchvision/resnet18 are not in the cache .*no route to host") as caught:
        build_network("torchvision/resnet18", 10, (64, 64), pretrained=True)
    assert str(tmp_path / "torch" / "hub" / "checkpoints") in str(caught.value)


def test_a_vit_gets_the_image_size_it_is_asked_for():
    network = build_network("torchvision/vit_b_32", 10, (64, 64))
    assert network.shapes()["last"] == (768, 2, 2)


def test_sizes_that_a_vit_cannot_take_are_refused():
    with pytest.raises(SettingError, match="patches of 32 pixels, and a side of 40 .* Nearest that work: 32 and 64"):
        build_network("torchvision/vit_b_32", 10, (40, 40))
    with pytest.raises(SettingError, match="takes square images, got 32 x 64 pixels"):
        build_network("torchvision/vit_b_32", 10, (32, 64))


def test_unknown_names_are_refused_with_the_nearest():
    with pytest.raises(UnknownNameError, match="torchvision has no classifier 'resnet19'. Did you mean 'resnet1"):
        build_network("torchvision/resnet19", 10, (32, 32))
    with pytest.raises(UnknownNameError, match="'IMAGENET1K_V9'. Did you mean 'IMAGENET1K_V1'"):
        build_network("torchvision/resnet18.IMAGENET1K_V9", 10, (32, 32))
