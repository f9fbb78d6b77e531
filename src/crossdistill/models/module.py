"""A plain torch.nn.Module handed over in Python, as `crossdistill.distill` takes it, known by its content while the session lasts."""

import contextlib
import copy
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from crossdistill.core.errors import SettingError, WeightsError
from crossdistill.core.registry import model_source
from crossdistill.models._sizes import InputSize, chosen_size
from crossdistill.ops.network import Network

LOOKED_AT = 4  # random images whose answers name a module: what its weights and its print do not show changes these


@dataclass(frozen=True)
class HandedOver:
    """What builds a module (a copy of the one that was handed over, or the caller's function), and what images it takes."""

    make: Callable[[], nn.Module]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    input_size: InputSize
    notes: tuple[str, ...]

    def network(self, n_classes: int, size: tuple[int, int]) -> Network:
        built = self.make()
        target = chosen_size(self.input_size, size)
        network = Network(built, n_classes, target, mean=self.mean, std=self.std, notes=self.notes)
        if (found := network.shapes()["logits"]) != (n_classes,):
            raise SettingError(
                f"{type(built).__name__} gives {found[0]} logits, and the images have {n_classes} classes: give a module with an output "
                "for each class, in their order"
            )
        return network


_in_this_session: dict[str, HandedOver] = {}


@model_source(example="module/MyNetwork-0123456789abcdef")
def module(name: str, n_classes: int, size: tuple[int, int]) -> Network:
    """The module that was handed over under that name in this session, with the weights that it had then.

    A function that was handed over is called again, and draws its weights from torch's global generator.
    """
    if name not in _in_this_session:
        raise WeightsError(
            f"{name} is a module that was handed over in Python, and is not known here: only the code that made it can build it. "
            "Call crossdistill.distill or crossdistill.evaluate with it again; its trained weights stand in network.safetensors."
        )
    return _in_this_session[name].network(n_classes, size)


def hand_over(
    given: nn.Module | Callable[[], nn.Module], n_classes: int, size: tuple[int, int], *, mean: Sequence[float], std: Sequence[float],
    input_size: InputSize = None,
) -> Network:  # fmt: skip
    """The network of a module as it stands; `build_network` builds it anew from its `model_name` from now on.

    A module, and what a function gives at each call, is copied, and neither changed nor looked at again. The name tells weights, print
    and answers: equal modules have one name, in any session. Raises SettingError for a module that cannot be read.
    """
    label = type(given).__name__ if isinstance(given, nn.Module) else getattr(given, "__name__", type(given).__name__)
    handed = HandedOver(_maker(given, label), tuple(mean), tuple(std), input_size, tuple(_notes(given, label)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = handed.network(n_classes, size)
        name = f"{re.sub(r'[^A-Za-z0-9_]', '', label) or 'Module'}-{content_of(network)}"
    _in_this_session[name] = handed
    network.model_name = f"module/{name}"
    return network


def _notes(given: Any, label: str) -> Iterator[str]:
    if isinstance(given, nn.Module):
        yield f"{label} was handed over with its weights: trained anew, every run starts from these."
        others = {str(value.dtype) for value in given.parameters() if value.dtype != torch.float32}
        if others:
            yield f"Its weights were of {', '.join(sorted(others))} and are used in torch.float32."


def _maker(given: nn.Module | Callable[[], nn.Module], label: str) -> Callable[[], nn.Module]:
    if not isinstance(given, nn.Module):
        return lambda: _built(given, label)
    kept = _on_cpu(_copied(given))
    if odd := [name for name, value in kept.state_dict().items() if not isinstance(value, Tensor)]:
        raise SettingError(f"{label} keeps {odd[0]}, which is no tensor, in its state: only tensors can be saved with its weights")
    return lambda: copy.deepcopy(kept)


def _copied(given: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(given)
    except Exception as error:  # whatever a user's own class raises when it is copied
        raise SettingError(
            f"{type(given).__name__} cannot be copied ({error}), and crossdistill never works on the module itself: "
            "give a function that builds one"
        ) from error


def _built(make: Callable[[], nn.Module], label: str) -> nn.Module:
    built = make()
    if not isinstance(built, nn.Module):
        raise SettingError(f"{label}() gives an nn.Module, got {type(built).__name__}")
    return _on_cpu(_copied(built))  # a function may give one module at every call, or share a part between them


def _on_cpu(model: nn.Module) -> nn.Module:
    """On the CPU, floating point in float32."""
    return model.to("cpu", torch.float32)


def content_of(network: Network) -> str:
    """16 hexadecimal digits that name what a network is, and what it answers in eval and in train mode."""
    found = hashlib.sha256(repr(network.model).encode())
    for name, value in network.state_dict().items():
        found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        found.update(value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    for answers in _answers(copy.deepcopy(network)):
        found.update(str(answers).encode())
    return found.hexdigest()[:16]


@torch.no_grad()
def _answers(network: Network) -> list[list[float]]:
    """Logits to the third digit of the largest, so that the sums' order on another machine hardly ever matters."""
    found = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # dropout draws from it too
        images = torch.randint(0, 256, (LOOKED_AT, 3, *network.input_size), dtype=torch.uint8)
        for training in (False, True):
            with contextlib.suppress(RuntimeError, ValueError):  # in train mode: a module that is only to be asked need not be trainable
                found.append(_rounded(network.train(training)(images).logits))
    return found


def _rounded(logits: Tensor) -> list[float]:
    largest = logits.abs().max().clamp(min=1e-12)
    return [round(value, 3) + 0.0 for value in (logits / largest).flatten().tolist()]


def preprocessing_of(given: Any) -> Mapping[str, Any]:
    """{"mean", "std"} that timm keeps with a model that it made, else images in [0, 1] as torchvision's ToTensor gives them."""
    published = getattr(given, "pretrained_cfg", None)
    if isinstance(published, Mapping) and {"mean", "std"} <= published.keys():
        return {"mean": tuple(published["mean"]), "std": tuple(published["std"])}
    return {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
