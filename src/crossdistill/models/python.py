"""A user's own network: python:MODULE:FUNCTION, where FUNCTION(n_classes, size, **options) gives an nn.Module or a Network."""

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from torch import nn

from crossdistill.core.errors import SettingError, UnknownNameError, unknown_name
from crossdistill.core.registry import model_source
from crossdistill.models._sizes import InputSize, chosen_size
from crossdistill.ops.network import Network


@model_source(example="python:my_models:my_network")
def python(
    name: str,
    n_classes: int,
    size: tuple[int, int],
    *,
    pretrained: bool = False,
    input_size: InputSize = None,
    mean: Sequence[float] = (0.5, 0.5, 0.5),
    std: Sequence[float] = (0.5, 0.5, 0.5),
    options: Mapping[str, Any] = {},
) -> Network:
    """The network that a user's function builds, which receives the class count, (height, width) in pixels and `options`.

    The module is looked for where Python looks and in the current folder. `mean` and `std`, on the [0, 1] scale, and
    `input_size` count where the function gives a bare nn.Module; a Network has its own.
    """
    if pretrained:
        raise SettingError(
            f"python:{name} knows nothing of published weights: let the function load them, or give `checkpoint: FILE.safetensors`"
        )
    target = chosen_size(input_size, size)
    built = _function(name)(n_classes, target, **options)
    if isinstance(built, Network):
        return built
    if not isinstance(built, nn.Module):
        raise SettingError(f"python:{name} gives an nn.Module or a Network, got {type(built).__name__}")
    network = Network(built, n_classes, target, mean=mean, std=std, model_name=f"python:{name}")
    if network.shapes()["logits"] != (n_classes,):
        raise SettingError(f"python:{name} was asked for {n_classes} classes and gives {network.shapes()['logits'][0]} logits")
    return network


def _function(name: str) -> Callable[..., Any]:
    module_name, _, function_name = name.partition(":")
    if not function_name:
        raise SettingError(f"a network of your own is called python:MODULE:FUNCTION, got 'python:{name}'")
    module = importlib.import_module(_found(module_name).name)
    functions = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
    if function_name not in functions:
        raise unknown_name(f"function of {module_name}", function_name, functions)
    return getattr(module, function_name)


def module_file(name: str) -> Path:
    """The source file behind MODULE or MODULE:FUNCTION: what a study's keys hash. Raises UnknownNameError where there is none."""
    spec = _found(name.partition(":")[0])
    if spec.origin is None:
        raise UnknownNameError(f"Python module '{spec.name}' has no source file: give the module that defines the function")
    return Path(spec.origin)


def _found(module_name: str) -> ModuleSpec:
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # the installed command does not look in the current folder by itself
    try:
        spec = importlib.util.find_spec(module_name)
    except ModuleNotFoundError:  # a parent package is not there
        spec = None
    if spec is None:
        raise UnknownNameError(f"no Python module is called '{module_name}': looked where Python looks and in {os.getcwd()}")
    return spec
