"""Networks as a notebook has them (a name, a file, a module, a function that builds one) as entries of a study file."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn

from crossdistill.core.errors import SettingError
from crossdistill.core.store import digest
from crossdistill.core.types import ImageSet
from crossdistill.models._build import save_network
from crossdistill.models._sizes import InputSize
from crossdistill.models.module import content_of, hand_over, preprocessing_of
from crossdistill.ops.network import Network


@dataclass(frozen=True)
class Preprocessed:
    """A module (or a function that builds one) with what its images have to go through.

    `mean` and `std` of the channels are on the [0, 1] scale; images are resized to `input_size`, a side or (height, width) in pixels,
    or left in their own size.
    """

    module: nn.Module | Callable[[], nn.Module]
    mean: Sequence[float] = (0.0, 0.0, 0.0)
    std: Sequence[float] = (1.0, 1.0, 1.0)
    input_size: InputSize = None


_preprocessing: "WeakKeyDictionary[nn.Module, dict[str, Any]]" = WeakKeyDictionary()
"""Of modules that came out of here: what belongs to them, in case they are handed in again."""


def bare(network: Network) -> nn.Module:
    """The module inside a network; handed in again, it is shown the images as the network shows them."""
    mean, std = (tuple(values.flatten().tolist()) for values in (network.mean, network.std))
    _preprocessing[network.model] = {"mean": mean, "std": std, "input_size": network.input_size}
    return network.model


def is_handed_over(given: Any) -> bool:
    """Whether it is a live module, rather than the name of one."""
    return not isinstance(given, str | Path | Mapping)


def is_entry(given: Mapping[str, Any]) -> bool:
    """Whether it is one network's entry of a study file, rather than networks by name, one of which may be called "model"."""
    return any(isinstance(given.get(name), str | Path) for name in ("model", "checkpoint"))


def unwrapped(given: Any) -> Any:
    """The module inside what torch.compile and torch's classes for several devices put around it: that is what is copied and trained."""
    while isinstance(given, nn.Module):
        if hasattr(given, "_orig_mod"):
            given = given._orig_mod
        elif isinstance(given, nn.DataParallel | nn.parallel.DistributedDataParallel):
            given = given.module
        else:
            break
    return given


def label_of(given: Any) -> str:
    """A short name for people and folders."""
    if isinstance(given, Mapping):
        given = given.get("model") or given.get("checkpoint") or "network"
    if isinstance(given, str | Path):
        path = Path(given)
        return (path.parent if path.name == "network.safetensors" else path).stem
    inner = unwrapped(given.module if isinstance(given, Preprocessed) else given.model if isinstance(given, Network) else given)
    return type(inner).__name__ if isinstance(inner, nn.Module) else getattr(inner, "__name__", type(inner).__name__)


def finished_entry(given: Any, images: ImageSet, store: Path) -> dict[str, Any]:
    """A network that is there to be asked, as it is: of a live module a copy of its weights is put into the store."""
    if not is_handed_over(given):
        return _named(given)
    if isinstance(given, Network) and given.model_name:
        network = given
    else:
        network = _handed(given, images)
        network.notes = network.notes[1:]  # where a training would start does not matter here
    name = label_of(network)
    names = list(images.class_names)
    path = store / "modules" / f"{name}-{digest([content_of(network), names])}.safetensors"
    save_network(network, path, class_names=names)
    return {"checkpoint": str(path)}


def teacher_entry(given: Any, images: ImageSet, store: Path, *, pretrained: bool) -> dict[str, Any]:
    """A teacher: as it is where it is there, else trained first, from published weights where `pretrained`."""
    entry = finished_entry(given, images, store)
    if "checkpoint" in entry:
        if pretrained:
            raise SettingError("`pretrained` is for a teacher named as a model: this one has its weights already, so leave it out")
        return entry
    return entry | ({"pretrained": True} if pretrained else {})


def student_entry(given: Any, images: ImageSet) -> dict[str, Any]:
    """A network that is to be trained: a live module from the weights that it has, a function's from those that it draws for each run."""
    if not is_handed_over(given):
        return _named(given)
    network = _handed(given, images)
    if not any(weight.requires_grad for weight in network.parameters()):
        raise SettingError(
            f"no weight of {label_of(given)} is to be trained: set requires_grad of those that are (student.requires_grad_())"
        )
    return {"model": network.model_name}


def _named(given: Any) -> dict[str, Any]:
    if isinstance(given, Mapping):  # as in a study file
        return dict(given)
    path = Path(given)
    if path.is_dir():
        path = path / "network.safetensors"
    return {"checkpoint": str(path)} if path.suffix == ".safetensors" else {"model": str(given)}


def _handed(given: Any, images: ImageSet) -> Network:
    if isinstance(given, Network):
        given = bare(given)
    given = unwrapped(given)
    if not isinstance(given, Preprocessed):
        known = _preprocessing.get(given) if isinstance(given, nn.Module) else None
        given = Preprocessed(given, **(known or preprocessing_of(given)))
    if not callable(given.module):  # a module is callable too
        raise SettingError(
            "a network is a name such as small/resnet20, a .safetensors file, a torch.nn.Module or a function that builds one, "
            f"got {type(given.module).__name__}"
        )
    module: Any = unwrapped(given.module)
    about = {"mean": given.mean, "std": given.std, "input_size": given.input_size}
    return hand_over(module, images.n_classes, images.size, **about)
