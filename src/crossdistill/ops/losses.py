"""Losses and precision that every method shares."""

import torch
from torch import Tensor


def widened(values: Tensor) -> Tensor:
    """Half and bfloat16 as float32; float32 and float64 as they are. Losses are never taken in half precision."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy with target distributions [batch, classes]; rows whose targets are all zero (unlabelled) do not count.

    Zero, with a graph, where no row is labelled.
    """
    per_image = -(targets * widened(logits).log_softmax(dim=1)).sum(dim=1)
    return per_image.sum() / (targets.sum(dim=1) > 0).sum().clamp(min=1)


def kl_divergence(teacher_log_p: Tensor, student_log_p: Tensor) -> Tensor:
    """KL(teacher || student) in nats: summed over classes (the last axis), mean over the rows."""
    return torch.nn.functional.kl_div(student_log_p, teacher_log_p, reduction="none", log_target=True).sum(dim=-1).mean()
