"""Checkpoints that are whole or absent: tensors as safetensors, the rest as JSON, loaded without pickle; the last two are kept."""

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from crossdistill.core.errors import RunError, StudyError
from crossdistill.core.store import cannot_write, digest, file_sha256, locked, write_atomically, write_json

KEPT = 2
TENSORS, STATE = "tensors.safetensors", "state.json"


class Due:
    """Says when the next checkpoint is due: `every` is "500 steps" or "10 minutes" since the last one.

    Minutes are added up from look to look, so that a clock that jumps back loses what it jumped over and delays no checkpoint further.
    """

    def __init__(self, every: str) -> None:
        number, unit = every.split()
        self.every, self.counts_steps = int(number), unit.startswith("step")
        self.reset(0)

    def reset(self, step: int) -> None:
        """A checkpoint was written, or read, at this step."""
        self.step, self.waited, self.looked = step, 0.0, time.perf_counter()

    def __call__(self, step: int) -> bool:
        if self.counts_steps:
            return step - self.step >= self.every
        before, self.looked = self.looked, time.perf_counter()
        self.waited += max(0.0, self.looked - before)
        return self.waited >= 60 * self.every


@dataclass(frozen=True)
class Checkpoint:
    """What training needs to go on: named tensors and a JSON state. `skipped` names damaged newer ones."""

    tensors: Mapping[str, Tensor]
    state: Mapping[str, Any]
    skipped: tuple[str, ...] = ()


def save_checkpoint(folder: Path, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Write `folder/step-N`, aside, synced and renamed, then delete all but the last two.

    One of that very step, as a stop during validation leaves it, stays until the new one stands. Raises StudyError where it cannot be
    written; what was there before stays.
    """
    final, aside = folder / f"step-{step:09d}", folder / f".aside-{os.getpid()}"
    before = folder / f"{final.name}-before"
    for left in folder.glob(".aside-*"):  # by a process that was killed while it wrote: the folder has one writer
        shutil.rmtree(left, ignore_errors=True)
    if final.exists():  # a kill came when both stood there
        _take_away(before, aside)
    content = save(_apart(tensors))
    described = {**state, "step": step, "sha256": hashlib.sha256(content).hexdigest()}
    try:
        write_atomically(aside / TENSORS, lambda file: file.write(content))
        write_json(aside / STATE, {**described, "checksum": digest(described)})
        _sync(aside)
        if final.exists():
            os.replace(final, before)
        os.replace(aside, final)
        _sync(folder)
        _take_away(before, aside)
    except OSError as error:
        raise cannot_write(final, error) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    for old in _steps(folder)[KEPT:]:
        shutil.rmtree(old, ignore_errors=True)


def _take_away(path: Path, aside: Path) -> None:
    """Delete a checkpoint, if it is there; out of sight first, so that none is read that is half deleted."""
    if path.exists():
        os.replace(path, aside)
        shutil.rmtree(aside, ignore_errors=True)


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors in the form that a file of them needs: contiguous, and tied weights once for each name."""
    found: dict[str, Tensor] = {}
    places: set[int] = set()
    for name, value in tensors.items():
        plain = value.contiguous()
        found[name] = plain.clone() if plain.data_ptr() in places else plain
        places.add(plain.data_ptr())
    return found


def _sync(folder: Path) -> None:
    """Have the disk take down a folder's entries: a rename survives a power cut only then."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def load_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest whole checkpoint in `folder`, or None where there is none at all.

    Raises RunError where there are some and every one is damaged.
    """
    skipped: list[str] = []
    for path in _steps(folder):
        try:
            state = json.loads((path / STATE).read_text(encoding="utf-8"))
            if state.pop("checksum") != digest(state) or file_sha256(path / TENSORS) != state["sha256"]:
                raise ValueError("its checksum differs")
            return Checkpoint(load_file(path / TENSORS), state, tuple(skipped))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError):  # whatever damaged JSON may turn into
            skipped.append(path.name)
    if skipped:
        raise RunError(
            f"every checkpoint in {folder} is damaged ({', '.join(skipped)}). Delete that folder to train this run from its start."
        )
    return None


def _steps(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*"), reverse=True) if folder.is_dir() else []


def clear_checkpoints(folder: Path) -> None:
    """Delete the checkpoints of a finished training in `folder`, also those that a kill kept there, unless a process is at it."""
    if (folder / "checkpoint").exists():
        with contextlib.suppress(StudyError), locked(folder, "another process is at it"):
            shutil.rmtree(folder / "checkpoint", ignore_errors=True)


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
