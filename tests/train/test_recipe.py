"""What of a network is trained, and which of its weights are kept: freezing, early stopping, averages."""

import signal
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from crossdistill.core.errors import SettingError
from crossdistill.core.recipe import TrainingConfig
from crossdistill.core.records import EpochRow
from crossdistill.core.types import Activations, Batch, ImageSet, Needs
from crossdistill.models._build import build_network
from crossdistill.ops.losses import cross_entropy
from crossdistill.train.early_stopping import BestWeights
from crossdistill.train.freezing import frozen_names, frozen_refusal
from crossdistill.train.objective import Objective

CLASSIFIER = ("model.head.fc.weight", "model.head.fc.bias")


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize("ema", [None, 0.5])
def test_a_frozen_backbone_keeps_every_byte_and_only_the_head_learns(bench: Any, copied_weights: Any, ema: float | None) -> None:
    training = bench.training(freeze="backbone", ema=ema)
    before = copied_weights(training.network)
    training.run()
    assert changed(before, copied_weights(training.network)) == set(CLASSIFIER)  # BatchNorm's statistics are among the others
    gradients = {name for name, parameter in training.network.named_parameters() if parameter.requires_grad}
    assert gradients == set(CLASSIFIER)
    assert len(training.main) == 2


def test_the_first_layers_are_frozen_by_name_and_the_others_learn(bench: Any, copied_weights: Any) -> None:
    training = bench.training(freeze=("conv1", "bn1", "layer1"), epochs=1)
    before = copied_weights(training.network)
    training.step(torch.arange(8), 0)
    frozen = ("model.conv1.", "model.bn1.", "model.layer1.")
    learnt = changed(before, copied_weights(training.network))
    assert not any(name.startswith(frozen) for name in learnt)
    assert {"model.layer2.0.conv1.weight", "model.layer2.0.bn1.running_mean", "model.head.fc.weight"} <= learnt
    assert all(p.grad is None for name, p in training.network.named_parameters() if name.startswith(frozen))
    model = training.network.model
    assert not any(module.training for part in (model.conv1, model.bn1, model.layer1) for module in part.modules())
    assert model.layer2.training


def vit() -> Any:
    return build_network("small/vit", 3, (16, 16), settings={"width": 16, "depth": 2, "heads": 2, "drop_path": 0.5})


def test_a_name_stands_for_all_under_it_and_not_for_longer_names() -> None:
    names = frozen_names(vit(), TrainingConfig(freeze=("blocks.1.attn", "patch_embed", "pos_embed")))
    assert {name.split(".qkv")[0].split(".proj")[0] for name in names} == {"blocks.1.attn", "patch_embed", "pos_embed"}
    with pytest.raises(SettingError, match=r"no parameters under 'block'. Did you mean 'blocks.. Its parts: cls_token, pos_embed"):
        frozen_names(vit(), TrainingConfig(freeze=("block",)))


def test_freezing_everything_is_refused() -> None:
    with pytest.raises(SettingError, match="is all of small/resnet8, and nothing would be left to train"):
        frozen_names(
            build_network("small/resnet8", 3, (16, 16)), TrainingConfig(freeze=("conv1", "bn1", "layer1", "layer2", "layer3", "head"))
        )


@pytest.mark.parametrize("wrong", ["conv1", [], True])
def test_freeze_is_the_backbone_or_a_list_of_names(wrong: Any) -> None:
    with pytest.raises(ValueError, match="`backbone` stands here, or a list of names"):
        TrainingConfig(freeze=wrong)


def test_a_token_that_a_method_adds_learns_in_a_frozen_backbone(bench: Any, copied_weights: Any) -> None:
    network = vit()
    network.add_token_head("distillation")
    network.readout = "mean_heads"
    training = bench.training(network=network, freeze="backbone", epochs=1)
    before = copied_weights(network)
    training.run()
    heads = {f"{head}.{kind}" for head in ("model.head", "extra_heads.distillation") for kind in ("weight", "bias")}
    assert changed(before, copied_weights(network)) == {"model.reg_token", *heads}


def test_nothing_is_dropped_in_a_frozen_backbone(bench: Any) -> None:
    training = bench.training(network=vit(), freeze="backbone", learning_rate=1e-12)
    training.step(torch.arange(8), 0)
    images = training.batch(torch.arange(8), 0).images
    first = training.network(images).logits
    assert torch.equal(first, training.network(images).logits)  # stochastic depth of a half would differ


