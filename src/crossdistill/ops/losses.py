"""Losses and precision that every method shares."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

from crossdistill.ops.checks import refuse_labels
from crossdistill.ops.parallel import averaged, world

P = ParamSpec("P")
R = TypeVar("R")


def widened(values: Tensor) -> Tensor:
    """Half and bfloat16 as float32; float32 and float64 as they are. Losses are never taken in half precision."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy with target distributions [batch, classes]; rows whose targets are all zero (unlabelled) do not count.

    Zero, with a graph, where no row is labelled.
    """
    per_class = (targets * widened(logits).log_softmax(dim=1)).masked_fill(targets == 0, 0.0)  # also where a class is masked by -inf
    per_image = -per_class.sum(dim=1)
    return per_image.sum() / counted(targets.sum(dim=1) > 0)


def counted(rows: Tensor) -> Tensor:
    """What a sum over the rows that are True is to be divided by for their mean: their number, at least 1.

    Where several processes share the batch it is the mean over them, so that every row counts alike whichever process has it.

    >>> counted(torch.tensor([True, False, True])).item()
    2
    """
    size = world().size
    return rows.sum().clamp(min=1) if size == 1 else averaged(rows.sum().float()).clamp(min=1 / size)


def label_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of logits [batch, classes] with labels [batch], without rows labelled -1; zero where there is no other.

    Raises ValueError for labels that do not fit the logits.
    """
    refuse_labels(labels, *logits.shape)
    one_hot = torch.nn.functional.one_hot(labels.clamp(min=0), logits.shape[1])
    return cross_entropy(logits, one_hot * (labels >= 0)[:, None])


def kl_divergence(teacher_log_p: Tensor, student_log_p: Tensor) -> Tensor:
    """KL(teacher || student) in nats: summed over classes (the last axis), mean over the rows."""
    return row_divergences(teacher_log_p, student_log_p).mean()


def row_divergences(teacher_log_p: Tensor, student_log_p: Tensor) -> Tensor:
    """KL(teacher || student) in nats of each row: summed over the last axis.

    A class that the teacher rules out (log p = -inf, as a masked one) costs nothing.
    """
    divergence = torch.nn.functional.kl_div(student_log_p, teacher_log_p, reduction="none", log_target=True)
    return divergence.masked_fill(teacher_log_p == -torch.inf, 0.0).sum(dim=-1)  # 0 log 0 = 0, also where the student rules them out


def without_autocast(function: Callable[P, R]) -> Callable[P, R]:
    """The function with autocast off on the device of its tensors: its matrix products keep the precision of its arguments.

    `widened` alone is not enough: under torch.autocast a product of float32 matrices is a product in half precision.
    """

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        device = next(value.device.type for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
        if not torch.is_autocast_enabled(device):
            return function(*args, **kwargs)
        with torch.autocast(device, enabled=False):
            return function(*args, **kwargs)

    return wrapped
