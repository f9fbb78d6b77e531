"""Cross-architecture projection and adversarial multi-view distillation, ViT to CNN (Liu et al., ACCV 2022, https://arxiv.org/abs/2207.05273)."""

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field
from torch import Tensor

from crossdistill.core.registry import method
from crossdistill.core.types import Needs, Views
from crossdistill.methods._capd_modules import Pair, PaperObjective, ReleaseObjective
from crossdistill.methods._capd_terms import (
    capd_attention,
    capd_discriminator,
    capd_features,
    capd_generator,
    capd_release,
    capd_value,
)
from crossdistill.methods._capd_views import multi_view

__all__ = ["capd", "capd_attention", "capd_discriminator", "capd_features", "capd_generator", "capd_release", "capd_value"]

Shapes = Mapping[str, tuple[int, ...]]

PAPER = {"ce": 1.0, "attention": 1.0, "value": 1.0, "features": 1.0, "generator": 0.1}
PAPER_ONLY = {
    "generator": "non_saturating",
    "view_probability": 0.5,
}  # the settings that variant `release` does not read, at their defaults
RELEASE = {"ce": 1.0, "attention": 0.2, "value": 0.05, "features": 0.05, "logits": 1.0, "token": 1.0}


def nearest_stage(student: Shapes, grid: tuple[int, int]) -> str:
    """The student's stage whose number of positions is closest in ratio to the teacher's grid; the deeper of two alike.

    >>> nearest_stage({"stage3": (8, 14, 14), "stage4": (16, 7, 7), "logits": (10,)}, (16, 16))
    'stage3'
    """
    stages = sorted(name for name in student if name.startswith("stage"))
    return min(reversed(stages), key=lambda name: abs(math.log(math.prod(student[name][1:]) / math.prod(grid))))


def _needs(settings: Mapping[str, Any], student: Shapes, teacher: Shapes) -> Needs:
    if "attention" not in teacher:
        return Needs(
            refusal="CAPD needs a teacher whose last block attends over all its patches (a ViT), by attention that q, k and v alone "
            "determine (no windows, masks or position biases): these are what the student learns. This teacher has no such attention."
        )
    idle = [name for name, default in PAPER_ONLY.items() if settings[name] != default] if settings["variant"] == "release" else []
    if idle:
        return Needs(refusal=f"`{idle[0]}` belongs to variant paper: variant release has no use for it.")
    _, height, width = teacher["last"]
    pooled = ("pooled",) if settings["variant"] == "release" else ()
    return Needs((nearest_stage(student, (height, width)), *pooled), ("attention", "last", *pooled), cacheable=False)


def _views(settings: Mapping[str, Any]) -> Views | None:
    shown = settings["variant"] == "paper" and settings["view_probability"] > 0
    return multi_view(settings["view_probability"]) if shown else None


def _weights(settings: Mapping[str, Any]) -> Mapping[str, float]:
    return RELEASE if settings["variant"] == "release" else PAPER


@method(paper="Liu et al. 2022", weights=_weights, direction="ViT -> CNN; a ViT may be the student too", needs=_needs, views=_views)
def capd(
    student: Any, teacher: Any, images: Any, rng: Any, *,
    variant: Literal["paper", "release"] = "paper",
    generator: Literal["non_saturating", "saturating"] = "non_saturating",
    view_probability: Annotated[float, Field(ge=0, le=1)] = 0.5,
) -> Callable[..., dict[str, Tensor]]:  # fmt: skip
    """Teaches a CNN to attend like a ViT and to give its patch features, against a discriminator, on transformed images.

    The student's stage whose grid is closest to the teacher's is brought to that grid. Three convolutions turn it into queries,
    keys and values, half of whose elements are replaced by the teacher's in each step; `attention` matches the attention output
    and `value` the products v v^T with those of the teacher's last block. A linear layer for each 4 x 4 neighbourhood turns the
    same map into patch features, which `features` matches with the teacher's after its final norm, and `generator` asks that a
    discriminator, trained beside on 8 random positions of each image in a step and at a hundredth of the learning rate (as in
    the authors' code), take them for the teacher's. With
    `view_probability` an image is shown jittered, masked, rotated or cropped; the teacher sees the original in the first two
    cases and the same image in the others. At test time only the student's own head is left.

    Squares are averaged over elements, so that weights do not depend on resolution; each weighs 1, and 0.1 for the generator,
    whose weight the paper does not give. The released code's factors 0.2, 0.05 and 0.05 for attention, value and features are
    worth trying: `weights: {attention: 0.2, value: 0.05, features: 0.05}`. The cross-entropy is always there.

    `variant: release` is the authors' code, which differs: head-averaged scores before the softmax, one linear layer for q, k
    and v, no replacing, no transformed views, and squared errors between the logits and between the vectors that enter the
    classifiers (the ViT's class token), all ramped up from epoch 25 to 35 of 120 (scaled to the training's length). Its
    adversarial term reached nothing and is left out. The ramp starts after 21 % of the training and is whole after 29 %: an `until`
    of this variant must be above 0.3, and one of 0.2 would never distil.

    A ViT may be the student too: its patch grid is the map. The teacher needs attention over all its patches,
    which q, k and v alone determine: no windows, masks or position biases (Swin, BEiT).
    """
    shapes, taught = student.shapes(), teacher.shapes()
    heads, _, head_dim = taught["attention"]
    channels, height, width = taught["last"]
    stage = nearest_stage(shapes, (height, width))
    pair = Pair(stage, shapes[stage][0], shapes["pooled"][0], channels, taught["pooled"][0], (height, width), heads, head_dim)
    return ReleaseObjective(pair) if variant == "release" else PaperObjective(pair, generator)
