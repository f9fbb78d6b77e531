"""Reading any other classifier (torchvision, transformers, a user's own) through forward hooks on modules that one dry run finds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from crossdistill.core.errors import SettingError
from crossdistill.core.types import FeatureMap
from crossdistill.ops.attention import AttentionCalls, AttentionShape, attention_calls
from crossdistill.ops.layouts import grid_from_tokens, tokens_from_grid
from crossdistill.ops.taps import STAGES, Reading, block_stages, named_stages, recording, resolution_stages
from crossdistill.ops.trace import Call, Layout, Map, Trace, grid_size, trace

Pooling = Literal["modules", "mean", "first token"]


@dataclass(frozen=True)
class Tapped:
    """A module whose output is a map, and how to read it as one."""

    module: str
    layout: Layout
    size: tuple[int, int]
    n_prefix: int = 0

    def feature_map(self, output: Tensor) -> FeatureMap:
        if self.layout == "tokens":
            return grid_from_tokens(output, self.size, n_prefix=self.n_prefix)
        return FeatureMap(output.permute(0, 3, 1, 2) if self.layout == "NHWC" else output)


@dataclass(frozen=True)
class HookReader:
    """Reads a model by module names; built by `HookReader.of`."""

    tapped: Mapping[str, Tapped]  # stage1..stage4 as far as found, and `last`
    classifier: str
    neck: tuple[str, ...]  # the modules between `last` and the classifier
    pooling: Pooling | None  # how `last` becomes what enters the classifier; None: not found
    attention: AttentionShape | None = None

    @classmethod
    def of(cls, model: nn.Module, images: Tensor) -> "HookReader":
        """The reader for `model`, from one dry run on `images`. Raises SettingError where the model has no linear classifier."""
        with attention_calls(model) as calls:
            seen = trace(model, images)
        classifier = seen.classifier()
        tapped = _token_taps(seen) or _map_taps(seen)
        if not tapped:
            raise SettingError(
                f"{type(model).__name__} has no feature maps that can be read: no module gives [batch, channels, height, width] or tokens"
            )
        neck = tuple(call.name for call in seen.after(tapped["last"].module) if call.is_leaf and call.order < classifier.order)
        reader = cls(tapped, classifier.name, neck, None)
        last = tapped["last"].feature_map(seen.output(tapped["last"].module))
        pooling = reader._pooling_that_fits(model, last, classifier.taken)
        if pooling is None and len(tapped) < len(STAGES) + 1:
            raise SettingError(
                f"the feature maps of {type(model).__name__} were not found: what its classifier reads comes from none of its maps"
            )
        return cls(tapped, classifier.name, neck, pooling, _attention_shape(calls, tapped["last"], len(images)))

    @property
    def stages(self) -> tuple[str, ...]:
        return tuple(name for name in self.tapped if name != "last")

    @property
    def n_prefix(self) -> int:
        return self.tapped["last"].n_prefix

    @property
    def dense_refusal(self) -> str | None:
        """Why there are no dense logits, in words, or None where there are."""
        if self.pooling is not None:
            return None
        return (
            "dense logits need a head that can be applied to one position, "
            "and what lies between this model's last map and its classifier cannot be"
        )

    def classifiers(self, model: nn.Module) -> dict[str, nn.Module]:
        return {"class": model.get_submodule(self.classifier)}

    def read(self, model: nn.Module, images: Tensor, maps: frozenset[str], *, pooled: bool) -> Reading:
        names = {self.tapped[name].module for name in maps} | ({self.classifier} if pooled else set())
        with recording({name: model.get_submodule(name) for name in names}) as seen:
            logits = answer_of(model(images))
        kept = {name: tap.feature_map(seen.outputs[tap.module]) for name, tap in self.tapped.items() if name in maps}
        vectors = {"class": seen.inputs[self.classifier]} if pooled else {}
        return Reading({"class": logits}, vectors, kept)

    def pooled_positions(self, model: nn.Module, last: FeatureMap) -> Tensor:
        if self.pooling is None:
            raise SettingError(str(self.dense_refusal))
        batch, channels, height, width = last.grid.shape
        rows = tokens_from_grid(last.grid).reshape(-1, channels)
        pieces = rows[:, :, None, None] if self.pooling == "modules" else rows
        vectors = self._through_neck(model, pieces, self.pooling).flatten(1)
        return vectors.reshape(batch, height, width, -1).permute(0, 3, 1, 2)

    def _pooling_that_fits(self, model: nn.Module, last: FeatureMap, pooled: Tensor) -> Pooling | None:
        """The first way to pool `last` that gives the very vector which entered the classifier in the dry run."""
        pooled_by: dict[Pooling, Tensor] = {"modules": last.grid, "mean": last.grid.mean(dim=(2, 3))}
        if last.prefix is not None:
            pooled_by["first token"] = last.prefix[:, 0]
        for pooling, taken in pooled_by.items():
            try:
                vectors = self._through_neck(model, taken, pooling)
                self._through_neck(model, last.grid[:, :, :1, :1] if pooling == "modules" else taken, pooling)
            except (RuntimeError, ValueError, TypeError, IndexError):
                continue  # the modules in between take another layout: this is not how the model pools
            if vectors.shape == pooled.shape and (vectors.is_meta or torch.allclose(vectors, pooled, rtol=1e-4, atol=1e-5)):
                return pooling
        return None

    def _through_neck(self, model: nn.Module, values: Tensor, pooling: Pooling) -> Tensor:
        for name in self.neck:
            module = model.get_submodule(name)
            if pooling != "modules" and "Pool" in type(module).__name__:
                continue
            values = module(values.flatten(1) if isinstance(module, nn.Linear) else values)
        return values.flatten(1)


def _attention_shape(calls: AttentionCalls, last: Tapped, n_images: int) -> AttentionShape | None:
    if last.layout != "tokens":
        return None
    return calls.shape(n_images, last.n_prefix + last.size[0] * last.size[1])


def answer_of(output: Any) -> Tensor:
    """The logits of a model's answer: a tensor, an output with `.logits` (transformers, GoogLeNet), or the first of a tuple."""
    answer = getattr(output, "logits", output)
    answer = answer[0] if isinstance(answer, tuple | list) else answer
    if not isinstance(answer, Tensor):
        raise SettingError(
            f"a classifier gives logits [batch, classes], an output with .logits, or a tuple of them; got {type(output).__name__}"
        )
    return answer


