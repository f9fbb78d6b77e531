"""The places where a network may be read, named alike in every architecture, and how they are found."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn

from crossdistill.core.errors import unknown_name
from crossdistill.core.types import FeatureMap

STAGES = ("stage1", "stage2", "stage3", "stage4")
TAPS = (*STAGES, "last", "pooled", "dense")
ATTENTION = "attention"  # a tap of those networks alone whose last block attends over all their patches


@dataclass(frozen=True)
class Reading:
    """What one pass through a model gave, in the model's own precision."""

    heads: Mapping[str, Tensor]  # {head: [batch, classes]}
    pooled: Mapping[str, Tensor] = field(default_factory=dict)  # {head: [batch, channels]}, what entered each head
    maps: Mapping[str, FeatureMap] = field(default_factory=dict)  # the stages asked for, and `last`


class Reader(Protocol):
    """How one kind of model is read. A reader holds names and numbers, never modules, so that a network may be copied and moved."""

    @property
    def stages(self) -> tuple[str, ...]:
        """The stage taps that this model has, shallowest first."""
        ...

    @property
    def n_prefix(self) -> int:
        """The number of class, distillation and register tokens."""
        ...

    @property
    def attention(self) -> tuple[int, int, int] | None:
        """(heads, tokens, head_dim) of the last block's self-attention over all tokens; None where there is none to read."""
        ...

    @property
    def dense_refusal(self) -> str | None:
        """Why there are no dense logits, in words, or None where there are."""
        ...

    def classifiers(self, model: nn.Module) -> dict[str, nn.Module]:
        """The modules that turn a pooled vector into logits, by head; "class" comes first."""
        ...

    def read(self, model: nn.Module, images: Tensor, maps: frozenset[str], *, pooled: bool) -> Reading:
        """One forward pass, keeping the maps asked for; `pooled` also keeps what entered the heads."""
        ...

    def pooled_positions(self, model: nn.Module, last: FeatureMap) -> Tensor:
        """What would enter the classifier if one position of `last` were the whole image: [batch, channels, height, width]."""
        ...


def checked_taps(taps: Iterable[str], known: Sequence[str]) -> frozenset[str]:
    """The taps as a set; raises UnknownNameError, with the nearest name, for one that the network has not."""
    for tap in taps:
        if tap not in known:
            raise unknown_name("tap of this network", tap, known)
    return frozenset(taps)


def block_stages(n_blocks: int) -> list[int]:
    """The blocks (from 0) of a network of equal blocks after which stage1 to stage4 are read: 1/6, 1/3, 5/6 and all of them.

    >>> block_stages(12), block_stages(6), block_stages(4), block_stages(2)
    ([1, 3, 9, 11], [0, 1, 4, 5], [0, 1, 2, 3], [0, 1])
    """
    if n_blocks <= 4:
        return list(range(n_blocks))
    after: list[int] = []
    for stage, share in enumerate((1 / 6, 1 / 3, 5 / 6, 1.0), start=1):
        earliest = after[-1] + 1 if after else 1
        latest = n_blocks - (4 - stage)  # leaves a block for each stage that follows
        after.append(min(max(round(n_blocks * share), earliest), latest))
    return [block - 1 for block in after]


def resolution_stages(areas: Sequence[int]) -> list[int]:
    """The outputs to read as stages, of outputs that cover `areas` positions, in order of depth: the last one of each resolution.

    More than four resolutions: the earliest are dropped. Fewer: the shallowest other outputs come in, so a CIFAR ResNet of
    three stages has its stem as stage1. All outputs of one resolution: by depth, as `block_stages`.

    >>> resolution_stages([256, 64, 16, 4, 1]), resolution_stages([1024, 1024, 256, 64]), resolution_stages([4] * 6)
    ([1, 2, 3, 4], [0, 1, 2, 3], [0, 1, 4, 5])
    """
    if len(set(areas)) == 1:
        return block_stages(len(areas))
    last_of_each = sorted({area: index for index, area in enumerate(areas)}.values())
    others = [index for index in range(len(areas)) if index not in last_of_each]
    missing = max(4 - len(last_of_each), 0)
    return sorted(last_of_each[-4:] + others[:missing])


def named_stages(indices: Sequence[int]) -> dict[str, int]:
    """Stage names for the chosen outputs; the deepest is always stage4, so a network of two blocks has stage3 and stage4.

    >>> named_stages([5, 7])
    {'stage3': 5, 'stage4': 7}
    """
    return dict(zip(STAGES[4 - len(indices) :], indices, strict=True))


@dataclass
class Recorded:
    """What the recorded modules took and gave in the last call."""

    inputs: dict[str, Tensor] = field(default_factory=dict)
    outputs: dict[str, Tensor] = field(default_factory=dict)


def first_tensor(value: Any) -> Tensor | None:
    """The tensor of a module's output: itself, or the first of a tuple."""
    if isinstance(value, tuple | list) and value:
        value = value[0]
    return value if isinstance(value, Tensor) else None


@contextlib.contextmanager
def recording(modules: Mapping[str, nn.Module]) -> Iterator[Recorded]:
    """Keep the inputs and outputs of `modules` while the block runs."""
    recorded = Recorded()

    def keep(name: str):
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            taken, given = first_tensor(inputs), first_tensor(output)
            if taken is not None:
                recorded.inputs[name] = taken
            if given is not None:
                recorded.outputs[name] = given

        return hook

    handles = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
    try:
        yield recorded
    finally:
        for handle in handles:
            handle.remove()
