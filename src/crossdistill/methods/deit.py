"""DeiT: a distillation token with a head of its own learns from the teacher (Touvron et al., ICML 2021, https://arxiv.org/abs/2012.12877)."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import Field, PositiveFloat
from torch import Tensor

from crossdistill.core.registry import method
from crossdistill.core.types import Activations, Batch, Needs
from crossdistill.methods._distillation_head import (
    HEAD,
    Kind,
    add_distillation_head,
    check_settings,
    check_student,
    distillation_loss,
    idle_temperature,
)
from crossdistill.ops.losses import cross_entropy, label_cross_entropy


def deit_loss(
    class_logits: Tensor, distillation_logits: Tensor, teacher_logits: Tensor, labels: Tensor,
    *, kind: Kind = "hard", alpha: float = 0.5, temperature: float = 1.0,
) -> Tensor:  # fmt: skip
    """(1 - alpha) CE(class head, label) + alpha D(distillation head, teacher), of logits [batch, classes] (section 4, eqs. 2 and 3).

    Hard: D is the cross-entropy with the teacher's decision, and `temperature` plays no part. Soft: D is T^2 KL(teacher || student)
    divided by batch x classes, as in the authors' code. Rows labelled -1 have no first term. Raises ValueError for a wrong setting or
    shape.

    >>> import torch
    >>> logits = torch.zeros(1, 2)
    >>> round(deit_loss(logits, logits, torch.tensor([[0.0, 1.0]]), torch.tensor([0])).item(), 4)  # log 2 from either head
    0.6931
    """
    check_settings(alpha=alpha, kinds=(kind,), temperature=temperature)
    base = label_cross_entropy(class_logits, labels)
    return (1 - alpha) * base + alpha * distillation_loss(distillation_logits, teacher_logits, kind=kind, temperature=temperature)


def _weights(settings: Mapping[str, Any]) -> dict[str, float]:
    return {"ce": 1 - settings["alpha"], "deit": settings["alpha"]}


def _needs(settings: Mapping[str, Any], student: Mapping[str, Any], teacher: Mapping[str, Any]) -> Needs:
    return Needs(refusal=idle_temperature((settings["kind"],), settings["temperature"]))


def _prepare_student(student: Any, settings: Mapping[str, Any]) -> None:
    """Add the distillation token and head; the student answers with the mean of both heads' logits."""
    add_distillation_head(student, "mean_heads")


@method(
    paper="Touvron et al. 2021",
    weights=_weights,
    direction="CNN -> ViT; any pair works",
    needs=_needs,
    prepare_student=_prepare_student,
)
def deit(
    student: Any, teacher: Any, images: Any, rng: Any,
    *, kind: Kind = "hard", alpha: Annotated[float, Field(ge=0, le=1)] = 0.5, temperature: PositiveFloat = 1.0,
) -> Callable[..., dict[str, Tensor]]:  # fmt: skip
    """The class head learns from the labels, a distillation head from the teacher. In a ViT that head reads a second learned token.

    Hard distillation, the paper's recommendation and the default, takes the teacher's decision as a label that is never smoothed.
    Weights 1 - alpha and alpha with alpha = 0.5, temperature 1 (the authors' code). For `soft` the paper used alpha 0.1 and temperature 3;
    as in the authors' code the divergence is divided by the number of classes, so it weighs little.
    At test time the prediction is the mean of both heads' logits, as in the authors' code.
    The token starts from the class token plus noise, so that it fits a pretrained student too; timm's distilled DeiTs keep their own.
    A student that takes no token (CNN, Swin, torchvision) gets the second head on its pooled vector, which its notes say:
    there the two heads share one representation, and the method is a regulariser rather than DeiT proper.
    """
    check_student(student, "deit")

    def objective(batch: Batch, student: Activations, teacher: Activations) -> dict[str, Tensor]:
        return {
            "ce": cross_entropy(student.heads["class"], batch.targets),
            "deit": distillation_loss(student.heads[HEAD], teacher.logits, kind=kind, temperature=temperature),
        }

    return objective
