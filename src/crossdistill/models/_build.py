"""Building, saving and loading networks: the one place that knows how a model's name finds its source."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from crossdistill.core import registry
from crossdistill.core.errors import SettingError, WeightsError
from crossdistill.core.store import write_atomically
from crossdistill.ops.network import Network

FORMAT = "crossdistill-network-1"


def build_network(
    model: str, n_classes: int, size: tuple[int, int], *, pretrained: bool = False, settings: Mapping[str, Any] | None = None
) -> Network:
    """The network that `model` names, for images of `size` (height, width) in pixels and `n_classes` classes.

    `model` is "timm/NAME", "torchvision/NAME", "huggingface/OWNER/NAME", "small/NAME" or "python:MODULE:FUNCTION". Weights that
    are not pretrained are drawn from torch's global generator, which the caller seeds. Raises UnknownNameError for a
    name or setting that does not exist, SettingError for a size that does not fit, WeightsError where weights cannot be had.
    """
    match = re.match(r"([a-z_0-9]+)[/:](.+)", model)
    if match is None:
        raise SettingError(f"a model is called SOURCE/NAME, such as timm/resnet18 or small/vit, got {model!r}")
    plugin = registry.get("model", match[1])
    given = plugin.parse(dict(settings or {}) | ({"pretrained": True} if pretrained else {}))
    network: Network = plugin.function(match[2], n_classes, size, **given)
    network.model_name = model
    # What the source itself adds (a downloaded configuration) comes on top; the size and the weights are saved apart.
    rebuilt = {name: value for name, value in given.items() if name not in ("pretrained", "input_size")}
    network.settings = rebuilt | network.settings
    return network


def save_network(network: Network, path: Path, *, class_names: Sequence[str], extra: Mapping[str, Any] | None = None) -> None:
    """Write the weights to a safetensors file that also holds what is needed to build the network again and to notice damage.

    Written whole or not at all. Raises SettingError for a network that no source built, StudyError where the folder cannot be written.
    """
    from safetensors.torch import save

    if not network.model_name:
        raise SettingError("only a network that `build_network` made can be saved: a file must say how to build it again")
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in network.state_dict().items()}
    description = {
        "format": FORMAT,
        "model": network.model_name,
        "settings": network.settings,
        "n_classes": network.n_classes,
        "size": list(network.input_size),
        "readout": network.readout,
        "extra_heads": list(network.extra_heads),
        "token_heads": list(network.token_heads),
        "notes": network.notes,
        "class_names": list(class_names),
        "extra": dict(extra or {}),
    }
    description["sha256"] = _fingerprint(description, tensors)
    # One entry, since safetensors writes several in an order that changes from run to run, and equal networks should be equal files.
    content = save(tensors, {"crossdistill": json.dumps(description, sort_keys=True)})
    write_atomically(path, lambda file: file.write(content))


def saved_description(path: Path) -> dict[str, Any] | None:
    """What `save_network` wrote beside the tensors (model, class_names, extra, ...), or None for a file that others wrote.

    Raises WeightsError where the file is missing or damaged.
    """
    return _read(path)[1]


def load_network(
    path: Path,
    *,
    model: str | None = None,
    n_classes: int | None = None,
    size: tuple[int, int] | None = None,
    class_map: Sequence[int] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Network:
    """The network of a safetensors file; torch's random generator is left as it was.

    A file of `save_network` says itself how to build it; for any other, `model`, `settings` and `size` say it. `n_classes`: how many
    classes the images have. `class_map[k]` is the images' class of the file's output k, -1 for an output that is not theirs.
    Raises WeightsError for a file that is missing, damaged, or does not fit.
    """
    tensors, description = _read(path)
    n_outputs = len(class_map) if class_map is not None else n_classes
    with torch.random.fork_rng(devices=[]):
        if description is not None:
            network = _described(description)
        else:
            network = _foreign(path, tensors, model, n_outputs, size, settings)
            # A bare model's file knows no normalisation: the source's stands.
            tensors = {"mean": network.mean, "std": network.std} | {f"model.{name}": value for name, value in tensors.items()}
    _load(network, tensors, path)
    if class_map is not None:
        keep_classes(network, class_map, n_classes)
    elif n_classes is not None and network.n_classes != n_classes:
        raise WeightsError(_other_classes(path, network.n_classes, n_classes))
    return network


def keep_classes(network: Network, class_map: Sequence[int], n_classes: int | None = None) -> None:
    """Reorder the heads in place: output k becomes class `class_map[k]`, and outputs mapped to -1 go.

    Raises SettingError unless every class 0 .. n_classes - 1 is named exactly once and every output has an entry.
    """
    kept = [label for label in class_map if label >= 0]
    expected = n_classes if n_classes is not None else len(kept)
    if len(class_map) != network.n_classes or sorted(kept) != list(range(expected)):
        raise SettingError(
            f"class_map gives each of the file's {network.n_classes} outputs a class, every one of 0 to {expected - 1} once and -1 "
            f"for outputs that are not among them; got {len(class_map)} entries with the classes {sorted(kept)}"
        )
    order = torch.tensor([class_map.index(label) for label in range(expected)])
    for head in [*network.reader.classifiers(network.model).values(), *network.extra_heads.values()]:
        _keep_rows(head, order)
    network.n_classes = expected


def _keep_rows(head: nn.Module, order: Tensor) -> None:
    if not isinstance(head, nn.Linear | nn.Conv2d):
        raise SettingError(f"class_map needs a linear head, this network's is {type(head).__name__}")
    head.weight = nn.Parameter(head.weight.detach()[order])
    if head.bias is not None:
        head.bias = nn.Parameter(head.bias.detach()[order])
    if isinstance(head, nn.Linear):
        head.out_features = len(order)
    else:
        head.out_channels = len(order)


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise WeightsError(f"there is no file {path}: `checkpoint` names a .safetensors file")
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
        description = json.loads(metadata["crossdistill"]) if "crossdistill" in metadata else None
    except (SafetensorError, ValueError) as error:
        raise WeightsError(
            f"{path} is damaged or no safetensors file ({error}). Copy it again from where it came, or make it again."
        ) from error
    if description is not None and description.pop("sha256", None) != _fingerprint(description, tensors):
        raise WeightsError(
            f"{path} is damaged: its contents are not those that were saved. Copy it again from where it came, or make it again."
        )
    return tensors, description


def _fingerprint(description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the description and of every tensor's name, type, shape and bytes."""
    digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _described(description: Mapping[str, Any]) -> Network:
    if description["format"] != FORMAT:
        raise WeightsError(f"this file has format {description['format']!r}, this version reads {FORMAT!r}: use the version that wrote it")
    height, width = description["size"]
    network = build_network(description["model"], description["n_classes"], (height, width), settings=description["settings"])
    for name in description["extra_heads"]:
        add = network.add_token_head if name in description.get("token_heads", ()) else network.add_head
        add(name)
    network.readout = description["readout"]
    network.notes = list(description["notes"])
    return network


def _foreign(
    path: Path, tensors: Mapping[str, Tensor], model: str | None, n_outputs: int | None, size: tuple[int, int] | None,
    settings: Mapping[str, Any] | None,
) -> Network:  # fmt: skip
    if model is None or n_outputs is None or size is None:
        raise WeightsError(f"{path} does not say which network it belongs to: give `model` (such as timm/resnet18) beside `checkpoint`")
    network = build_network(model, n_outputs, size, settings=settings)
    for head in network.reader.classifiers(network.model).values():
        name = next(f"{name}.weight" for name, module in network.model.named_modules() if module is head)
        if name in tensors and len(tensors[name]) != n_outputs:
            raise WeightsError(_other_classes(path, len(tensors[name]), n_outputs))
    return network


def _other_classes(path: Path, n_saved: int, n_classes: int) -> str:
    return (
        f"{path} was trained on {n_saved} classes, the images have {n_classes}. Choose images with the same classes, or give `class_map`: "
        f"for each of its {n_saved} outputs the images' class, -1 for none."
    )


def _load(network: Network, tensors: Mapping[str, Tensor], path: Path) -> None:
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise WeightsError(f"{path} does not fit {network.model_name}: {str(error).splitlines()[-1].strip()}") from error
