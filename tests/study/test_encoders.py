import numpy as np
import pytest
import torch

from crossdistill.core.errors import ImageError, UnknownNameError, WeightsError
from crossdistill.core.recipe import TrainingConfig
from crossdistill.core.types import ImageSet, Splits
from crossdistill.models._build import build_network, save_network
from crossdistill.study import encoders
from crossdistill.study.encoders import Encoder, encoder_supply, trained_encoder


@pytest.fixture
def splits():
    """Two classes that stripes tell apart: across or down."""
    rows = np.arange(16)
    striped = np.where(rows % 4 < 2, 200, 40)
    images = np.stack([np.broadcast_to(striped if i % 2 else striped[:, None], (16, 16)) for i in range(48)]).astype(np.uint8)
    whole = ImageSet(np.repeat(images[:, None], 3, axis=1) + np.arange(48, dtype=np.uint8)[:, None, None, None], np.arange(48) % 2,
                     np.arange(48).astype(str), ("down", "across"))  # fmt: skip
    parts = [whole.subset(rows) for rows in np.split(np.arange(48), [32, 40])]
    return Splits(*parts)


@pytest.fixture
def short_recipe(monkeypatch):
    monkeypatch.setattr(encoders, "RECIPE", TrainingConfig(epochs=2, batch_size=16, precision="fp32", threads=1))
    monkeypatch.setattr(encoders, "SETTINGS", {"width": 4})


@pytest.fixture
def saved(tmp_path):
    """A saved small VGG: its path by name and seed."""

    def save(name="vgg", seed=0, **heads):
        torch.manual_seed(seed)
        network = build_network("small/vgg", 2, (16, 16), settings={"width": 4})
        for parameter in network.reader.classifiers(network.model)["class"].parameters():
            parameter.data.add_(heads.get("head", 0.0))
        save_network(network, tmp_path / f"{name}.safetensors", class_names=("a", "b"))
        return tmp_path / f"{name}.safetensors"

    return save


def test_a_file_gives_four_maps_of_images_of_any_size_differentiable_in_them(saved, splits):
    encoder = encoder_supply(str(saved()), splits.test).of(splits.test)
    images = torch.rand(2, 3, 40, 24, requires_grad=True)
    maps = encoder(images)
    assert [tuple(values.shape) for values in maps] == [(2, 4, 40, 24), (2, 8, 20, 12), (2, 16, 10, 6), (2, 16, 5, 3)]
    (gradient,) = torch.autograd.grad(maps[-1].sum(), [images])
    assert gradient.abs().sum() > 0
    assert not any(parameter.requires_grad for parameter in encoder.network.parameters())


def test_maps_do_not_depend_on_the_batch_since_the_network_is_frozen(saved, splits):
    encoder = encoder_supply(str(saved()), splits.test).of(splits.test)
    images = torch.rand(4, 3, 16, 16)
    encoder.network.train()
    # Convolutions of other batch sizes may add in another order.
    torch.testing.assert_close(encoder(images)[-1][:1], encoder(images[:1])[-1], rtol=1e-4, atol=1e-5)


def test_its_identity_is_that_of_the_weights_below_the_head(saved, splits):
    identities = [encoder_supply(str(saved(*given, **head)), splits.test).identity for given, head in [
        (("one", 0), {}), (("two", 0), {}), (("three", 0), {"head": 1.0}), (("four", 1), {})]]  # fmt: skip
    assert identities[0] == identities[1] == identities[2] != identities[3]


def test_a_vgg_is_read_before_each_of_its_poolings(splits):
    network = build_network("timm/vgg11", 2, (32, 32), settings={"options": {"mlp_ratio": 0.02}})
    maps = Encoder(network)(torch.rand(1, 3, 32, 32))
    assert [tuple(values.shape[1:]) for values in maps] == [(64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4), (512, 2, 2)]
    assert all(values.min() == 0 for values in maps)  # after the activation


def test_a_vision_transformer_sees_images_at_its_own_size():
    network = build_network("small/vit", 2, (16, 16), settings={"width": 32, "depth": 4})
    maps = Encoder(network)(torch.rand(1, 3, 40, 40))
    assert {tuple(values.shape) for values in maps} == {(1, 32, 4, 4)}


def test_the_encoder_of_a_study_is_trained_once_and_found_again(splits, short_recipe, tmp_path):
    file = trained_encoder(splits, store=tmp_path)
    before = file.stat().st_mtime_ns
    assert trained_encoder(splits, store=tmp_path) == file
    assert file.stat().st_mtime_ns == before
    assert not (file.parent / "checkpoint").exists()
    assert len(encoder_supply(str(file), splits.test).about["maps"]) == 4


def test_a_training_that_was_stopped_goes_on_to_the_same_weights(splits, short_recipe, tmp_path, monkeypatch):
    whole = trained_encoder(splits, store=tmp_path / "whole").read_bytes()

    def stopped(self, *arguments, original=encoders.Training._finish_epoch):
        original(self, *arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(encoders.Training, "_finish_epoch", stopped)
        with pytest.raises(KeyboardInterrupt):
            trained_encoder(splits, store=tmp_path / "stopped")
    assert not list((tmp_path / "stopped").rglob("network.safetensors"))
    assert list((tmp_path / "stopped").rglob("tensors.safetensors"))
    assert trained_encoder(splits, store=tmp_path / "stopped").read_bytes() == whole


def test_other_images_or_another_recipe_make_another_encoder(splits, short_recipe, tmp_path, monkeypatch):
    file = trained_encoder(splits, store=tmp_path)
    fewer = Splits(splits.train.subset(np.arange(30)), splits.validation, splits.test)
    assert trained_encoder(fewer, store=tmp_path) != file
    monkeypatch.setattr(encoders, "RECIPE", encoders.RECIPE.model_copy(update={"epochs": 1}))
    assert trained_encoder(splits, store=tmp_path) != file


def test_only_labelled_images_teach_and_no_more_than_are_needed(splits, short_recipe, tmp_path, monkeypatch):
    shown = []

    class Watched(encoders.Training):
        def __init__(self, network, train, *rest, **named):
            shown.append(train)
            super().__init__(network, train, *rest, **named)

    monkeypatch.setattr(encoders, "Training", Watched)
    monkeypatch.setattr(encoders, "MOST_IMAGES", 20)
    labels = np.where(np.arange(32) < 4, -1, splits.train.labels)
    train = ImageSet(splits.train.images, labels, splits.train.ids, splits.train.class_names)
    trained_encoder(Splits(train, splits.validation, splits.test), store=tmp_path)
    assert len(shown[0]) == 20
    assert np.bincount(shown[0].labels).tolist() == [10, 10]


def test_images_of_a_single_class_cannot_teach_an_encoder(splits, tmp_path):
    single = Splits(splits.train.subset(np.arange(0, 32, 2)), splits.validation, splits.test)
    with pytest.raises(ImageError, match=r"labelled images of at least two classes, the training images have 1: give --encoder"):
        trained_encoder(single, store=tmp_path)


def test_what_is_no_encoder_is_refused(splits, tmp_path):
    with pytest.raises(WeightsError, match="there is no file"):
        encoder_supply(str(tmp_path / "absent.safetensors"), splits.test)
    with pytest.raises(UnknownNameError, match="torchvision has no classifier 'vgg20'"):
        encoder_supply("torchvision/vgg20", splits.test)
