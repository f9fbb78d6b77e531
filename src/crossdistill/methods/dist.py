"""DIST: relations between and within classes instead of exact probabilities (Huang et al., NeurIPS 2022, https://arxiv.org/abs/2205.10536)."""

from collections.abc import Callable
from typing import Any

from pydantic import PositiveFloat
from torch import Tensor
from torch.linalg import vector_norm

from crossdistill.core.registry import method
from crossdistill.core.types import Activations, Batch
from crossdistill.methods._logits import compared_logits, softened
from crossdistill.ops.losses import cross_entropy
from crossdistill.ops.parallel import gathered

EPSILON = 1e-8  # the authors' constant; added to the product of norms, where torch's cosine_similarity clamps each norm


def dist_losses(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 1.0) -> dict[str, Tensor]:
    """T^2 (1 - Pearson correlation) of the softened probabilities of student and teacher, each part from 0 to 2 T^2.

    `inter` correlates rows, the classes of each image, mean over images; `intra` columns, the images of each class,
    mean over classes. A row or column without spread has correlation 0: with a single image `intra` is T^2 and has no
    gradient. Raises ValueError unless the temperature is positive and both logits are [batch, classes] of one shape.

    >>> import torch
    >>> parts = dist_losses(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
    >>> {name: round(part.item(), 4) for name, part in parts.items()}  # the student says the opposite of the teacher
    {'inter': 2.0, 'intra': 2.0}
    """
    student_logits, teacher_logits = softened(student_logits, teacher_logits, temperature)
    student, teacher = student_logits.softmax(dim=1), teacher_logits.softmax(dim=1)
    return {
        "inter": temperature**2 * (1 - _correlation(student, teacher, dim=1).mean()),
        "intra": temperature**2 * (1 - _correlation(student, teacher, dim=0).mean()),
    }


def dist_loss(student_logits: Tensor, teacher_logits: Tensor, *, beta: float = 1.0, gamma: float = 1.0, temperature: float = 1.0) -> Tensor:
    """beta * inter + gamma * intra of `dist_losses`, T^2 included."""
    parts = dist_losses(student_logits, teacher_logits, temperature=temperature)
    return beta * parts["inter"] + gamma * parts["intra"]


def _correlation(a: Tensor, b: Tensor, *, dim: int) -> Tensor:
    """Pearson's correlation along `dim`, -1 to 1; near 0 where the product of the spreads is below 1e-8."""
    a, b = a - a.mean(dim=dim, keepdim=True), b - b.mean(dim=dim, keepdim=True)
    return (a * b).sum(dim=dim) / (vector_norm(a, dim=dim) * vector_norm(b, dim=dim) + EPSILON)


@method(paper="Huang et al. 2022", weights={"ce": 1.0, "inter": 1.0, "intra": 1.0})
def dist(
    student: Any, teacher: Any, images: Any, rng: Any, *, temperature: PositiveFloat = 1.0, standardize: bool = False
) -> Callable[..., dict[str, Tensor]]:
    """Correlation of the student's probabilities with the teacher's: over the classes of each image, and over the images of each class.

    A student may thus be more or less confident than its teacher at no cost, which helps where the teacher is much stronger or of
    another architecture. Weights 1 / 1 / 1 and T = 1 are the defaults of the authors' class and of OFA-KD's comparison across
    architectures; beta and gamma of the paper are the weights of `inter` and `intra`, and T^2 stands inside the terms. It reads
    logits alone, so it serves any pair with the same classes, and needs no labels beyond the cross-entropy. `intra` compares the
    images of a batch: it depends on the batch size (under accumulation that of a micro-batch) and says nothing about a single
    image. With confident networks and many classes most columns have next to no spread and `intra` fades; a larger temperature
    brings it back.

    `standardize` compares standardised logits (Sun et al. 2024, https://arxiv.org/abs/2403.01427), the cross-entropy keeping the
    raw ones; with KD and DKD its authors use `temperature: 2`.
    """

    def objective(batch: Batch, student: Activations, teacher: Activations) -> dict[str, Tensor]:
        compared = (gathered(logits) for logits in compared_logits(student, teacher, standardize=standardize))
        return {"ce": cross_entropy(student.logits, batch.targets), **dist_losses(*compared, temperature=temperature)}

    return objective
