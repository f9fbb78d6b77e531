"""The key of a training: a hash of everything that can change its bytes, and of nothing else.

The settings that differ from their defaults, the versions of the plug-ins used, the fingerprint of the images, and the keys of the
trainings it reads.
"""

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from crossdistill.core import registry
from crossdistill.core.config import NOT_METHODS, StudyConfig
from crossdistill.core.errors import WeightsError
from crossdistill.core.method_config import MethodConfig
from crossdistill.core.recipe import TrainingConfig
from crossdistill.core.store import digest, file_sha256
from crossdistill.models.python import module_file
from crossdistill.train.loop import ENGINE
from crossdistill.train.precision import resolved_precision


@dataclass(frozen=True)
class KeyMaker:
    """Makes the keys of a study's trainings, on images of that fingerprint and on that device."""

    config: StudyConfig
    images: str
    device: torch.device

    def recipe(self, network: str, *, teacher: bool = False, taught: bool = False) -> TrainingConfig:
        """The recipe of one network, with the precision as this device resolves it, and nothing on answers where nobody teaches it."""
        recipe = self.config.recipe(network, teacher=teacher)
        idle = {} if taught else {"cache_dtype": "float32"}
        return recipe.model_copy(update={"precision": resolved_precision(recipe.precision, self.device), **idle})

    def key(
        self, arm: str, network: str, seed: int, recipe: TrainingConfig, *, method: MethodConfig | None = None,
        control: str | None = None, reads: Mapping[str, str | None] = {}, probe: Any = None, checkpoint: str | None = None,
    ) -> str:  # fmt: skip
        """The key of one training. `reads` are keys of what it reads: its teacher, its rival, its warm-up.

        `probe` says in plain JSON on what probed images it is trained, where it is not on the clean ones; `checkpoint` is the
        SHA-256 of the file that takes a training's place.
        """
        chosen = self.config.networks[network]
        parts = {
            "engine": ENGINE,
            "images": self.images,
            "role": arm if arm in NOT_METHODS else "student",
            "network": [network, chosen.model_dump(mode="json", exclude_defaults=True, exclude={"training", "checkpoint"})],
            "checkpoint": checkpoint,
            "network_source": model_source(chosen.model),
            "recipe": None if checkpoint else recipe.identity(),
            "seeds": [self.config.seed, seed],
            "method": _method_key(method, control) if method else None,
            "control": control,
            **{name: reads.get(name) for name in ("teacher", "rival", "warm_up")},
        }
        return digest(parts | ({"probe": probe} if probe else {}))


def _method_key(method: MethodConfig, control: str | None) -> list[Any]:
    """What of a method can change a student's bytes; a twin learns from the labels, whatever the weights."""
    plugin = registry.get("method", method.name)
    options = {"weight", "weights", "ramp_epochs", "until"} if control != "twin" else set()
    weighed = method.model_dump(mode="json", exclude_defaults=True, include=options)
    if method.until == 1:  # the teacher teaches to the end, as without it
        del weighed["until"]
    return [plugin.name, plugin.identity, plugin.chosen(method.settings), weighed]


def checkpoint_hash(path: Path | None) -> str | None:
    """The SHA-256 of a finished checkpoint's file, None where there is none to be; raises WeightsError for a file that is missing."""
    if path is None:
        return None
    if not path.is_file():
        raise WeightsError(f"there is no file {path}: `checkpoint` names the .safetensors file of a trained network")
    return file_sha256(path)


def model_source(model: str | None) -> int | str | None:
    """What may change about a model behind its name: the source's version, or for the user's own code its syntax tree."""
    if model is None:
        return None
    source, _, rest = model.replace(":", "/", 1).partition("/")
    if source == "python":
        return digest(ast.dump(ast.parse(module_file(rest).read_text(encoding="utf-8"))))
    return registry.get("model", source).identity