class Probe(nn.Module):
    """An objective with a layer of its own on the student's logits."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, batch: Batch, student: Activations, teacher: Any) -> dict[str, torch.Tensor]:
        return {"ce": cross_entropy(self.layer(student.logits), batch.targets)}


def test_what_a_method_adds_is_trained_with_a_frozen_backbone(bench: Any, copied_weights: Any) -> None:
    module = Probe()
    before = copied_weights(module)
    bench.training(Objective(module), freeze="backbone", epochs=1).run()
    assert changed(before, copied_weights(module)) == {"layer.weight", "layer.bias"}


@pytest.mark.parametrize(("taps", "refused"), [((), False), (("dense",), False), (("pooled",), True), (("stage3", "dense"), True)])
def test_methods_that_teach_features_refuse_a_frozen_backbone(taps: tuple[str, ...], refused: bool) -> None:
    needs = Needs(student_taps=taps, teacher_taps=("last",))
    assert (frozen_refusal(needs, TrainingConfig(freeze="backbone")) is not None) == refused
    assert frozen_refusal(needs, TrainingConfig()) is None
    assert frozen_refusal(needs, TrainingConfig(freeze=("conv1",))) is None


def row(epoch: int, accuracy: float) -> EpochRow:
    return EpochRow(
        epoch=epoch, learning_rate=1, loss=1, terms={}, train_accuracy=None, validation_accuracy=accuracy, seconds=1, images_per_second=1
    )


def test_patience_ends_so_many_epochs_after_the_first_of_the_best() -> None:
    kept, layer, seen = BestWeights(2), nn.Linear(1, 1), []
    for epoch, accuracy in enumerate([0.3, 0.5, 0.5, 0.4], start=1):
        nn.init.constant_(layer.weight, epoch)
        seen.append(row(epoch, accuracy))
        kept.note(seen, layer)
        assert kept.stops(seen) == (epoch == 4)
    assert kept.weights["weight"].item() == 2
    assert kept.words(seen, averaged=False) == "epoch 2"
    assert kept.words(seen, averaged=True) == "epoch 2, averaged"


def test_without_patience_the_last_weights_are_kept() -> None:
    kept, seen = BestWeights(None), [row(1, 0.5), row(2, 0.4), row(3, 0.3)]
    kept.note(seen, nn.Linear(1, 1))
    assert (kept.stops(seen), kept.weights) == (False, {})
    assert (kept.words(seen, averaged=False), kept.words(seen, averaged=True)) == ("last", "averaged")


def scripted(training: Any, accuracies: list[float]) -> Any:
    """The training with these validation accuracies, epoch after epoch."""
    training._validation_accuracy = lambda *_: accuracies[len(training.history)]
    return training


ACCURACIES = [0.2, 0.6, 0.5, 0.6, 0.1, 0.9]


@pytest.mark.parametrize("ema", [None, 0.5])
def test_early_stopping_leaves_the_best_epochs_weights(bench: Any, copied_weights: Any, same_bytes: Any, ema: float | None) -> None:
    after: dict[int, Any] = {}
    training = scripted(bench.training(epochs=6, early_stopping=3, ema=ema), ACCURACIES)
    training.after_epoch = lambda epoch, network: after.update({epoch: copied_weights(network)})
    history = training.run()
    assert [row.epoch for row in history] == [1, 2, 3, 4, 5]  # three epochs after the second
    assert same_bytes(copied_weights(training.network), after[2])
    assert not same_bytes(after[2], after[5])
    assert training.evaluated_weights == ("epoch 2" if ema is None else "epoch 2, averaged")
    whole = bench.training(folder="whole", epochs=6).run()
    assert [row.learning_rate for row in history] == [row.learning_rate for row in whole[:5]]  # the schedule is that of all six


@pytest.mark.parametrize("step", [8, 13])
def test_early_stopping_resumes_with_the_same_bytes(bench: Any, copied_weights: Any, same_bytes: Any, step: int) -> None:
    def stopping(folder: str) -> Any:
        return scripted(bench.training(folder=folder, epochs=6, early_stopping=3), ACCURACIES)

    whole, stopped = stopping("whole"), stopping("stopped")
    whole.run()
    do = stopped.step

    def interrupted(index: Any, epoch: int) -> None:
        if stopped.clock.step == step:
            signal.raise_signal(signal.SIGINT)
        do(index, epoch)

    stopped.step = interrupted
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    resumed, again = stopping("stopped"), stopping("stopped")
    assert len(resumed.run()) == 5
    assert same_bytes(copied_weights(whole.network), copied_weights(resumed.network))
    assert resumed.evaluated_weights == "epoch 2"
    again.step = lambda index, epoch: pytest.fail("a step was run")  # a finished training stays finished
    assert len(again.run()) == 5
    assert same_bytes(copied_weights(whole.network), copied_weights(again.network))


def test_validation_and_training_accuracy_are_of_labelled_images(bench: Any) -> None:
    labelled = bench.validation
    more = ImageSet(
        np.concatenate([labelled.images] * 2), np.concatenate([labelled.labels, np.full(9, -1)]), np.arange(18).astype(str), tuple("abc")
    )
    plain, bench.validation = bench.training(folder="plain", epochs=1).run(), more
    assert bench.training(folder="more", epochs=1).run()[0].validation_accuracy == plain[0].validation_accuracy
    bench.train = ImageSet(bench.train.images, np.full(24, -1), bench.train.ids, tuple("abc"))
    assert bench.training(folder="unlabelled", epochs=1).run()[0].train_accuracy is None
