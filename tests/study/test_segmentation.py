import json
from types import SimpleNamespace
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torch import nn
from torchvision import models

from crossdistill.core.errors import SettingError, UnknownNameError, WeightsError
from crossdistill.study.segmentation import network_masks, segmenter, weights_sha256

CPU = torch.device("cpu")
NAMES = ("__background__", "cat", "dog")


class Reddish(nn.Module):
    """Scores each pixel by its colour: red is class 1, blue class 2, anything dark the background."""

    def __init__(self):
        super().__init__()
        self.colours = nn.Conv2d(3, 3, 1)
        with torch.no_grad():
            self.colours.weight[:, :, 0, 0] = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 0, 1]])
            self.colours.bias[:] = torch.tensor([0.5, 0.0, 0.0])

    def forward(self, images):
        return {"out": self.colours(images)[:, :, ::2, ::2]}


def tiny(network=None, categories=NAMES):
    network = network or Reddish()
    return segmenter(network, lambda images: network(images)["out"], "tiny", categories=categories, mean=(0,) * 3, std=(1,) * 3, device=CPU)


def pictures():
    """A red square, a blue one, and nothing, on black."""
    images = np.zeros((3, 3, 32, 48), np.uint8)
    images[0, 0, 8:24, 12:36] = images[1, 2, 8:24, 12:36] = 255
    return images


def test_the_object_is_everything_that_is_not_background():
    masks = tiny().of(pictures())
    assert masks.shape == (3, 32, 48)
    assert (masks[:2, 10:22, 14:34] == 255).all()
    outside = masks.copy()
    outside[:2, 6:26, 10:38] = 0
    assert not outside.any()


def test_edges_are_anti_aliased_since_small_images_are_magnified_for_the_network():
    assert len(np.unique(tiny().of(pictures())[0])) > 3


def test_batches_do_not_matter_beyond_a_grey_level():
    images = np.random.default_rng(0).integers(0, 256, (11, 3, 40, 40), np.uint8)
    together, alone = tiny().of(images), np.concatenate([tiny().of(images[i : i + 1]) for i in range(11)])
    # One convolution in another order of summation: a pixel may change sides where two classes are equal to 1e-7.
    assert (np.abs(together.astype(int) - alone) > 1).mean() < 1e-3
    assert tiny().of(images[:0]).shape == (0, 40, 40)


def test_the_identity_changes_with_the_weights():
    other = Reddish()
    with torch.no_grad():
        other.colours.bias += 0.1
    assert tiny().identity == tiny().identity != tiny(other).identity
    assert weights_sha256(other.state_dict()) in str(tiny(other).identity)


def test_a_network_without_a_background_is_refused():
    with pytest.raises(SettingError, match=r"tiny has no class for the background \(wall, sky, tree, ...\)"):
        tiny(categories=("wall", "sky", "tree"))


@pytest.fixture
def published(monkeypatch):
    """torchvision's lraspp network as if its weights were on disk: a state of our own, for two classes."""
    network = models.get_model("lraspp_mobilenet_v3_large", weights=None, weights_backbone=None, num_classes=2)
    normalised = SimpleNamespace(mean=(0.5,) * 3, std=(0.5,) * 3)
    weights = SimpleNamespace(
        meta={"categories": ["__background__", "thing"]},
        transforms=lambda: normalised,
        get_state_dict=lambda **_: network.state_dict(),
    )
    monkeypatch.setattr(models, "get_model_weights", lambda name: SimpleNamespace(DEFAULT=weights))
    return weights


def test_a_torchvision_network_is_built_with_its_weights(published):
    maker = network_masks("torchvision/lraspp_mobilenet_v3_large", CPU)
    masks = maker.of(np.random.default_rng(0).integers(0, 256, (1, 3, 32, 32), np.uint8))
    assert masks.shape == (1, 32, 32)
    assert maker.about["name"] == "torchvision/lraspp_mobilenet_v3_large"


def test_weights_that_cannot_be_had_are_the_usual_sentence(published):
    def offline(**_):
        raise URLError("no route")

    published.get_state_dict = offline
    with pytest.raises(WeightsError, match="the pretrained weights of torchvision/lraspp_mobilenet_v3_large are not in the cache"):
        network_masks("torchvision/lraspp_mobilenet_v3_large", CPU)


def test_a_network_of_hugging_face_is_read_with_its_normalisation_and_class_names(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.SegformerConfig(
        num_encoder_blocks=1, depths=[1], sr_ratios=[1], hidden_sizes=[8], patch_sizes=[7], strides=[4], num_attention_heads=[1],
        mlp_ratios=[2], decoder_hidden_size=8, id2label={0: "thing", 1: "Background"}, label2id={"thing": 0, "Background": 1},
    )  # fmt: skip
    network = transformers.SegformerForSemanticSegmentation(config)
    with torch.no_grad():
        network.decode_head.classifier.weight.zero_()
        network.decode_head.classifier.bias[:] = torch.tensor([1.0, 0.0])  # everything is a thing
    network.save_pretrained(tmp_path)
    settings = {"image_processor_type": "SegformerImageProcessor", "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    assert (network_masks(f"huggingface/{tmp_path}", CPU).of(pictures()) == 255).all()


def test_unknown_names_are_refused():
    with pytest.raises(UnknownNameError, match=r"no segmentation network 'fcn_resnet11'. Did you mean 'fcn_resnet101'\?"):
        network_masks("torchvision/fcn_resnet11", CPU)
    with pytest.raises(SettingError, match="a segmentation network is named torchvision/NAME or huggingface/OWNER/NAME, got 'sam'"):
        network_masks("sam", CPU)
