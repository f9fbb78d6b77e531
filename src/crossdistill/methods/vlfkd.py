"""Visual-linguistic feature distillation, C2VKD for classification (Zheng et al., 2023, https://arxiv.org/abs/2310.07265)."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from crossdistill.core.registry import method
from crossdistill.core.types import Activations, Batch, Needs
from crossdistill.methods._vlfkd_seed import TOTAL_WEIGHTS, Seed
from crossdistill.methods._vlfkd_terms import AttentionPool, element_mean_kl, gram_distance, gram_rows, on_grid, target_kl
from crossdistill.ops.losses import cross_entropy, widened, without_autocast
from crossdistill.ops.parallel import gathered

Gram = Literal["image", "batch"]
Reduction = Literal["elements", "positions"]
C2VKD_ONLY = {"gram": "image", "reduction": "elements"}  # the settings that mode `seed` does not read, at their defaults
WEIGHTS = {
    # C2VKD: 0.1, 0.1, 0.5, and its decoupled loss 0.5 KL(teacher) + 0.5 KL(label): of two-way distributions the latter is `ce`.
    "c2vkd": {"ce": 0.5, "decoupled": 0.5, "global": 0.1, "patch": 0.1, "linguistic": 0.5},
    "seed": {"ce": 0.0, **TOTAL_WEIGHTS},
}


@without_autocast
def c2vkd_losses(student_map: Tensor, teacher_map: Tensor, *, pool_weight: Tensor) -> dict[str, Tensor]:
    """C2VKD's three feature terms, unweighted: {"global", "patch", "linguistic"}, of maps [batch, channels, height, width] on one grid.

    `global`: KL of softmaxes over channels at each position; `patch`: mean squared difference of Gram matrices over the positions
    of all images together; `linguistic`: KL of softmaxes of pooled embeddings, here the spatial mean times `pool_weight`
    [dim, channels]. Both KL are means over all elements, as in the authors' code, so that they shrink with the width.
    A position of all zeros (shorter than 1e-12) is an empty row of the Gram matrix, with a bounded gradient.
    Raises ValueError where the maps differ in shape.
    """
    student_map, teacher_map = widened(student_map), widened(teacher_map)
    if student_map.shape != teacher_map.shape:
        raise ValueError(f"the maps must share channels and grid: student {tuple(student_map.shape)}, teacher {tuple(teacher_map.shape)}")
    pool_weight = widened(pool_weight)
    student_embedding, teacher_embedding = (F.linear(m.mean(dim=(2, 3)), pool_weight) for m in (student_map, teacher_map))
    return {
        "global": element_mean_kl(student_map, teacher_map, dim=1),
        "patch": patch_loss(student_map, teacher_map, gram="batch"),
        "linguistic": element_mean_kl(student_embedding, teacher_embedding, dim=1),
    }


def patch_loss(student_map: Tensor, teacher_map: Tensor, *, gram: Gram) -> Tensor:
    """Mean squared difference of the Gram matrices of positions: of each image by itself, or of all images of the batch together."""
    student_rows, teacher_rows = gram_rows(student_map), gram_rows(teacher_map)
    if gram == "batch":
        student_rows, teacher_rows = student_rows.flatten(0, 1), teacher_rows.flatten(0, 1)
    return gram_distance(student_rows, teacher_rows)


class C2VKD(nn.Module):
    """C2VKD's terms; trained: the 1x1 projection of the student to the teacher's width. Frozen: the attention pool."""

    def __init__(
        self,
        student_width: int,
        teacher_width: int,
        rng: torch.Generator,
        *,
        gram: Gram,
        reduction: Reduction,
        dim: int,
        temperature: float,
    ) -> None:
        super().__init__()
        self.projection = nn.Conv2d(student_width, teacher_width, 1, bias=False)
        self.pool = AttentionPool(teacher_width, dim, rng)
        self.gram: Gram = gram
        self.temperature = temperature
        # What the authors' means divide by beyond the number of positions: channels, and the Gram matrix by channels - 1.
        widths = {"global": teacher_width, "patch": max(teacher_width - 1, 1) ** 2, "linguistic": dim}
        self.scale = widths if reduction == "positions" else dict.fromkeys(widths, 1)

    def forward(self, batch: Batch, student: Activations, teacher: Activations) -> dict[str, Tensor]:
        grid = student.stages["last"].grid
        student_map = self.projection(grid)
        teacher_map = on_grid(teacher.stages["last"].grid, (grid.shape[2], grid.shape[3]))
        compared = (gathered(student_map), gathered(teacher_map)) if self.gram == "batch" else (student_map, teacher_map)
        features = {
            "global": element_mean_kl(student_map, teacher_map, dim=1),
            "patch": patch_loss(*compared, gram=self.gram),
            "linguistic": element_mean_kl(self.pool(student_map), self.pool(teacher_map), dim=1, temperature=self.temperature),
        }
        return {
            "ce": cross_entropy(student.logits, batch.targets),
            "decoupled": target_kl(student.logits, teacher.logits, batch.labels),
            **{name: self.scale[name] * value for name, value in features.items()},
        }


def _weights(settings: Mapping[str, Any]) -> Mapping[str, float]:
    return WEIGHTS[settings["mode"]]


def _needs(settings: Mapping[str, Any], student: Mapping[str, Any], teacher: Mapping[str, Any]) -> Needs:
    return Needs(("last",), ("last",), refusal=_refusal(settings, student, teacher))


def _refusal(settings: Mapping[str, Any], student: Mapping[str, Any], teacher: Mapping[str, Any]) -> str | None:
    if settings["mode"] == "seed":
        other = [name for name, default in C2VKD_ONLY.items() if settings[name] != default]
        return f"`{other[0]}` belongs to mode c2vkd: mode seed has no use for it." if other else None
    for who, shapes in (("student", student), ("teacher", teacher)):
        if settings["gram"] == "image" and tuple(shapes.get("last", (0, 2, 2))[1:]) == (1, 1):
            return (
                f"the {who}'s last map is a single position at this image size, so that there are no pairs of positions to compare: "
                "use larger images, or `gram: batch`, which compares positions of different images."
            )
    return None


@method(paper="Zheng et al. 2023 (C2VKD)", weights=_weights, direction="CNN -> ViT; any pair works", needs=_needs)
def vlfkd(
    student: Any, teacher: Any, images: Any, rng: Any, *, mode: Literal["c2vkd", "seed"] = "c2vkd",
    gram: Gram = "image", reduction: Reduction = "elements",
    linguistic_dim: PositiveInt = 512, linguistic_temperature: PositiveFloat = 1.0,
) -> nn.Module:  # fmt: skip
    """Matches the last feature maps in three ways, and what both networks think of the true class against all others together.

    Mode `c2vkd`: the student's map goes through a trained 1x1 projection to the teacher's width, the teacher's map is resized
    (bilinear) to the student's grid; then the distribution over channels at each position (`global`), the Gram matrix of
    positions (`patch`) and a pooled embedding (`linguistic`) are compared. Weights 0.1 / 0.1 / 0.5 as in the authors' code. Its
    losses are means over all elements, channels included, so that with these weights the features hold less than a hundredth of the
    student's gradient at the start, and the logits lead; `reduction: positions` takes the usual KL (summed over channels) and Gram
    matrices of cosines, which act, and weigh the same at any width. The decoupled loss was not released: following the paper's
    text it is KL of [target, rest] to the teacher and to the label, half each, at temperature 1; its label half is the
    cross-entropy, and stands there as `ce` with weight 0.5.

    Adapted: Gram matrices of each image by itself (`gram: batch` is the authors' choice, pairs across images included). The pool's
    released weights do not exist: `linguistic` goes through a FROZEN attention pool whose weights are drawn at random for each
    run (its notes say so), on layer-normalised positions, so that at the authors' temperature 1 its softmax is neither flat nor saturated.

    Mode `seed`, for the record: the four terms of the notebook from which this project grew, weights 0.5 / 0.3 / 0.2 / 1, no
    cross-entropy. Its projections act on the TARGET, which admits collapse (both sides constant) where they are trained; as in the
    notebook, nothing but the student is trained here, and the patch projection is drawn anew after each step. It compares unit
    vectors by softmax, at temperature 1 with practically no gradient: a `linguistic_temperature` of 0.07 to 0.1 makes it act.
    The prediction is the plain head in both modes.
    """
    student_width, teacher_width = student.shapes()["last"][0], teacher.shapes()["last"][0]
    if mode == "seed":
        return Seed(student_width, teacher_width, dim=linguistic_dim, temperature=linguistic_temperature)
    note = f"vlfkd's linguistic term pools by random weights: the pool was {AttentionPool.provenance}."
    if note not in student.notes:
        student.notes.append(note)
    return C2VKD(student_width, teacher_width, rng, gram=gram, reduction=reduction, dim=linguistic_dim, temperature=linguistic_temperature)
