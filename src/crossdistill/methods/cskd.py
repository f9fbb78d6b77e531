"""CSKD: a CNN's logits at every position teach a ViT's patch tokens (Zhao et al., ICCV 2023, https://arxiv.org/abs/2307.08500)."""

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import torch.nn.functional as F
from pydantic import Field, PositiveFloat
from torch import Tensor

from crossdistill.core.registry import method
from crossdistill.core.types import Activations, Batch, Clock, Needs
from crossdistill.methods._distillation_head import (
    HEAD,
    Kind,
    add_distillation_head,
    check_settings,
    check_student,
    distillation_loss,
    idle_temperature,
)
from crossdistill.methods._logits import tempered_kl
from crossdistill.ops.layouts import grid_from_tokens, to_common_grid, tokens_from_grid
from crossdistill.ops.losses import cross_entropy, label_cross_entropy, widened

Schedule = Literal["linear", "x2", "cosine"]
DECAYS: dict[str, Callable[[float], float]] = {
    "linear": lambda x: 1 - x,
    "x2": lambda x: (1 - x) ** 2,
    "cosine": lambda x: math.cos(math.pi * x / 2),
}


def decay_at(progress: float, schedule: Schedule) -> float:
    """a(t), the share of the position's own logits in its target: 1 at progress 0, 0 at progress 1.

    >>> [round(decay_at(0.5, schedule), 3) for schedule in ("linear", "x2", "cosine")]
    [0.5, 0.25, 0.707]
    """
    return DECAYS[schedule](progress)


def dense_loss(student: Tensor, teacher: Tensor, teacher_logits: Tensor, *, decay: float, kind: Kind, temperature: float) -> Tensor:
    """Loss of the student's dense logits [batch, classes, height, width] against the teacher's, mixed with its answer [batch, classes].

    The target of a position is decay x the teacher's logits there + (1 - decay) x its logits of the image. The finer grid is pooled to
    the coarser. Hard: cross-entropy with the target's decision, mean over images and positions. Soft: T^2 KL(target || student), summed
    over positions, mean over images. Raises ValueError where the three differ in images or classes.
    """
    if not student.shape[:2] == teacher.shape[:2] == teacher_logits.shape:
        raise ValueError(
            f"dense logits of student and teacher and the teacher's logits must share images and classes, "
            f"got {tuple(student.shape)}, {tuple(teacher.shape)} and {tuple(teacher_logits.shape)}"
        )
    student, teacher = widened(student), widened(teacher)
    target = decay * teacher + (1 - decay) * widened(teacher_logits)[:, :, None, None]
    student, target = to_common_grid(student, target)
    rows, target_rows = (tokens_from_grid(grid).flatten(0, 1) for grid in (student, target))  # batch * positions, classes
    if kind == "hard":
        return F.cross_entropy(rows, target_rows.argmax(dim=1))
    return temperature**2 * target[0, 0].numel() * tempered_kl(rows, target_rows, temperature).mean()


def cskd_losses(
    class_logits: Tensor, distillation_logits: Tensor, dense_logits: Tensor, teacher_dense_logits: Tensor, labels: Tensor,
    *, grid: tuple[int, int] = (14, 14), decay: float, alpha: float = 0.5, weight: float = 1.0, kind: Kind = "hard",
    dense_kind: Kind | None = None, temperature: float = 1.0, teacher_logits: Tensor | None = None,
) -> dict[str, Tensor]:  # fmt: skip
    """The three losses "base", "deit" and "cskd", and "total" = (1 - alpha) base + alpha deit + weight cskd, as in the authors' code.

    `dense_logits` [batch, positions, classes] are the distillation head's at the patch tokens, whose `grid` is (height, width);
    `teacher_dense_logits` [batch, classes, height, width] the teacher's classifier at each position. The teacher's answer is their mean,
    which equals its logits for an affine head on averaged features; give `teacher_logits` for any other. `decay` is a(t), from 1 to 0.
    `dense_kind` None is `kind`. Rows labelled -1 have no "base". Raises ValueError for a wrong setting or shape.

    >>> import torch
    >>> logits, dense, teacher = torch.zeros(1, 2), torch.zeros(1, 4, 2), torch.tensor([0.0, 1.0]).view(1, 2, 1, 1)
    >>> losses = cskd_losses(logits, logits, dense, teacher, torch.tensor([0]), grid=(2, 2), decay=1.0)
    >>> {name: round(loss.item(), 4) for name, loss in losses.items()}  # log 2 each
    {'base': 0.6931, 'deit': 0.6931, 'cskd': 0.6931, 'total': 1.3863}
    """
    kind_of_dense = dense_kind or kind
    check_settings(alpha=alpha, kinds=(kind, kind_of_dense), temperature=temperature)
    if not 0 <= decay <= 1:
        raise ValueError(f"decay is a share from 0 to 1, got {decay}")
    answer = widened(teacher_dense_logits).mean(dim=(2, 3)) if teacher_logits is None else teacher_logits
    dense = grid_from_tokens(dense_logits, grid).grid
    losses = {
        "base": label_cross_entropy(class_logits, labels),
        "deit": distillation_loss(distillation_logits, answer, kind=kind, temperature=temperature),
        "cskd": dense_loss(dense, teacher_dense_logits, answer, decay=decay, kind=kind_of_dense, temperature=temperature),
    }
    return {**losses, "total": (1 - alpha) * losses["base"] + alpha * losses["deit"] + weight * losses["cskd"]}


