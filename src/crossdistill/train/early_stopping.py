"""Early stopping: a training ends where its validation accuracy has stopped rising, and leaves the weights of its best epoch."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from crossdistill.core.records import EpochRow


class BestWeights:
    """The weights after the best epoch, kept where there is a `patience`: the number of epochs to wait for a better one."""

    def __init__(self, patience: int | None) -> None:
        self.patience = patience
        self.weights: Mapping[str, Tensor] = {}

    def note(self, history: Sequence[EpochRow], network: nn.Module) -> None:
        """Keep the weights of the network where the last row of the history is the best one."""
        if self.patience is not None and best_epoch(history) == history[-1].epoch:
            self.weights = {name: value.clone() for name, value in network.state_dict().items()}

    def stops(self, history: Sequence[EpochRow]) -> bool:
        """Whether the patience is at an end."""
        return self.patience is not None and len(history) - best_epoch(history) >= self.patience

    def words(self, history: Sequence[EpochRow], *, averaged: bool) -> str:
        """Which weights a finished training leaves: "last", "averaged", "epoch 12" or "epoch 12, averaged"."""
        if not self.weights:
            return "averaged" if averaged else "last"
        return f"epoch {best_epoch(history)}{', averaged' if averaged else ''}"


def best_epoch(history: Sequence[EpochRow]) -> int:
    """The epoch (from 1) with the best validation accuracy, the first of several; 0 before there is one."""
    return max(history, key=lambda row: row.validation_accuracy).epoch if history else 0
