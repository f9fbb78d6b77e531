"""The networks of a study: built before their first step, or loaded as finished teachers; checkpoints that cannot be right are refused."""

from pathlib import Path

import numpy as np
import torch

from crossdistill.compare.observed import chance_level
from crossdistill.core import registry
from crossdistill.core.config import NetworkConfig
from crossdistill.core.errors import RunError, WeightsError
from crossdistill.core.records import RunRecord
from crossdistill.core.seeds import torch_seed
from crossdistill.core.store import file_sha256
from crossdistill.core.types import ImageSet
from crossdistill.metrics.accuracy import accuracy
from crossdistill.models._build import build_network, load_network, saved_description
from crossdistill.observe import observe
from crossdistill.ops.modes import frozen
from crossdistill.ops.network import Network
from crossdistill.study.keys import checkpoint_hash
from crossdistill.study.plan import Training
from crossdistill.study.workshop import Workshop

CHECKED_IMAGES = 500  # of validation, on which a finished checkpoint must show that its classes are in the right order


def build(shop: Workshop, training: Training) -> Network:
    """The network of a training before its first step, on the device; its initialisation is keyed by role and run seed."""
    torch.manual_seed(torch_seed(shop.config.seed, training.role, training.seed, "initialisation"))
    chosen = shop.config.networks[training.network]
    network = chosen_network(chosen, shop.splits.train, pretrained=chosen.pretrained)
    if training.method:
        plugin = registry.get("method", training.method.name)
        if prepare := plugin.facts["prepare_student"]:
            prepare(network, plugin.complete(training.method.settings))
    return placed(network, shop.device)


def chosen_network(chosen: NetworkConfig, images: ImageSet, *, pretrained: bool) -> Network:
    """The network that a study file names, for its images: the checkpoint's, or one drawn from torch's generator unless pretrained."""
    if chosen.checkpoint:
        return load_network(
            chosen.checkpoint, model=chosen.model, n_classes=images.n_classes, size=images.size, class_map=chosen.class_map,
            settings=chosen.settings,
        )  # fmt: skip
    assert chosen.model is not None
    return build_network(chosen.model, images.n_classes, images.size, pretrained=pretrained, settings=chosen.settings)


def placed(network: Network, device: torch.device) -> Network:
    """The network on the device, convolutions in the channels-last layout that batches have."""
    layout = torch.channels_last if network.family == "cnn" else torch.contiguous_format
    return network.to(device, memory_format=layout)  # type: ignore[call-overload]


def load_trained(shop: Workshop, training: Training, epoch: int | None = None) -> Network:
    """A finished network (or as it was after an epoch), frozen and in eval mode, from the file that its own task left."""
    path = shop.weights(training, epoch)
    folder = shop.folder(training)
    if not path.exists():
        raise RunError(f"the weights of {training.label} are not at {path}: delete {folder} to train it again")
    _refuse_other_weights(training, path, folder, epoch)
    return frozen(placed(load_network(path), shop.device))


def _refuse_other_weights(training: Training, path: Path, folder: Path, epoch: int | None) -> None:
    """What a record names is what it teaches and what is observed: a file put in its place would be told under its name."""
    if epoch is None:
        record = RunRecord.load(folder)
        right = record.run == training.run and record.weights in (None, file_sha256(path))  # None: left by an earlier version
    else:  # such a file says itself what it is, and its own checksum that it says so still
        saved = (saved_description(path) or {}).get("extra", {})
        right = saved.get("run") == training.run and saved.get("epoch") in (None, epoch)
    if not right:
        raise RunError(
            f"{path} is not the file that {training.label} left, as its record tells: it was replaced or damaged. "
            f"Put the file back, or delete {folder} to train it again."
        )


def refuse_swapped_checkpoint(training: Training, chosen: NetworkConfig) -> None:
    """Raise WeightsError where the file of a finished network is another than that which the study was planned, and keyed, with."""
    if checkpoint_hash(chosen.checkpoint) != training.checkpoint:
        raise WeightsError(
            f"{chosen.checkpoint} was replaced while the study ran: put the file back, or start the same command again, which takes it as "
            "it is then"
        )


def refuse_wrong_checkpoint(shop: Workshop, network: Network, chosen: NetworkConfig) -> None:
    """Classes in another order are silent otherwise: the top-1 on validation images must lie clearly above chance."""
    if chosen.checkpoint is None:
        return
    images = spread(shop.splits.validation, CHECKED_IMAGES)
    _refuse_other_order(chosen, images.class_names)
    answers = observe(network, images, device=shop.device, split="validation")
    estimate = accuracy(answers.logits, answers.labels)
    chance = chance_level(images.labels)
    assert estimate.low is not None
    if estimate.low <= chance:
        raise WeightsError(
            f"{chosen.checkpoint} is right on {100 * (estimate.value or 0):.1f} % of {len(images)} validation images, not clearly above "
            f"chance ({100 * chance:.1f} %). Its classes are probably in another order: give `class_map`, a list with the data set's "
            "class of each of its outputs."
        )


def _refuse_other_order(chosen: NetworkConfig, class_names: tuple[str, ...]) -> None:
    """A file that names its classes must name the images' classes, in their order; two swapped ones would pass the top-1 check."""
    assert chosen.checkpoint is not None
    saved = (saved_description(chosen.checkpoint) or {}).get("class_names")
    if saved is None or chosen.class_map is not None or tuple(saved) == class_names:
        return
    if sorted(saved) == sorted(class_names):
        hint = f"give `class_map: {[class_names.index(name) for name in saved]}`"
    else:
        hint = "give `class_map`, a list with the data set's class of each of its outputs, or other images"
    raise WeightsError(f"{chosen.checkpoint} tells the classes {', '.join(saved)}, the images have {', '.join(class_names)}: {hint}")


def spread(images: ImageSet, count: int) -> ImageSet:
    """At most `count` images, evenly spread over the set: a source may keep its classes one after the other."""
    return images.subset(np.linspace(0, len(images) - 1, min(count, len(images))).astype(np.int64))
