"""The types that flow between the layers (design: sources -> ImageSet -> Splits -> probes, training -> Observations -> Estimates).

Torch is imported for annotations only, so that the torch-free layers (metrics, compare, report) may use this file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

UNLABELLED = -1


@dataclass(frozen=True)
class ImageSet:
    """Labelled images, decoded once: uint8 [images, 3, height, width] in memory or memory-mapped."""

    images: np.ndarray
    labels: np.ndarray  # int64 [images], UNLABELLED (-1) where there is none
    ids: np.ndarray  # text [images]: file name or row, unique within its source
    class_names: tuple[str, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)  # source, fingerprint, what was skipped
    factors: Mapping[str, np.ndarray] = field(default_factory=dict)  # int64 [images] each, e.g. trifeature's shape

    def __post_init__(self) -> None:
        n = len(self.images)
        if self.images.dtype != np.uint8 or self.images.ndim != 4 or self.images.shape[1] != 3:
            raise ValueError(f"images must be uint8 [images, 3, height, width], got {self.images.dtype} {self.images.shape}")
        for name, values in {"labels": self.labels, "ids": self.ids, **self.factors}.items():
            if len(values) != n:
                raise ValueError(f"{n} images but {len(values)} {name}")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.images.shape[2], self.images.shape[3]

    @property
    def n_classes(self) -> int:
        return len(self.class_names)

    def subset(self, index: np.ndarray) -> ImageSet:
        """The images at the rows `index`, in that order."""
        return ImageSet(
            self.images[index],
            self.labels[index],
            self.ids[index],
            self.class_names,
            self.provenance,
            {name: values[index] for name, values in self.factors.items()},
        )


@dataclass(frozen=True)
class Splits:
    """What a study reads: training, validation (cut from training, deterministically) and test images.

    `extra` holds further labelled test sets that a source makes itself, such as trifeature's cue conflict.
    """

    train: ImageSet
    validation: ImageSet
    test: ImageSet
    extra: Mapping[str, ImageSet] = field(default_factory=dict)


@dataclass(frozen=True)
class FeatureMap:
    """Features on the image plane, the same for every family: grid [batch, channels, height, width], prefix tokens apart."""

    grid: Tensor
    prefix: Tensor | None = None  # [batch, prefix tokens, channels]: class, distillation and register tokens


@dataclass(frozen=True)
class Activations:
    """What one forward pass gave; only what was asked for is there. Floating point is float32 or wider."""

    logits: Tensor  # [batch, classes], the prediction according to the network's readout
    pooled: Tensor | None = None  # [batch, channels], the vector that enters the classifier
    stages: Mapping[str, FeatureMap] = field(default_factory=dict)  # stage1..stage4, last
    heads: Mapping[str, Tensor] = field(default_factory=dict)  # {head: [batch, classes]}, at least "class"
    dense: Mapping[str, Tensor] = field(default_factory=dict)  # {head: [batch, classes, height, width]}
    attention: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Clock:
    """Where training stands. `progress` runs from 0 to 1 over all steps."""

    step: int
    steps: int
    epoch: int
    epochs: int

    @property
    def progress(self) -> float:
        return self.step / self.steps


@dataclass(frozen=True)
class Batch:
    """One (micro-)batch. Row v of sample b stands at b * views + v."""

    images: Tensor  # uint8 or [0,1] [batch * views, 3, height, width], what the student sees
    teacher_images: Tensor  # [batch * teacher_views, 3, height, width]
    labels: Tensor  # int64 [batch]; the dominant class under mixup; -1 where there is none
    targets: Tensor  # [batch, classes]: carries label smoothing and mixup
    index: Tensor  # int64 [batch], row in the train split
    geometry_shared: Tensor  # bool [batch * views]: False where a student row shows other geometry than its teacher row
    clock: Clock
    views: int = 1
    teacher_views: int = 1
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext  # the recipe's precision, for a method's own large layers
    teacher_index: Tensor | None = None  # int64 [batch], row in the train split that the teacher is shown; None: `index`
    teacher_view: Tensor | None = None  # int64 [batch], which of its enumerated views; None: not one of a list


Views = Callable[["Tensor", "Tensor"], "tuple[Tensor, Tensor, Tensor]"]
"""(images [batch, ...], keys int64 [batch]) -> student rows, teacher rows, geometry_shared: what a method shows of each image."""


@dataclass(frozen=True)
class Needs:
    """What a method asks of the engine; the answer of its `needs(settings, student_shapes, teacher_shapes)`."""

    student_taps: tuple[str, ...] = ()
    teacher_taps: tuple[str, ...] = ()
    cacheable: bool = True  # False: what the teacher is shown is drawn anew; that views depend on their keys is found by trial, if often
    refusal: str | None = None  # one sentence: why this method makes no sense for this pair


@dataclass(frozen=True)
class WarmUp:
    """What a method trains on the teacher alone, before any student: a task of its own, shared by all students of that teacher.

    `make(teacher, settings)` gives the module, untrained; it is trained as an objective, `(batch, activations, None) -> {term:
    scalar}` with the frozen teacher's activations, and reaches the method's factory as `warm`, frozen. `settings` names the
    method's settings that it depends on; `recipe(settings)` gives the training settings that differ from the teachers' recipe.
    """

    make: Callable[[Any, Mapping[str, Any]], Any]
    recipe: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    settings: tuple[str, ...] = ()
    taps: tuple[str, ...] = ()
    views: Views | None = None


@dataclass(frozen=True)
class ProbeImages:
    """A probe at one level and draw. `kept_index` are the rows of the input that it could treat, in order."""

    images: np.ndarray  # uint8 [kept, 3, height, width]
    kept_index: np.ndarray  # int64 [kept]
    labels: np.ndarray  # int64 [kept]
    factors: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Observations:
    """What a network answered on one image set; every metric is computed from these."""

    logits: np.ndarray  # float32 [images, classes]; no classes where only the decisions are known
    labels: np.ndarray  # int64 [images]
    index: np.ndarray  # int64 [images], rows of the split
    factors: Mapping[str, np.ndarray] = field(default_factory=dict)
    split: str = "test"
    decided: np.ndarray | None = None  # int64 [images], decisions made elsewhere, whose logits nobody has

    @property
    def decisions(self) -> np.ndarray:
        """int64 [images], the class with the largest logit, or what was decided elsewhere."""
        return self.logits.argmax(axis=1) if self.decided is None else self.decided


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval, or the reason why there is none. Never NaN."""

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0
    unit: str = ""
    status: Literal["ok", "not_measurable"] = "ok"
    reason: str | None = None

    @classmethod
    def not_measurable(cls, reason: str, *, n: int = 0, unit: str = "") -> Estimate:
        """The estimate that is not there, with the reason in words."""
        return cls(None, n=n, unit=unit, status="not_measurable", reason=reason)
