"""Several processes that share each batch: which rows are whose, and what they tell each other. With one process nothing is sent.

No network is wrapped: after the backward pass one coalesced all-reduce averages the gradients, and buffers are never broadcast.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class World:
    """This process among those that train together; `rank` 0 writes what is kept."""

    rank: int = 0
    size: int = 1


def world() -> World:
    """This process's place; alone where no process group was started."""
    return World()


def own_rows(index: Tensor) -> Tensor:
    """This process's share of the rows of a (micro-)batch: the ranks' shares, one after the other, are the whole."""
    return index


def gathered(rows: Tensor) -> Tensor:
    """The rows of all ranks, one after the other; gradients flow back to every rank's own, summed over what the ranks made of them.

    Averaged over the ranks, as `average_gradients` does, that is the gradient of a loss of the whole batch that each rank takes.
    """
    return rows


def drawn_rows(draw: Callable[[int], Tensor], n_rows: int) -> Tensor:
    """Random rows for this process's share of a batch: `draw(rows)` draws those of the whole batch, so that all ranks draw alike.

    For use inside an objective, where every rank's generator stands at the same place.
    """
    return draw(n_rows)


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace the gradients by their means over the ranks, in one all-reduce."""


def averaged(value: Tensor) -> Tensor:
    """The mean over the ranks of a tensor without gradient, the same on each."""
    return value


def agreed(flag: bool) -> bool:
    """Whether any rank raised its flag: all ranks get the same answer."""
    return flag


def from_first(value: float) -> float:
    """Rank 0's value, on every rank."""
    return value
