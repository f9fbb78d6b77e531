"""Reading timm's models through the interface they share: `forward_intermediates`, `forward_head`, `get_classifier`."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from crossdistill.core.types import FeatureMap
from crossdistill.ops.attention import AttentionShape, attention_calls
from crossdistill.ops.layouts import grid_from_tokens, tokens_from_grid
from crossdistill.ops.taps import Reading, named_stages, recording, resolution_stages

HEADS = ("class", "distillation")


def is_timm_like(model: nn.Module) -> bool:
    """Whether the model offers timm's interface; our own CIFAR networks do too."""
    return all(hasattr(model, name) for name in ("forward_intermediates", "forward_features", "forward_head", "get_classifier"))


@dataclass(frozen=True)
class TimmReader:
    """Reads any model with timm's interface; built by `TimmReader.of`."""

    stage_indices: dict[str, int]
    n_prefix: int
    final: Literal["tokens", "NCHW", "NHWC"]  # the layout of the model's final features
    attention: AttentionShape | None = None

    @classmethod
    def of(cls, model: Any, images: Tensor) -> "TimmReader":
        """The reader for `model`, from one dry run on `images`."""
        with attention_calls(model) as calls:
            final, maps = model.forward_intermediates(images, output_fmt="NCHW")
        distinct = _without_repeats(maps)
        chosen = resolution_stages([maps[index].shape[-2] * maps[index].shape[-1] for index in distinct])
        return cls(
            named_stages([distinct[index] for index in chosen]),
            getattr(model, "num_prefix_tokens", 0),
            "tokens" if final.ndim == 3 else getattr(model, "output_fmt", "NCHW"),
            calls.shape(len(images), final.shape[1]) if final.ndim == 3 else None,
        )

    @property
    def stages(self) -> tuple[str, ...]:
        return tuple(self.stage_indices)

    @property
    def dense_refusal(self) -> None:
        return None  # `forward_head` takes a single position

    def classifiers(self, model: Any) -> dict[str, nn.Module]:
        found = model.get_classifier()
        return dict(zip(HEADS, found if isinstance(found, tuple) else (found,), strict=False))

    def read(self, model: Any, images: Tensor, maps: frozenset[str], *, pooled: bool) -> Reading:
        final, kept = self._features(model, images, maps)
        classifiers = self.classifiers(model)
        if not pooled and len(classifiers) == 1:
            return Reading({"class": model.forward_head(final)}, {}, kept)
        # Recorded rather than computed apart, so that the answer is the model's own whatever its head does.
        with recording(classifiers) as seen:
            model.forward_head(final)
        heads = {name: seen.outputs[name].flatten(1) for name in classifiers}
        return Reading(heads, {name: seen.inputs[name].flatten(1) for name in classifiers}, kept)

    def pooled_positions(self, model: Any, last: FeatureMap) -> Tensor:
        # Each position is shown to the head as an image of one position, so that norms and hidden layers of the head apply.
        batch, channels, height, width = last.grid.shape
        rows = tokens_from_grid(last.grid).reshape(-1, channels)
        if self.final == "tokens":
            pieces = rows[:, None].expand(-1, self.n_prefix + 1, -1)
        else:
            pieces = rows[:, None, None] if self.final == "NHWC" else rows[:, :, None, None]
        vectors = model.forward_head(pieces, pre_logits=True).flatten(1)
        return vectors.reshape(batch, height, width, -1).permute(0, 3, 1, 2)

    def _features(self, model: Any, images: Tensor, maps: frozenset[str]) -> tuple[Tensor, dict[str, FeatureMap]]:
        if not maps:
            return model.forward_features(images), {}
        wanted = [name for name in self.stage_indices if name in maps]
        # timm takes no empty list of indices; the deepest stage costs nothing, since it is computed anyway.
        indices = [self.stage_indices[name] for name in wanted] or [self.stage_indices["stage4"]]
        prefix = {"return_prefix_tokens": True} if self.n_prefix and _takes_prefix(model) else {}
        final, found = model.forward_intermediates(images, indices=indices, output_fmt="NCHW", **prefix)
        kept = {name: _feature_map(value) for name, value in zip(wanted, found, strict=False)}
        if "last" in maps:
            kept["last"] = self._last(final, _feature_map(found[-1]).grid.shape[-2:])
        return final, kept

    def _last(self, final: Tensor, size: Sequence[int]) -> FeatureMap:
        if self.final == "tokens":
            return grid_from_tokens(final, (size[0], size[1]), n_prefix=self.n_prefix)
        return FeatureMap(final.permute(0, 3, 1, 2) if self.final == "NHWC" else final)


def _takes_prefix(model: Any) -> bool:
    return "return_prefix_tokens" in inspect.signature(model.forward_intermediates).parameters


def _feature_map(value: Any) -> FeatureMap:
    return FeatureMap(*value) if isinstance(value, tuple) else FeatureMap(value)


def _without_repeats(maps: Sequence[Tensor]) -> list[int]:
    """Indices of the maps, without those that are the very tensor before them (a stage that was made an identity)."""
    return [index for index, value in enumerate(maps) if index == 0 or value is not maps[index - 1]]
