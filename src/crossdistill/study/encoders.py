"""Encoders for probes: a network of ours, one with published weights, or a small one trained on the study's own images.

A probe receives a callable `(images float32 [n, 3, h, w] in [0, 1]) -> list of maps, shallow to deep`, frozen and differentiable in the
images; it owns its normalisation.
"""

import hashlib
import math
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from crossdistill.core.errors import ImageError, SettingError
from crossdistill.core.progress import Progress, Stopwatch
from crossdistill.core.recipe import TrainingConfig
from crossdistill.core.seeds import torch_seed
from crossdistill.core.store import digest, locked
from crossdistill.core.types import UNLABELLED, ImageSet, Splits
from crossdistill.images._splits import stratified_rows
from crossdistill.models._build import build_network, load_network, save_network
from crossdistill.ops.modes import frozen
from crossdistill.ops.network import Network
from crossdistill.ops.taps import STAGES, recording
from crossdistill.probes._build import Supply
from crossdistill.probes._recipe import fingerprint
from crossdistill.train.loop import ENGINE, Training

MODEL = "small/vgg"
SETTINGS = {"width": 16}  # four times as many channels at the deepest stage; twice as wide takes four times as long
RECIPE = TrainingConfig(epochs=8, learning_rate=2e-3, precision="fp32")
MOST_IMAGES, MOST_BYTES = 10_000, 2**29  # local features are learnt from few images: minutes on a CPU, and never more memory
VALIDATION_IMAGES = 1000  # for the log alone
LARGEST_SIDE = 64  # of the images that it is trained on; a convolutional encoder then reads any size
FEWEST_POOLS = 4  # a network with as many max-poolings is VGG-like: its maps before each of them are read

VERSION = 1  # of the recipe above and of what is kept


class Encoder:
    """The stages of a frozen network, shallow to deep, for images float32 [n, 3, h, w] in [0, 1].

    A convolutional network sees images at the size they have, any other at the size it was made for. VGG-like networks are read
    before each pooling, as in Gatys et al., all others at `stage1` to `stage4`. Maps come back on the network's device.
    """

    def __init__(self, network: Network) -> None:
        self.network = frozen(network)
        self.side = min(network.input_size)  # the size that it was made for
        self.pools = [name for name, module in network.model.named_modules() if isinstance(module, nn.MaxPool2d)]

    def __call__(self, images: Tensor) -> list[Tensor]:
        network = self.network
        images = images.to(network.mean)
        if network.family == "cnn":
            network.input_size = (images.shape[2], images.shape[3])
        if len(self.pools) < FEWEST_POOLS:
            stages = network(images, taps=[name for name in STAGES if name in network.taps]).stages
            return [stages[name].grid for name in STAGES if name in stages]
        with recording({name: network.model.get_submodule(name) for name in self.pools}) as seen:
            network(images)
        return [seen.inputs[name] for name in self.pools]

    @property
    def identity(self) -> str:
        """16 hexadecimal digits that name all that its maps depend on: every weight but the heads'."""
        network = self.network
        heads = [parameter for head in network.reader.classifiers(network.model).values() for parameter in head.parameters()]
        unread = {id(parameter) for parameter in heads}
        state = {name: value for name, value in network.state_dict(keep_vars=True).items() if id(value) not in unread}
        return digest([network.model_name, network.settings, self.side, _bytes_digest(state)])


def encoder_supply(text: str, images: ImageSet, *, device: torch.device | None = None) -> Supply:
    """The encoder that `text` names: a .safetensors file that crossdistill wrote, or a model's name (its published weights).

    Raises WeightsError for a file that is missing or damaged and for weights that cannot be had, SettingError or UnknownNameError for
    a name that is none, and SettingError for a network without at least two maps to read.
    """
    encoder = Encoder(_named_network(text, images).to(device or torch.device("cpu")))
    with torch.no_grad():
        maps = encoder(torch.zeros(1, 3, *encoder.network.input_size))
    if len(maps) < 2:
        raise SettingError(f"{text} has {len(maps)} feature map to read, an encoder needs at least two: choose a network with stages")
    about = {
        "name": text,
        "model": encoder.network.model_name,
        "weights": encoder.identity,
        "maps": [list(values.shape[1:]) for values in maps],
        "device": str(encoder.network.mean.device),
        "threads": torch.get_num_threads(),
    }
    return Supply(lambda block: encoder, encoder.identity, about)


