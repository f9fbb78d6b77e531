import json
import sys

import pytest
import torch

from crossdistill.core.errors import CrossdistillError, SettingError, WeightsError
from crossdistill.models._build import build_network, load_network, save_network

transformers = pytest.importorskip("transformers", reason="the extra `hf` is not installed")

TINY = dict(hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=32, image_size=32, patch_size=8)


@pytest.fixture
def published(tmp_path):
    """A tiny ViT for 3 classes, saved as transformers saves it."""
    torch.manual_seed(1)
    model = transformers.ViTForImageClassification(transformers.ViTConfig(**TINY, num_labels=3))
    model.save_pretrained(tmp_path / "tiny-vit")
    processor = dict(do_normalize=True, image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6], image_processor_type="ViTImageProcessor")
    (tmp_path / "tiny-vit" / "preprocessor_config.json").write_text(json.dumps(processor))
    return tmp_path / "tiny-vit", model.eval()


def test_published_weights_come_with_their_size_normalisation_and_head(published):
    folder, model = published
    network = build_network(f"huggingface/{folder}", 3, (64, 64), pretrained=True).eval()
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(network(images).logits, model(network.normalised(images)).logits, rtol=0, atol=1e-6)
    assert network.input_size == (32, 32)
    assert network.mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert network.notes == []


def test_another_class_count_re_initialises_the_head_alone_and_says_so(published):
    folder, model = published
    network = build_network(f"huggingface/{folder}", 5, (32, 32), pretrained=True)
    loaded = network.model.state_dict()
    changed = [
        name for name, value in model.state_dict().items() if loaded[name].shape != value.shape or not torch.equal(loaded[name], value)
    ]
    assert changed == ["classifier.weight", "classifier.bias"]
    assert "3 classes, these images have 5" in network.notes[0]


def test_a_saved_network_is_built_again_without_the_hub(published, tmp_path):
    folder, _ = published
    network = build_network(f"huggingface/{folder}", 5, (32, 32), pretrained=True).eval()
    save_network(network, tmp_path / "network.safetensors", class_names="abcde")
    for file in folder.iterdir():
        file.unlink()
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(load_network(tmp_path / "network.safetensors").eval()(images).logits, network(images).logits)


def test_a_configuration_alone_needs_no_hub_and_takes_the_image_size(hub):
    network = build_network("huggingface/any/label", 5, (64, 64), settings=dict(config=dict(model_type="vit", **TINY)))
    assert network.shapes()["last"] == (16, 8, 8)


def test_an_unreachable_hub_is_told_with_the_name_and_the_cache(hub):
    with pytest.raises(WeightsError, match="huggingface/nobody/nothing are not in the cache") as caught:
        build_network("huggingface/nobody/nothing", 5, (32, 32), pretrained=True)
    assert str(hub) in str(caught.value)


def test_settings_that_exclude_each_other_are_refused(published):
    folder, _ = published
    with pytest.raises(SettingError, match="weights for 32 x 32 pixels, got input_size 64 x 64"):
        build_network(f"huggingface/{folder}", 3, (32, 32), pretrained=True, settings=dict(input_size=64))
    with pytest.raises(SettingError, match="`config` describes a network without weights"):
        build_network("huggingface/a/b", 3, (32, 32), pretrained=True, settings=dict(config=dict(model_type="vit")))
    with pytest.raises(SettingError, match="patches of 8 pixels, and a side of 36"):
        build_network("huggingface/a/b", 3, (36, 36), settings=dict(config=dict(model_type="vit", **TINY)))


def test_a_missing_library_is_told_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(CrossdistillError, match=r"pip install 'crossdistill\[hf\]'"):
        build_network("huggingface/a/b", 3, (32, 32))
