"""Knowledge distillation by softened logits (Hinton et al., 2015, https://arxiv.org/abs/1503.02531)."""

from collections.abc import Callable
from typing import Any

from pydantic import PositiveFloat
from torch import Tensor

from crossdistill.core.registry import method
from crossdistill.core.types import Activations, Batch
from crossdistill.ops.losses import cross_entropy, kl_divergence, widened


def kd_loss(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 4.0) -> Tensor:
    """T^2 KL(teacher || student) of logits [batch, classes] softened by T: summed over classes, mean over the batch.

    The factor T^2 keeps the gradient's scale in the limit of large T. Raises ValueError unless the temperature is positive.

    >>> import torch
    >>> kd_loss(torch.zeros(2, 3), torch.ones(2, 3)).item()
    0.0
    """
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    student_log_p = (widened(student_logits) / temperature).log_softmax(dim=1)
    teacher_log_p = (widened(teacher_logits) / temperature).log_softmax(dim=1)
    return temperature**2 * kl_divergence(teacher_log_p, student_log_p)


@method(paper="Hinton et al. 2015", weights={"ce": 0.1, "kd": 0.9})
def kd(student: Any, teacher: Any, images: Any, rng: Any, *, temperature: PositiveFloat = 4.0) -> Callable[..., dict[str, Tensor]]:
    """Logit matching: cross-entropy with the labels and KL to the teacher. Weights 0.1 / 0.9 at T = 4 as in RepDistiller."""

    def objective(batch: Batch, student: Activations, teacher: Activations) -> dict[str, Tensor]:
        return {
            "ce": cross_entropy(student.logits, batch.targets),
            "kd": kd_loss(student.logits, teacher.logits, temperature=temperature),
        }

    return objective