def _token_taps(seen: Trace) -> dict[str, Tapped]:
    """The taps of a network of equal token blocks, or none where there are no such blocks."""
    blocks, grid = seen.token_blocks(), seen.patch_grid()
    if len(blocks) < 2 or grid is None:
        return {}
    n_prefix = blocks[0].given.shape[1] - grid[0] * grid[1]
    if n_prefix < 0:
        return {}
    if seen.narrows_after(blocks[-1]):
        return {}
    norms = [
        call for call in seen.after(blocks[-1].name) if "Norm" in type(call.module).__name__ and call.given.shape == blocks[-1].given.shape
    ]
    last = norms[-1] if norms else blocks[-1]
    chosen = named_stages(block_stages(len(blocks)))
    taps = {name: Tapped(blocks[index].name, "tokens", grid, n_prefix) for name, index in chosen.items()}
    return {**taps, "last": Tapped(last.name, "tokens", grid, n_prefix)}


def _map_taps(seen: Trace) -> dict[str, Tapped]:
    """The taps of a network that narrows its maps by and by: the last output of each resolution."""
    maps = seen.trunk_maps()
    if not maps:
        return {}
    chosen = resolution_stages([size[0] * size[1] for _, size in maps]) if len(maps) > 1 else [0]
    taps = {name: _tapped(*maps[index], seen.images) for name, index in named_stages(chosen).items()}
    deepest = _before_final_norm(maps)
    if deepest is not None:
        taps["stage4"] = _tapped(*deepest, seen.images)
    return {**taps, "last": _tapped(*maps[-1], seen.images)}


def _before_final_norm(maps: Sequence[Map]) -> Map | None:
    """The last block of a network that ends in a LayerNorm, possibly turned to another layout (Swin); None for any other."""
    normed = False
    for call, size in reversed(maps):
        if not call.is_leaf:
            return (call, size) if normed and size == maps[-1][1] else None
        if isinstance(call.module, nn.LayerNorm):
            normed = True
        elif next(call.module.parameters(), None) is not None:
            return None
    return None


def _tapped(call: Call, size: tuple[int, int], images: Tensor) -> Tapped:
    found = grid_size(call.given, images)
    assert found is not None, "a map of the trunk has a grid"
    return Tapped(call.name, found[0], size)