def trained_encoder(splits: Splits, *, store: Path, device: torch.device | None = None, progress: Progress | None = None) -> Path:
    """The file of an encoder trained on the training images, in `store`/encoders/KEY: made once for equal images, then found.

    A small VGG-like network (`small/vgg`), taught the labels of at most 10,000 of the images for 8 epochs; a training that was stopped
    goes on. Where another process is at it, that is waited for. Raises ImageError where fewer than two classes have labelled training
    images.
    """
    train = _taught(splits)
    file = _file(train, store)
    folder = file.parent
    if not file.exists():
        progress = progress or Progress(quiet=True)
        with locked(folder, f"another process is training the encoder {folder}", waiting=progress.line):
            if not file.exists():
                validation, watch = _some(splits.validation, VALIDATION_IMAGES), Stopwatch()
                _train(train, validation, _taught_size(train.size), folder, device or torch.device("cpu"), progress)
                _note(train, store, device or torch.device("cpu"), watch.seconds)
            shutil.rmtree(folder / "checkpoint", ignore_errors=True)
    return file


def _note(train: ImageSet, store: Path, device: torch.device, seconds: float) -> None:
    from crossdistill.study.timings import encoder_facts, note  # which imports this module in the end

    note(store, encoder_facts(train.size, train.n_classes, device), images_per_second=RECIPE.epochs * len(train) / max(seconds, 1e-9))


def encoder_file(splits: Splits, store: Path) -> Path:
    """Where the encoder that is trained on these images stands, or will stand."""
    return _file(_taught(splits), store)


def _file(train: ImageSet, store: Path) -> Path:
    recipe = {
        "recipe": RECIPE.model_dump(mode="json"),
        "model": [MODEL, SETTINGS],
        "size": list(_taught_size(train.size)),
        "version": VERSION,
        "engine": ENGINE,
    }
    return Path(store) / "encoders" / digest({**recipe, "images": fingerprint(train)}) / "network.safetensors"


def encoder_visits(splits: Splits) -> int:
    """The image visits of its training."""
    return RECIPE.epochs * len(_taught(splits))


def trained_images(splits: Splits) -> ImageSet:
    """The images on which it is trained."""
    return _taught(splits)


def _taught(splits: Splits) -> ImageSet:
    train = _some(splits.train, min(MOST_IMAGES, MOST_BYTES // splits.train.images[0].nbytes))
    n_classes = len(np.unique(train.labels))
    if n_classes < 2:
        raise ImageError(
            f"an encoder is trained on labelled images of at least two classes, the training images have {n_classes}: "
            "give --encoder FILE.safetensors or the name of a model with published weights"
        )
    return train


def _train(
    train: ImageSet, validation: ImageSet, size: tuple[int, int], folder: Path, device: torch.device, progress: Progress | None
) -> None:  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_seed("encoder", "initialisation"))
        network = build_network(MODEL, train.n_classes, size, settings={**SETTINGS, "input_size": size}).to(device)
        Training(
            network, train, validation, RECIPE, who=(0, "encoder", 0), folder=folder, device=device, progress=progress,
            description="encoder",
        ).run()  # fmt: skip
    save_network(network, folder / "network.safetensors", class_names=train.class_names, extra={"images": len(train), "made": "encoder"})


def _some(images: ImageSet, most: int) -> ImageSet:
    """The labelled images, or `most` of them, each class keeping its share."""
    labelled = np.flatnonzero(images.labels != UNLABELLED)
    rows = stratified_rows(images.labels[labelled], most, "encoder", "images") if len(labelled) > most else np.arange(len(labelled))
    return images.subset(labelled[rows])


def _taught_size(size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) at which the encoder is trained: the images' own, reduced to a shorter side of 64 pixels.

    >>> _taught_size((32, 32)), _taught_size((224, 224)), _taught_size((256, 512))
    ((32, 32), (64, 64), (64, 128))
    """
    scale = min(1.0, LARGEST_SIDE / min(size))
    return math.floor(size[0] * scale), math.floor(size[1] * scale)


def _named_network(text: str, images: ImageSet) -> Network:
    if Path(text).suffix == ".safetensors":
        return load_network(Path(text))
    with torch.random.fork_rng(devices=[]):  # for a head that its weights do not fit, which an encoder does not use
        torch.manual_seed(0)
        return build_network(text, images.n_classes, images.size, pretrained=True)


def _bytes_digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of every tensor's name, type, shape and bytes."""
    found = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        found.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()
