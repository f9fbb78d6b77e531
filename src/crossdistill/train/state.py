"""All of a training that must be there to go on exactly where it stood: what is saved, and how it is restored."""

from typing import TYPE_CHECKING, Any

from torch import Tensor

from crossdistill.core.records import EpochRow
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
    for name, optimizer in training.optimizers.items():
        tensors |= pack_optimizer(name, optimizer)
    tensors |= {f"sums.{name}": value for name, value in training.sums.values.items()}
    state = {"history": [row.model_dump() for row in training.history], "seconds": training.seconds}
    save_checkpoint(training.folder / "checkpoint", training.clock.step, tensors, state)


def restore_state(training: "Training") -> None:
    """Bring a new training to its newest whole checkpoint; nothing where there is none."""
    checkpoint = load_checkpoint(training.folder / "checkpoint")
    if checkpoint is None:
        return
    for name in checkpoint.skipped:
        training.progress.line(f"  {training.description}: checkpoint {name} is damaged, going on from the one before")
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
    for name, optimizer in training.optimizers.items():
        unpack_optimizer(name, optimizer, tensors)
    training.sums.values = _under("sums.", tensors)
    training.due.reset(step)
    training.progress.line(f"  {training.description}: going on from step {step} of {training.clock.steps}")


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
