"""Relational knowledge distillation: distances and angles between images (Park et al., CVPR 2019, https://arxiv.org/abs/1904.05068)."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from crossdistill.core.registry import method
from crossdistill.core.types import Activations, Batch
from crossdistill.methods._features import pooled_needs, pooled_of_all
from crossdistill.ops.checks import refuse_unpaired
from crossdistill.ops.losses import cross_entropy, widened, without_autocast

EPSILON = 1e-12  # least squared distance, and least length that has a direction, as in the authors' code
AT_ONCE = 2**24  # numbers in one chunk of the angles' intermediate tensors: 64 MiB in float32


def rkd_loss(student: Tensor, teacher: Tensor, *, distance_weight: float = 25.0, angle_weight: float = 50.0) -> Tensor:
    """Weighted sum of the distance-wise and angle-wise losses (eqs. 5-10) of vectors [batch, channels]; channels may differ.

    Unchanged by rotations, translations and a positive scale of either side; zero for one image. Raises ValueError for a
    negative weight, and unless both are vectors of one batch.

    >>> corner = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> rkd_loss(5 * corner - 1, corner).item() < 1e-12
    True
    """
    if distance_weight < 0 or angle_weight < 0:
        raise ValueError(f"weights must not be negative, got distance_weight {distance_weight} and angle_weight {angle_weight}")
    return distance_weight * distance_loss(student, teacher) + angle_weight * angle_loss(student, teacher)


@without_autocast
def distance_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean smooth L1 difference over batch x batch of the distances, each side divided by the mean of its own (eqs. 5-7)."""
    refuse_unpaired(student, teacher, "batch, channels")
    return F.smooth_l1_loss(_relative_distances(student), _relative_distances(teacher))


@without_autocast
def angle_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean smooth L1 difference over batch x batch x batch of the cosines of the angles at i between j and k (eqs. 8-10).

    Triplets with equal members, whose cosine is 0 or 1 on both sides, count in the mean. Memory is bounded: large batches are
    taken in chunks of anchors i, of 2^24 numbers or of one anchor, batch x (batch + channels) numbers, where that is more; the
    differences between images are computed again in the backward pass.
    """
    refuse_unpaired(student, teacher, "batch, channels")
    student, teacher = widened(student), widened(teacher)
    n_images, width = len(student), max(student.shape[1], teacher.shape[1])
    n_anchors = max(1, AT_ONCE // (n_images * (n_images + width)))
    chunks = list(zip(student.split(n_anchors), teacher.split(n_anchors), strict=True))
    if len(chunks) == 1:
        return _angle_differences(student, teacher, student, teacher) / n_images**3
    sums = [checkpoint(_angle_differences, student, teacher, *anchors, use_reentrant=False, preserve_rng_state=False) for anchors in chunks]
    return torch.stack(sums).sum() / n_images**3


def _angle_differences(student: Tensor, teacher: Tensor, student_anchors: Tensor, teacher_anchors: Tensor) -> Tensor:
    return F.smooth_l1_loss(_cosines(student, student_anchors), _cosines(teacher, teacher_anchors), reduction="sum")


def _cosines(vectors: Tensor, anchors: Tensor) -> Tensor:
    """Cosines [anchors, batch, batch] of the angles at each anchor; 0 with an image that lies where the anchor lies.

    From the differences themselves: the Gram matrix holds the same inner products, but loses the digits of near neighbours.
    """
    differences = vectors[None] - anchors[:, None]  # anchors batch channels
    lengths = torch.linalg.vector_norm(differences, dim=2, keepdim=True)
    # Divided by EPSILON, as F.normalize does, a vanishing difference would have a gradient of 1e12 and drown all others.
    directions = differences * torch.where(lengths > EPSILON, 1 / lengths.clamp(min=EPSILON), 0.0)
    return directions @ directions.transpose(1, 2)


def _relative_distances(vectors: Tensor) -> Tensor:
    vectors = widened(vectors)
    # Centred: distances stay, and the subtraction below loses fewer digits where all features are positive.
    vectors = vectors - vectors.mean(dim=0).detach()
    squares = vectors.square().sum(dim=1)
    squared = (squares[:, None] + squares[None] - 2 * vectors @ vectors.T).clamp(min=EPSILON)
    n_images = len(vectors)
    itself = torch.eye(n_images, dtype=torch.bool, device=vectors.device)
    distances = squared.sqrt().masked_fill(itself, 0.0)
    # The mean over all pairs of two images, each of which is positive now; one image has no pair, and a distance of 0.
    return distances / (distances.sum() / max(n_images * (n_images - 1), 1)).clamp(min=EPSILON)


@method(paper="Park et al. 2019", weights={"ce": 1.0, "distance": 25.0, "angle": 50.0}, needs=pooled_needs)
def rkd(student: Any, teacher: Any, images: Any, rng: Any) -> Callable[..., dict[str, Tensor]]:
    """Cross-entropy with the labels, and the distances and angles between the batch's images in the pooled features.

    Weights 25 for the distances and 50 for the angles as in the authors' code and RepDistiller, which puts 1 on the
    cross-entropy; the vector is the one that enters the classifier. Distances are divided by their mean, and angles have no
    scale, so that any two architectures compare and nothing is trained beside the student. Both terms compare the images of a
    micro-batch (the batch, unless gradients are accumulated), whose pairs and triplets grow in number with the square and the
    cube of its size: one image gives exactly 0, and so do two, whose relative distance is 1 on both sides.
    """

    def objective(batch: Batch, student: Activations, teacher: Activations) -> dict[str, Tensor]:
        pooled = pooled_of_all(student, teacher)
        return {
            "ce": cross_entropy(student.logits, batch.targets),
            "distance": distance_loss(*pooled),
            "angle": angle_loss(*pooled),
        }

    return objective
