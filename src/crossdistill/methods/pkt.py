"""Probabilistic knowledge transfer: neighbourhoods as probabilities (Passalis & Tefas, ECCV 2018, https://arxiv.org/abs/1803.10837)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from crossdistill.core.registry import method
from crossdistill.core.types import Activations, Batch
from crossdistill.methods._features import pooled_needs, pooled_of_all
from crossdistill.ops.checks import refuse_unpaired
from crossdistill.ops.losses import cross_entropy, widened, without_autocast

EPSILON = 1e-7  # added to norms and probabilities, as in the authors' code


@without_autocast
def pkt_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Divergence of the neighbourhoods of student and teacher vectors [batch, channels], mean over the batch x batch entries.

    The probability of image j beside image i is (cosine + 1) / 2 over the row's sum, j = i included; channels may differ. The
    mean is over all pairs, so that it shrinks as 1 / batch beside a mean over images. Zero for one image. Raises ValueError
    unless both are vectors of one batch.

    >>> loss = pkt_loss(torch.eye(2), torch.tensor([[2.0, 0.0], [5.0, 0.0]]))  # (2/3, 1/3) and its mirror against (1/2, 1/2) twice
    >>> round(loss.item(), 4)  # (log 3/4 + log 3/2) / 4
    0.0294
    """
    refuse_unpaired(student, teacher, "batch, channels")
    p_student, p_teacher = _neighbourhoods(student), _neighbourhoods(teacher)
    return (p_teacher * ((p_teacher + EPSILON) / (p_student + EPSILON)).log()).mean()


def _neighbourhoods(vectors: Tensor) -> Tensor:
    vectors = widened(vectors)
    # vector_norm has gradient zero at the zero vector, where the square root of a sum of squares has none.
    units = vectors / (torch.linalg.vector_norm(vectors, dim=1, keepdim=True) + EPSILON)
    closeness = ((units @ units.T + 1) / 2).clamp(min=0)  # opposite vectors may round to a cosine below -1
    return closeness / closeness.sum(dim=1, keepdim=True)


@method(paper="Passalis & Tefas 2018", weights={"ce": 1.0, "pkt": 30000.0}, needs=pooled_needs)
def pkt(student: Any, teacher: Any, images: Any, rng: Any) -> Callable[..., dict[str, Tensor]]:
    """Cross-entropy with the labels, and the divergence between the neighbourhoods of the batch's images in the pooled features.

    Weights 1 and 30000 and the vector that enters the classifier as in RepDistiller. Cosines between images are turned into
    probabilities, so that neither widths nor scales need agree, nothing is trained beside the student, and any two
    architectures compare. The loss compares the images of a micro-batch (the batch, unless gradients are accumulated): its size
    and what it can say depend on their number, and for a single image it is exactly 0.
    """

    def objective(batch: Batch, student: Activations, teacher: Activations) -> dict[str, Tensor]:
        return {"ce": cross_entropy(student.logits, batch.targets), "pkt": pkt_loss(*pooled_of_all(student, teacher))}

    return objective
