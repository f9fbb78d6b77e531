"""Checkpoints that are whole or absent: tensors as safetensors, the rest as JSON, loaded without pickle; the last two are kept."""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from crossdistill.core.errors import StudyError
from crossdistill.core.progress import Stopwatch
from crossdistill.core.store import file_sha256, write_atomically, write_json

KEPT = 2


class Due:
    """Says when the next checkpoint is due: `every` is "500 steps" or "10 minutes" since the last one."""

    def __init__(self, every: str) -> None:
        number, unit = every.split()
        self.every, self.counts_steps = int(number), unit.startswith("step")
        self.reset(0)

    def reset(self, step: int) -> None:
        """A checkpoint was written, or read, at this step."""
        self.step, self.watch = step, Stopwatch()

    def __call__(self, step: int) -> bool:
        return step - self.step >= self.every if self.counts_steps else self.watch.seconds >= 60 * self.every


@dataclass(frozen=True)
class Checkpoint:
    """What training needs to go on: named tensors and a JSON state. `skipped` names damaged newer ones."""

    tensors: Mapping[str, Tensor]
    state: Mapping[str, Any]
    skipped: tuple[str, ...] = ()


def save_checkpoint(folder: Path, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Write `folder/step-N`, aside and renamed, then delete all but the last two."""
    final, aside = folder / f"step-{step:09d}", folder / f".aside-{os.getpid()}"
    shutil.rmtree(aside, ignore_errors=True)
    try:
        write_atomically(aside / "tensors.safetensors", lambda file: file.write(save({k: v.contiguous() for k, v in tensors.items()})))
        write_json(aside / "state.json", {**state, "step": step, "sha256": file_sha256(aside / "tensors.safetensors")})
        shutil.rmtree(final, ignore_errors=True)
        os.replace(aside, final)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    for old in _steps(folder)[KEPT:]:
        shutil.rmtree(old, ignore_errors=True)


def load_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest whole checkpoint in `folder`, or None where there is none at all.

    Raises StudyError where there are some and every one is damaged.
    """
    skipped: list[str] = []
    for path in _steps(folder):
        try:
            state = json.loads((path / "state.json").read_text(encoding="utf-8"))
            if file_sha256(path / "tensors.safetensors") != state["sha256"]:
                raise ValueError("its checksum differs")
            return Checkpoint(load_file(path / "tensors.safetensors"), state, tuple(skipped))
        except (OSError, ValueError, KeyError, SafetensorError):
            skipped.append(path.name)
    if skipped:
        raise StudyError(
            f"every checkpoint in {folder} is damaged ({', '.join(skipped)}). Delete that folder to train this run from its start."
        )
    return None


def _steps(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*"), reverse=True) if folder.is_dir() else []


def pack_optimizer(name: str, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's tensors under flat names; learning rates are set afresh at each step and need no saving."""
    state = optimizer.state_dict()["state"]
    return {f"{name}.{i}.{field}": value for i, fields in state.items() for field, value in fields.items() if isinstance(value, Tensor)}


def unpack_optimizer(name: str, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give an optimiser the tensors that `pack_optimizer` saved."""
    state: dict[int, dict[str, Tensor]] = {}
    for path, value in tensors.items():
        if path.startswith(f"{name}."):
            i, field = path.removeprefix(f"{name}.").split(".", 1)
            state.setdefault(int(i), {})[field] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    for parameter, fields in optimizer.state.items():
        for field, value in fields.items():
            if value.shape == parameter.shape:  # in the parameter's memory layout, as it was: another layout sums in another order
                fields[field] = torch.empty_like(parameter).copy_(value)
