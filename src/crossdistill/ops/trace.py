"""One dry run of a model, and what it shows: which modules ran, in which order, and what they gave."""

import itertools
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from crossdistill.core.errors import SettingError
from crossdistill.ops.taps import first_tensor

Layout = Literal["NCHW", "NHWC", "tokens"]


@dataclass(frozen=True)
class Call:
    """One module's call; `order` counts finished calls, so a container comes after what it contains."""

    name: str
    module: nn.Module
    taken: Tensor
    given: Tensor
    order: int

    @property
    def is_leaf(self) -> bool:
        return next(self.module.children(), None) is None

    @property
    def parent(self) -> str:
        return self.name.rpartition(".")[0]


Map = tuple[Call, tuple[int, int]]
"""A call that gave a map, and the map's (height, width)."""


@dataclass(frozen=True)
class Trace:
    """The calls of one dry run, of modules that ran exactly once, in the order in which they finished."""

    calls: tuple[Call, ...]
    images: Tensor

    def output(self, name: str) -> Tensor:
        return next(call.given for call in self.calls if call.name == name)

    def after(self, name: str) -> list[Call]:
        """The calls that finished after `name`, without those that contain it."""
        order = next(call.order for call in self.calls if call.name == name)
        return [call for call in self.calls if call.order > order and not name.startswith(f"{call.name}.")]

    def classifier(self) -> Call:
        """The last linear layer. Raises SettingError where the model does not end in one."""
        linear = [call for call in self.calls if isinstance(call.module, nn.Linear) and call.given.ndim == 2]
        if not linear:
            raise SettingError("the model has no linear classifier on a pooled vector; give it an nn.Linear head, or use a timm model")
        return linear[-1]

    def token_blocks(self) -> list[Call]:
        """The longest row of sibling modules of one class that all give tokens [batch, tokens, channels] of one shape."""
        rows: dict[Any, list[Call]] = defaultdict(list)
        for call in self.calls:
            if call.given.ndim == 3 and not call.is_leaf and len(call.given) == len(self.images):
                rows[call.parent, type(call.module), call.given.shape].append(call)
        return max(rows.values(), key=len, default=[])

    def narrows_after(self, block: Call) -> bool:
        """Whether fewer tokens, but more than one, come after `block`: it is then no last block, but one of a stage."""
        tokens = [call.given.shape[1] for call in self.after(block.name) if call.given.ndim == 3 and len(call.given) == len(self.images)]
        return any(1 < n < block.given.shape[1] for n in tokens)

    def patch_grid(self) -> tuple[int, int] | None:
        """(height, width) of the last convolution's map: the patches, in a network of tokens."""
        maps = [call.given for call in self.calls if isinstance(call.module, nn.Conv2d) and call.given.ndim == 4]
        return (maps[-1].shape[2], maps[-1].shape[3]) if maps else None

    def trunk_maps(self) -> list[Map]:
        """The distinct maps, with their (height, width), from which the resolution never rises again.

        Squeeze-and-excitation and the like are side roads: a larger map follows them. A resolution at which nothing convolves,
        mixes channels or takes a maximum is the average pooling of the head.
        """
        found = [
            (call, grid[1]) for call in self.calls if (grid := grid_size(call.given, self.images)) and not _is_adaptive_pool(call.module)
        ]
        trunk: list[Map] = []
        largest = 0
        for call, size in reversed(found):
            if size[0] * size[1] >= largest:
                largest = size[0] * size[1]
                trunk.append((call, size))
        trunk.reverse()
        mixed = {size for call, size in trunk if isinstance(call.module, nn.Conv2d | nn.Linear | nn.MaxPool2d)}
        return _without_aliases(self._without_insides([(call, size) for call, size in trunk if size in mixed]))

    def _without_insides(self, maps: list[Map]) -> list[Map]:
        """The maps, without those inside a block that goes on to the next resolution: what came before the block is the better map.

        A bottleneck, for one, convolves at the old resolution before it strides.
        """
        sizes = list(dict.fromkeys(size for _, size in maps))
        following = dict(itertools.pairwise(sizes))
        blocks: dict[str, tuple[int, int]] = {}
        for call in self.calls:
            entered, left = grid_size(call.taken, self.images), grid_size(call.given, self.images)
            if entered and left and call.taken is not self.images and following.get(entered[1]) == left[1]:
                blocks[call.name] = entered[1]
        return [(call, size) for call, size in maps if not any(blocks.get(outer) == size for outer in _containers(call.name))]


def _containers(name: str) -> list[str]:
    """The names of the modules that contain `name`.

    >>> _containers("layer1.0.conv1")
    ['layer1', 'layer1.0']
    """
    parts = name.split(".")
    return [".".join(parts[:depth]) for depth in range(1, len(parts))]


def trace(model: nn.Module, images: Tensor) -> Trace:
    """Run the model once and return what its modules gave. The caller sets eval mode and no_grad."""
    calls: list[Call] = []
    n_calls: Counter[str] = Counter()

    def keep(name: str):
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            n_calls[name] += 1
            taken, given = first_tensor(inputs), first_tensor(output)
            if given is not None:
                calls.append(Call(name, module, given if taken is None else taken, given, len(calls)))

        return hook

    handles = [module.register_forward_hook(keep(name)) for name, module in model.named_modules() if name]
    try:
        model(images)
    finally:
        for handle in handles:
            handle.remove()
    return Trace(tuple(call for call in calls if n_calls[call.name] == 1), images)


def grid_size(values: Tensor, images: Tensor) -> tuple[Layout, tuple[int, int]] | None:
    """The layout and (height, width) of a map, or None for what is no map of these images.

    The side that keeps the images' aspect ratio is the image plane; [batch, channels, height, width] where both could be.
    """
    if values.ndim != 4 or len(values) != len(images):
        return None
    height, width = images.shape[-2:]

    def like_images(a: int, b: int) -> bool:
        return a <= height and b <= width and abs(a * width - b * height) <= max(height, width)

    if like_images(values.shape[2], values.shape[3]):
        return "NCHW", (values.shape[2], values.shape[3])
    if like_images(values.shape[1], values.shape[2]):
        return "NHWC", (values.shape[1], values.shape[2])
    return None


def _is_adaptive_pool(module: nn.Module) -> bool:
    return isinstance(module, nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d)


def _without_aliases(maps: list[Map]) -> list[Map]:
    """The maps, keeping of those that share memory (a container and its last module, an in-place activation) the one that finished last."""
    latest = {(call.given.data_ptr() if not call.given.is_meta else call.order, call.given.shape): call.order for call, _ in maps}
    return [(call, size) for call, size in maps if call.order in latest.values()]
