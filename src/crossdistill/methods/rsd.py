"""Redundancy suppression distillation (Zhang et al., ICCV 2025, https://arxiv.org/abs/2507.21844)."""

from typing import Any

import torch
from pydantic import NonNegativeFloat
from torch import Tensor, nn

from crossdistill.core.registry import method
from crossdistill.core.types import Activations, Batch
from crossdistill.methods._features import pooled_needs, pooled_of_all
from crossdistill.ops.losses import cross_entropy, widened, without_autocast
from crossdistill.ops.projectors import BatchNorm

EPSILON = 1e-5  # added to each column's standard deviation, as published
WIDENING = 2  # of the projector's hidden layer, over the student's width


@without_autocast
def rsd_loss(projected_student: Tensor, teacher: Tensor, *, kappa: float = 0.01) -> Tensor:
    """sum_i (R_ii - 1)^2 + kappa sum_{i != j} R_ij^2, R being the correlations of teacher with student columns [batch, channels].

    Columns are standardised over the batch with the population's deviation. Sums, not means: the value grows with the teacher's
    width. Zero, with a graph, for a single row, which has no correlations. Raises ValueError unless both shapes are equal.

    >>> import torch
    >>> crossed = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])  # two uncorrelated columns
    >>> round(rsd_loss(crossed, crossed).item(), 4), round(rsd_loss(crossed, crossed.flip(1)).item(), 4)  # 2 (0 - 1)^2 + 0.01 * 2
    (0.0, 2.02)
    """
    if projected_student.shape != teacher.shape or teacher.ndim != 2:
        raise ValueError(
            f"both sides must be [batch, channels] of one shape, got {tuple(projected_student.shape)} and {tuple(teacher.shape)}"
        )
    if len(teacher) == 1:
        return 0 * widened(projected_student).sum()
    correlation = _standardised(widened(teacher)).T @ _standardised(widened(projected_student)) / len(teacher)
    diagonal = correlation.diagonal()
    invariance = (diagonal - 1).square().sum()
    redundancy = (correlation - torch.diag(diagonal)).square().sum()  # not a difference of two sums, which would cancel
    return invariance + kappa * redundancy


def _standardised(columns: Tensor) -> Tensor:
    return (columns - columns.mean(dim=0)) / (columns.std(dim=0, correction=0) + EPSILON)


class RedundancyObjective(nn.Module):
    """The projected student vector against the teacher's."""

    def __init__(self, student_width: int, teacher_width: int, kappa: float) -> None:
        super().__init__()
        hidden = WIDENING * student_width
        self.kappa = kappa
        self.projector = nn.Sequential(
            nn.Linear(student_width, hidden, bias=False),
            BatchNorm(hidden),
            nn.GELU(),
            nn.Linear(hidden, teacher_width, bias=False),
        )

    def forward(self, batch: Batch, student: Activations, teacher: Activations) -> dict[str, Tensor]:
        # Of all images before the projector: its BatchNorm, too, then sees the whole batch.
        student_vector, teacher_vector = pooled_of_all(student, teacher)
        loss = rsd_loss(self.projector(student_vector), teacher_vector, kappa=self.kappa)
        return {"ce": cross_entropy(student.logits, batch.targets), "rsd": loss}


@method(
    paper="Zhang et al. 2025",
    weights={"ce": 1.0, "rsd": 0.1},
    direction="any; made for pairs of different families",
    needs=pooled_needs,
)
def rsd(student: Any, teacher: Any, images: Any, rng: Any, *, kappa: NonNegativeFloat = 0.01) -> RedundancyObjective:
    """Correlation matching of the pooled vectors: over a batch, each channel of the projected student is to correlate fully with
    the teacher's channel of that number and, with the small weight `kappa`, not at all with the others, so that what both
    architectures share is passed on and what one of them repeats or owns is suppressed. The student's vector goes through a trained
    projector (linear to twice the width, BatchNorm, GELU, linear to the teacher's width), dropped afterwards, which keeps the
    objective away from the student's own representation. Weights as published: cross-entropy 1, rsd 0.1, no logit matching;
    kappa 0.01. The loss is a sum over the teacher's channels, so for teachers much wider than some hundred channels a smaller
    weight may be needed. It compares the images of a micro-batch (the batch, unless gradients are accumulated): use at least some
    dozens; for a single image the loss is exactly 0. It reads vectors only, so any pair of architectures will do.
    """
    return RedundancyObjective(student.shapes()["pooled"][0], teacher.shapes()["pooled"][0], kappa)
