"""Train and eval mode, kept where they belong: an evaluation restores what it found, a teacher never trains."""

import contextlib
from collections.abc import Iterator
from typing import TypeVar

from torch import nn

M = TypeVar("M", bound=nn.Module)


@contextlib.contextmanager
def evaluating(network: M) -> Iterator[M]:
    """Eval mode for the block; afterwards every submodule is in the mode it was in before, frozen parts included."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield network
    finally:
        for module, training in modes:
            module.training = training


def frozen(network: M) -> M:
    """The network in eval mode for good: no parameter asks for a gradient, and `train()`, its own or a parent's, changes nothing.

    `requires_grad=False` alone would not do: in train mode BatchNorm's running statistics move without any gradient.
    """
    network.eval().requires_grad_(False)
    for module in network.modules():
        # An instance attribute, since a parent's train() calls each child's train().
        module.train = lambda mode=True, module=module: module  # type: ignore[method-assign]
    return network
