"""Correlation congruence, as RepDistiller has it (Peng et al., ICCV 2019, https://arxiv.org/abs/1904.01802)."""

from typing import Any

from pydantic import PositiveInt
from torch import Tensor, nn

from crossdistill.core.registry import method
from crossdistill.core.types import Activations, Batch
from crossdistill.methods._features import pooled_needs, pooled_vectors
from crossdistill.ops.checks import refuse_unpaired
from crossdistill.ops.losses import cross_entropy, widened
from crossdistill.ops.parallel import gathered


def correlation_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over neighbours in the batch of the inner product of their absolute errors |student - teacher|.

    Embedded vectors [batch, dimensions], both sides of one width; ValueError otherwise. Image b's neighbour is image b + 1, so
    that the order of the batch matters. Zero, with a graph, for one image, which has no neighbour.

    >>> import torch
    >>> correlation_loss(torch.tensor([[1.0, 2.0], [3.0, -1.0]]), torch.zeros(2, 2)).item()  # 1 * 3 + 2 * 1
    5.0
    """
    refuse_unpaired(student, teacher, "batch, dimensions")
    if student.shape != teacher.shape:
        raise ValueError(
            f"the embedded vectors must have one shape, got {tuple(student.shape)} and {tuple(teacher.shape)}: embed both sides first"
        )
    errors = (widened(student) - widened(teacher)).abs()
    return (errors[:-1] * errors[1:]).sum() / max(len(errors) - 1, 1)


class Correlation(nn.Module):
    """The objective of `correlation`: a trained linear embedding on either side."""

    def __init__(self, student_width: int, teacher_width: int, dimensions: int) -> None:
        super().__init__()
        self.student_embedding = nn.Linear(student_width, dimensions)
        self.teacher_embedding = nn.Linear(teacher_width, dimensions)

    def forward(self, batch: Batch, student: Activations, teacher: Activations) -> dict[str, Tensor]:
        student_vector, teacher_vector = pooled_vectors(student, teacher)
        embedded = gathered(self.student_embedding(student_vector)), gathered(self.teacher_embedding(teacher_vector))
        return {"ce": cross_entropy(student.logits, batch.targets), "correlation": correlation_loss(*embedded)}


@method(paper="Peng et al. 2019", weights={"ce": 1.0, "correlation": 0.02}, needs=pooled_needs)
def correlation(student: Any, teacher: Any, images: Any, rng: Any, *, dimensions: PositiveInt = 128) -> Correlation:
    """Cross-entropy with the labels, and the errors between embedded pooled features, multiplied for neighbours in the batch.

    Weights 1 and 0.02 and linear embeddings of 128 `dimensions`, one for each side, both trained, as in RepDistiller and OFA-KD;
    they let any two architectures compare. This is not the paper's matrix of Gaussian-kernel correlations, and it is here
    because published comparisons report it under this name. Two warnings: the loss depends on the order of the batch (which is
    drawn afresh each epoch), and since the teacher's embedding is trained too, a constant answer on both sides is a minimum: a
    falling loss alone does not show that anything was learned from the teacher. It compares the images of a micro-batch (the
    batch, unless gradients are accumulated): a single image has no neighbour, and its loss is exactly 0.
    """
    return Correlation(student.shapes()["pooled"][0], teacher.shapes()["pooled"][0], dimensions)
