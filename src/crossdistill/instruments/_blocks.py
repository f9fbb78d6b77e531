"""The self-attention of every block over all tokens, or the reason why a network has none to read."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from crossdistill.core.errors import SettingError
from crossdistill.instruments._passes import undisturbed
from crossdistill.ops.attention import SelfAttention, attention_calls
from crossdistill.ops.network import Network

T = TypeVar("T")


def attending_grid(network: Network) -> tuple[int, int]:
    """(rows, columns) of the network's patches. Raises SettingError where it has none, so that none can attend."""
    grid = network.patch_grid
    if grid is None:
        raise SettingError(
            f"{_called(network)} has no patches that could attend to one another: it is convolutional, or its patches overlap"
        )
    return grid


@torch.no_grad()
def of_each_block(network: Network, images: Tensor, grid: tuple[int, int], reduced: Callable[[Tensor], T]) -> list[T]:
    """`reduced(scores)` of every block's self-attention over all tokens, first block first; `grid` are the patches.

    Scores are [images, heads, tokens, tokens]; the softmax over the last axis is the attention, and patches are the last tokens.
    Raises SettingError where blocks attend within windows or over maps of several sizes, or where no attention can be seen.
    """
    called = _called(network)
    n_tokens = network.n_prefix + grid[0] * grid[1]
    blocks: list[T] = []

    def keep(attention: SelfAttention | None) -> None:
        if attention is None:
            raise SettingError(f"{called} has attention that is not of each token to all tokens, or whose scores cannot be read")
        n_rows, seen = attention.query.shape[0], attention.query.shape[2]
        if (n_rows, seen) != (len(images), n_tokens):
            raise SettingError(
                f"{called} attends within windows or over maps of several sizes, not over all its patches: "
                f"{seen} tokens in {n_rows / len(images):g} groups, where there are {n_tokens}"
            )
        blocks.append(reduced(attention.scores()))

    with undisturbed(network, images), attention_calls(network.model, keep):
        network(images)
    if not blocks:
        raise SettingError(f"no self-attention was seen in {called}: it has none, or computes it in steps of its own")
    return blocks


def _called(network: Network) -> str:
    return network.model_name or type(network.model).__name__
