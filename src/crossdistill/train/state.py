"""All of a training that must be there to go on exactly where it stood: what is saved, whose it is, and how it is restored."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from crossdistill.core.errors import RunError
from crossdistill.core.records import EpochRow
from crossdistill.core.store import digest
from crossdistill.core.types import Clock
from crossdistill.train.checkpoint import load_checkpoint, pack_optimizer, save_checkpoint, unpack_optimizer

if TYPE_CHECKING:
    from crossdistill.train.loop import Training


def save_state(training: "Training") -> None:
    """Write a checkpoint: networks, objective, optimisers, averages, sums and history. Generators are keyed, so need no saving."""
    tensors = {f"network.{name}": value for name, value in training.network.state_dict().items()}
    if training.objective.module is not None:
        tensors |= {f"objective.{name}": value for name, value in training.objective.module.state_dict().items()}
    if training.average is not None:
        tensors |= {f"average.{name}": value for name, value in training.average.state_dict().items()}
    tensors |= {f"best.{name}": value for name, value in training.best.weights.items()}
    for name, optimizer in training.optimizers.items():
        tensors |= pack_optimizer(name, optimizer)
    tensors |= {f"sums.{name}": value for name, value in training.sums.values.items()}
    state = {
        "belongs_to": training.belongs_to,
        "history": [row.model_dump() for row in training.history],
        "seconds": training.seconds,
        "sums": list(training.sums.values),  # in their order, which is that of the log's terms: a file of tensors has its own
    }
    save_checkpoint(training.folder / "checkpoint", training.clock.step, tensors, state)


def restore_state(training: "Training") -> None:
    """Bring a new training to its newest whole checkpoint; nothing where there is none.

    Raises RunError for the checkpoint of another training.
    """
    checkpoint = load_checkpoint(training.folder / "checkpoint")
    if checkpoint is None:
        return
    for name in checkpoint.skipped:
        training.progress.line(f"  {training.description}: checkpoint {name} is damaged, going on from the one before")
    _refuse_another(training, checkpoint.state.get("belongs_to", {}))
    step = checkpoint.state["step"]
    training.clock = Clock(step, training.clock.steps, step // training.steps_per_epoch, training.clock.epochs)
    training.history = [EpochRow.model_validate(row) for row in checkpoint.state["history"]]
    training.seconds = checkpoint.state["seconds"]
    tensors = {name: value.to(training.device) for name, value in checkpoint.tensors.items()}
    training.network.load_state_dict(_under("network.", tensors))
    if training.objective.module is not None:
        training.objective.module.load_state_dict(_under("objective.", tensors))
    if training.average is not None:
        training.average.load_state_dict(_under("average.", tensors))
    training.best.weights = _under("best.", tensors)
    for name, optimizer in training.optimizers.items():
        unpack_optimizer(name, optimizer, tensors)
    training.sums.values = {name: tensors[f"sums.{name}"] for name in checkpoint.state["sums"]}
    training.due.reset(step)
    training.progress.line(f"  {training.description}: going on from step {step} of {training.clock.steps}")


def identity(training: "Training") -> dict[str, Any]:
    """What a training's checkpoints belong to, as plain JSON: another one of these makes another training.

    To be asked before a checkpoint is read: what of the network is not trained is hashed as it came.
    """
    from crossdistill.train.loop import ENGINE  # the loop imports this module

    objective, network = training.objective, training.network
    state = {} if objective.module is None else objective.module.state_dict()
    until = None if objective.until == 1 else objective.until  # to the end, as without it: so say keys too
    fixed = [(name, value) for name, value in network.named_parameters() if not value.requires_grad]
    return {
        "version of the training loop": ENGINE,
        "seeds": list(training.who),
        "recipe": {**training.recipe.identity(), "precision": training.precision},
        "images": [len(training.train_set), *training.train_set.size, _bytes_hash(training.batches.labels)],
        "network": [network.model_name, _shapes(network.state_dict()), _weights_hash(fixed) if fixed else None],
        "objective": [objective.weights and dict(objective.weights), objective.ramp_epochs, until, _shapes(state)],
        "teacher": _weights_hash(training.teacher.state_dict().items()) if training.teacher is not None else None,
    }


def _refuse_another(training: "Training", found: Mapping[str, Any]) -> None:
    mine = training.belongs_to
    differ = [name for name, value in mine.items() if found.get(name) != value]
    if differ:
        folder = training.folder / "checkpoint"
        raise RunError(
            f"{folder} belongs to another training than {training.description}: made with another {', another '.join(differ)}. "
            f"Delete {folder}, and the same command trains this run from its start; or put back what it was made with."
        )


def _shapes(state: Mapping[str, Tensor]) -> str:
    return digest([[name, list(value.shape), str(value.dtype)] for name, value in state.items()])


def _weights_hash(weights: Iterable[tuple[str, Tensor]]) -> str:
    return digest([[name, _bytes_hash(value)] for name, value in weights])


def _bytes_hash(values: Tensor) -> str:
    """SHA-256 of a tensor's values, whatever their layout in memory."""
    plain = values.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return hashlib.sha256(plain.numpy().data).hexdigest()[:16]


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
