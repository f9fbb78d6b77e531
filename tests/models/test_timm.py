import pytest
import timm
import torch
from safetensors.torch import save

from crossdistill.core.errors import SettingError, UnknownNameError, WeightsError
from crossdistill.models._build import build_network

NAME = "resnet10t.c3_in1k"


@pytest.fixture
def published(publish):
    """A network with random weights, published as timm's resnet10t with its 1000 classes."""
    torch.manual_seed(1)
    model = timm.create_model("resnet10t", pretrained=False)
    publish(f"timm/{NAME}", {"model.safetensors": save(model.state_dict())})
    return model.eval()


def test_published_weights_are_loaded_whole_where_the_class_count_is_theirs(published):
    network = build_network(f"timm/{NAME}", 1000, (64, 64), pretrained=True, settings=dict(input_size=64)).eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(network(images).logits, published(network.normalised(images)))
    assert network.notes == []


def test_another_class_count_re_initialises_the_head_alone_and_says_so(published):
    network = build_network(f"timm/{NAME}", 10, (64, 64), pretrained=True)
    loaded = network.model.state_dict()
    changed = [
        name for name, value in published.state_dict().items() if loaded[name].shape != value.shape or not torch.equal(loaded[name], value)
    ]
    assert changed == ["fc.weight", "fc.bias"]
    assert len(network.notes) == 1
    assert "the head of timm/resnet10t.c3_in1k was re-initialised: its weights were made for 1000 classes, these images have 10" in (
        network.notes[0][0].lower() + network.notes[0][1:]
    )


def test_with_published_weights_the_input_size_is_theirs_unless_told_otherwise(published):
    assert build_network(f"timm/{NAME}", 10, (32, 32), pretrained=True).input_size == (176, 176)
    assert build_network(f"timm/{NAME}", 10, (32, 32), pretrained=True, settings=dict(input_size=64)).input_size == (64, 64)


def test_without_published_weights_the_input_size_is_the_image_size():
    assert build_network("timm/resnet10t", 10, (40, 48)).input_size == (40, 48)


def test_an_unreachable_hub_is_told_with_the_weights_the_cache_and_the_remedies(hub):
    with pytest.raises(WeightsError) as caught:
        build_network(f"timm/{NAME}", 10, (64, 64), pretrained=True)
    text = str(caught.value)
    for part in (f"timm/{NAME}", str(hub), "copy those folders", "`checkpoint: FILE.safetensors`", "`pretrained: false`"):
        assert part in text


def test_a_positional_embedding_is_resampled_to_the_input_size(publish):
    torch.manual_seed(1)
    model = timm.create_model("test_vit.r160_in1k", pretrained=False)
    publish("timm/test_vit.r160_in1k", {"model.safetensors": save(model.state_dict())})
    network = build_network("timm/test_vit.r160_in1k", 10, (64, 64), pretrained=True, settings=dict(input_size=64))
    assert network.shapes()["last"][1:] == (4, 4)
    loaded = dict(network.model.named_parameters())
    assert torch.equal(loaded["cls_token"], model.cls_token)
    assert torch.equal(loaded["blocks.0.attn.qkv.weight"], model.blocks[0].attn.qkv.weight)


def test_weights_that_nobody_published_are_refused():
    with pytest.raises(WeightsError, match="publishes no weights for 'vit_base_patch32_plus_256'"):
        build_network("timm/vit_base_patch32_plus_256", 10, (64, 64), pretrained=True)


def test_an_unknown_model_is_refused_with_the_nearest_name():
    with pytest.raises(UnknownNameError, match="timm has no model 'resnet17'. Did you mean 'resnet1"):
        build_network("timm/resnet17", 10, (32, 32))


def test_an_unknown_tag_is_refused_with_those_that_exist():
    with pytest.raises(
        UnknownNameError, match=r"no weights 'resnet10t.c4_in1k'. Did you mean 'resnet10t.c3_in1k'\? There are: resnet10t.c3_in1k"
    ):
        build_network("timm/resnet10t.c4_in1k", 10, (32, 32))


def test_a_side_that_the_patches_do_not_divide_is_refused_with_the_nearest_that_work():
    with pytest.raises(SettingError, match=r"patches of 16 pixels, and a side of 40 .* Nearest that work: 32 and 48"):
        build_network("timm/vit_tiny_patch16_224", 10, (40, 40))


def test_a_size_that_the_model_cannot_take_is_refused_with_the_way_out():
    with pytest.raises(SettingError, match="cannot take images of 40 x 40 pixels .* `input_size`"):
        build_network("timm/maxvit_rmlp_pico_rw_256", 10, (40, 40))


def test_a_setting_that_the_model_does_not_take_is_refused():
    with pytest.raises(SettingError, match="timm/resnet10t does not take one of its settings: .*'windows'"):
        build_network("timm/resnet10t", 10, (32, 32), settings=dict(options=dict(windows=7)))


def test_stochastic_depth_reaches_the_model():
    network = build_network("timm/test_vit", 10, (32, 32), settings=dict(drop_path=0.25))
    rates = [module.drop_prob for module in network.modules() if type(module).__name__ == "DropPath"]
    assert max(rates) == pytest.approx(0.25)
