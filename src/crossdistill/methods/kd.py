"""Knowledge distillation by softened logits (Hinton et al., 2015, https://arxiv.org/abs/1503.02531)."""

from collections.abc import Callable
from typing import Any

from pydantic import PositiveFloat
from torch import Tensor

from crossdistill.core.registry import method
from crossdistill.core.types import Activations, Batch
from crossdistill.methods._logits import compared_logits, tempered_kl
from crossdistill.ops.losses import cross_entropy


def kd_loss(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 4.0) -> Tensor:
    """T^2 KL(teacher || student) of logits [batch, classes] softened by T: summed over classes, mean over the batch.

    The factor T^2 keeps the gradient's scale in the limit of large T. Raises ValueError unless the temperature is positive and
    both logits have one shape.

    >>> import torch
    >>> kd_loss(torch.zeros(2, 3), torch.ones(2, 3)).item()
    0.0
    """
    return temperature**2 * tempered_kl(student_logits, teacher_logits, temperature).mean()


@method(paper="Hinton et al. 2015", weights={"ce": 0.1, "kd": 0.9})
def kd(
    student: Any, teacher: Any, images: Any, rng: Any, *, temperature: PositiveFloat = 4.0, standardize: bool = False
) -> Callable[..., dict[str, Tensor]]:
    """Logit matching: cross-entropy with the labels, and the KL divergence from the teacher's softened answer to the student's.

    It reads logits alone, so it serves any pair with the same classes, in either direction, and nothing had to be adapted.
    T = 4 and the weights 0.1 / 0.9 are RepDistiller's for CIFAR-100; for ImageNet T = 1 and 0.5 / 0.5 are usual. The factor T^2
    stands inside the term, so these weights put 14.4 before the KL itself: compare methods by weight and temperature together.
    The term needs no labels: unlabelled images teach too.

    `standardize` compares standardised logits (Sun et al. 2024, https://arxiv.org/abs/2403.01427): the student then matches the
    relations among the teacher's logits, not their scale, which differs most between architectures. Its authors' values, which
    the switch does not set by itself, are `temperature: 2` and `weights: {kd: 9}` with the cross-entropy at 0.1 (for some pairs
    T = 3, or a weight of 6 to 18).
    """

    def objective(batch: Batch, student: Activations, teacher: Activations) -> dict[str, Tensor]:
        compared = compared_logits(student, teacher, standardize=standardize)
        return {"ce": cross_entropy(student.logits, batch.targets), "kd": kd_loss(*compared, temperature=temperature)}

    return objective
