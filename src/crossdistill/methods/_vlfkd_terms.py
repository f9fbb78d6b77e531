"""The terms of VLFKD: channel distributions, patch Gram matrices, pooled embeddings, and the split [target, rest] of the logits."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossdistill.methods._logits import check_logits, tempered_kl
from crossdistill.ops.checks import refuse_labels
from crossdistill.ops.layouts import tokens_from_grid
from crossdistill.ops.losses import counted, widened

DEAD = 1e-12  # a row shorter than this holds no direction; F.normalize draws the line at the same length


def on_grid(teacher_map: Tensor, size: tuple[int, int]) -> Tensor:
    """The teacher's map, bilinear on the student's grid (align_corners=False): the published direction, whichever grid is larger."""
    if tuple(teacher_map.shape[-2:]) == tuple(size):
        return teacher_map
    return F.interpolate(teacher_map, size, mode="bilinear", align_corners=False)


def element_mean_kl(student: Tensor, teacher: Tensor, *, dim: int, temperature: float = 1.0) -> Tensor:
    """KL(teacher || student) of softmaxes along `dim`, mean over ALL elements: 1/length of the usual KL, as in the authors' code."""
    student_log_p = (student / temperature).log_softmax(dim=dim)
    teacher_log_p = (teacher / temperature).log_softmax(dim=dim)
    # Not reduction="mean", which is this same mean today: torch warns that it will come to mean "batchmean".
    return F.kl_div(student_log_p, teacher_log_p, reduction="none", log_target=True).mean()


def token_kl(student: Tensor, teacher: Tensor, *, temperature: float = 1.0) -> Tensor:
    """KL(teacher || student) of softmaxes over the last axis of unit vectors: summed over it, mean over all rows."""
    student_rows, teacher_rows = (unit_rows(rows).flatten(0, -2) for rows in (student, teacher))
    return tempered_kl(student_rows, teacher_rows, temperature).mean()


def unit_rows(rows: Tensor) -> Tensor:
    """Rows of length one along the last axis; a zero row stays zero, with a bounded gradient (F.normalize's would be 1e12)."""
    length = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    return rows / torch.where(length > DEAD, length, 1.0)


def gram_rows(feature_map: Tensor) -> Tensor:
    """The positions of a map as rows [batch, positions, channels]: of length one, then less their own mean over channels."""
    rows = unit_rows(tokens_from_grid(feature_map))
    return rows - rows.mean(dim=-1, keepdim=True)


def gram_distance(student_rows: Tensor, teacher_rows: Tensor) -> Tensor:
    """Mean squared difference of the Gram matrices R R^T / (channels - 1) of rows [..., positions, channels].

    Where positions outnumber channels no [positions, positions] matrix is made: with U = S + T and V = S - T,
    S S^T - T T^T = (U V^T + V U^T) / 2, whose squared norm is (<U^T U, V^T V> + <U^T V, V^T U>) / 2. Taking it from S and T
    themselves (|S^T S|^2 - 2 |S^T T|^2 + |T^T T|^2) would lose all digits as the student comes near.
    """
    n_positions, n_channels = student_rows.shape[-2:]
    scale = max(n_channels - 1, 1)
    if n_positions <= n_channels:
        difference = student_rows @ student_rows.mT - teacher_rows @ teacher_rows.mT
        return (difference / scale).square().mean()
    total, difference = student_rows + teacher_rows, student_rows - teacher_rows
    mixed = total.mT @ difference
    squared = ((total.mT @ total) * (difference.mT @ difference)).sum() + (mixed * mixed.mT).sum()
    n_pairs = n_positions**2 * math.prod(student_rows.shape[:-2])
    return squared / (2 * scale**2 * n_pairs)


def target_and_rest(logits: Tensor, labels: Tensor) -> Tensor:
    """log [p(target), p(anything else)] for each image, [batch, 2]; exact where softmax has underflowed. Label -1 reads class 0."""
    target = labels.clamp(min=0)[:, None]
    rest = logits.scatter(1, target, -torch.inf).logsumexp(dim=1)
    parts = torch.stack([logits.gather(1, target)[:, 0], rest], dim=1)
    return parts - logits.logsumexp(dim=1, keepdim=True)


def labelled_mean(per_image: Tensor, labels: Tensor) -> Tensor:
    """The mean over the images that have a label; zero, with a graph, where none has."""
    labelled = labels >= 0
    return (per_image * labelled).sum() / counted(labelled)


def target_kl(student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
    """KL(teacher || student) of the two-way distributions [target, rest], mean over the labelled images.

    What the network thinks of the true class against all others together; how it ranks the others does not enter.

    >>> three = torch.tensor([[0.0, 1.0, 2.0]])
    >>> bool(target_kl(three, three[:, [0, 2, 1]], torch.tensor([0])).abs() < 1e-6)
    True
    """
    if student_logits.shape[1] < 2:
        raise ValueError(f"[target, rest] needs at least 2 classes, got {student_logits.shape[1]}")
    check_logits(student_logits, teacher_logits)
    refuse_labels(labels, *student_logits.shape)
    student_log_p = target_and_rest(widened(student_logits), labels)
    teacher_log_p = target_and_rest(widened(teacher_logits), labels)
    per_image = F.kl_div(student_log_p, teacher_log_p, reduction="none", log_target=True).sum(dim=1)
    return labelled_mean(per_image, labels)


class AttentionPool(nn.Module):
    """A frozen pool of a map [batch, channels, height, width] into [batch, dim]: one query attends over the positions.

    The query is the mean position, as in CLIP's pool, keys and values are the positions themselves, layer-normalised without
    parameters; the projection to `dim` is drawn once from `rng` and never trained.
    """

    weight: Tensor
    provenance = "drawn at random; the pre-trained pool of C2VKD was never released"

    def __init__(self, channels: int, dim: int, rng: torch.Generator) -> None:
        super().__init__()
        self.register_buffer("weight", torch.randn(dim, channels, generator=rng) / channels**0.5)

    def forward(self, feature_map: Tensor) -> Tensor:
        positions = tokens_from_grid(feature_map)
        # Normalised, so that random weights answer to any network in unit scale: a softmax of it is neither flat nor saturated.
        positions = F.layer_norm(positions, positions.shape[-1:])
        query = positions.mean(dim=1, keepdim=True)
        attention = (query @ positions.mT / positions.shape[-1] ** 0.5).softmax(dim=-1)  # batch 1 positions
        return F.linear((attention @ positions)[:, 0], self.weight)