def _weights(settings: Mapping[str, Any]) -> dict[str, float]:
    return {"ce": 1 - settings["alpha"], "deit": settings["alpha"], "cskd": 1.0}


def _needs(settings: Mapping[str, Any], student: Mapping[str, Any], teacher: Mapping[str, Any]) -> Needs:
    for who, shapes in {"student": student, "teacher": teacher}.items():
        if "dense" not in shapes:
            return Needs(refusal=f"it compares logits at single positions, and the head of the {who} cannot be applied to one position")
        if tuple(shapes["dense"][1:]) == (1, 1):
            return Needs(
                refusal=f"the {who}'s last map is a single position at this image size, so that nothing local is left to teach: "
                "use larger images, or method deit, which compares answers to whole images."
            )
    kinds = (settings["kind"], settings["dense_kind"] or settings["kind"])
    return Needs(student_taps=("dense",), teacher_taps=("dense",), refusal=idle_temperature(kinds, settings["temperature"]))


def _prepare_student(student: Any, settings: Mapping[str, Any]) -> None:
    """Add the distillation token and head; the student answers with the mean of both heads and the averaged dense logits."""
    add_distillation_head(student, "mean_heads_dense")


@method(
    paper="Zhao et al. 2023",
    weights=_weights,
    direction="CNN -> ViT; any pair with dense logits works",
    needs=_needs,
    prepare_student=_prepare_student,
)
def cskd(
    student: Any, teacher: Any, images: Any, rng: Any,
    *, kind: Kind = "hard", dense_kind: Kind | None = None, alpha: Annotated[float, Field(ge=0, le=1)] = 0.5,
    temperature: PositiveFloat = 1.0, schedule: Schedule = "linear", decay_every: Literal["epoch", "step"] = "epoch",
) -> Callable[..., dict[str, Tensor]]:  # fmt: skip
    """DeiT's two heads, and the distillation head at every patch token learns the teacher's answer at that place of the image.

    The place's target goes from the teacher's logits there (its trained classifier at each position of its last map, nothing drawn anew)
    to its logits of the whole image, by a share a(t) that falls linearly, as a square (`x2`) or as a `cosine`; constant within an epoch and
    never quite 0 as in the authors' code, or in each step with `decay_every: step`. With one epoch the official kind is 1 throughout.
    Weights 1 - alpha, alpha and 1 with alpha = 0.5, hard targets, temperature 1 (the authors' code). The soft dense term is a sum
    over positions and the soft DeiT term is divided by the classes: going from hard to soft, choose `weights: {cskd: ...}` anew.
    At test time the prediction is the mean of three: class head, distillation head, and dense logits averaged over positions.
    Adapted for other pairs: the finer of the two grids is pooled to the coarser; a teacher whose head is not affine in the averaged
    features (ConvNeXt, MobileNetV3, ViT) gives its true logits as its answer, where the authors take the mean of the dense ones. A student
    that takes no token has the distillation head on its pooled vector, which its notes say. Where either grid is a single position,
    nothing local is left to teach, and the pair is refused: show the networks larger images.
    """
    check_student(student, "cskd")

    def decay(clock: Clock) -> float:
        return decay_at(clock.epoch / clock.epochs if decay_every == "epoch" else clock.progress, schedule)

    def objective(batch: Batch, student: Activations, teacher: Activations) -> dict[str, Tensor]:
        return {
            "ce": cross_entropy(student.heads["class"], batch.targets),
            "deit": distillation_loss(student.heads[HEAD], teacher.logits, kind=kind, temperature=temperature),
            "cskd": dense_loss(
                student.dense[HEAD], teacher.dense["class"], teacher.logits,
                decay=decay(batch.clock), kind=dense_kind or kind, temperature=temperature,
            ),
        }  # fmt: skip

    return objective
