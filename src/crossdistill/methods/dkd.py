"""Decoupled knowledge distillation (Zhao et al., CVPR 2022, https://arxiv.org/abs/2203.08679)."""

from collections.abc import Callable
from typing import Any

import torch
from pydantic import PositiveFloat
from torch import Tensor
from torch.nn.functional import logsigmoid

from crossdistill.core.registry import method
from crossdistill.core.types import Activations, Batch
from crossdistill.methods._logits import compared_logits, softened
from crossdistill.ops.checks import refuse_labels
from crossdistill.ops.losses import counted, cross_entropy, row_divergences


def dkd_losses(student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, *, temperature: float = 4.0) -> dict[str, Tensor]:
    """The two parts of the KL divergence from teacher to student, each times T^2, means over the labelled images.

    `tckd` compares the two-way split (target, anything else), `nckd` the softmax over the other classes. `labels` are classes
    [batch]; rows below zero are unlabelled, have no target and do not count: both terms are zero, with a graph, where no row is
    labelled. Everything is taken in log space: finite also where a saturated student makes the released code return infinity.
    With two classes `nckd` is zero. Raises ValueError for fewer than two classes, and for shapes and labels that do not fit.

    >>> import math, torch
    >>> parts = dkd_losses(torch.zeros(1, 2), torch.tensor([[math.log(3), 0.0]]), torch.tensor([0]), temperature=1.0)
    >>> round(parts["tckd"].item(), 4), parts["nckd"].item()  # 3/4 ln(3/2) + 1/4 ln(1/2)
    (0.1308, 0.0)
    """
    student, teacher = softened(student_logits, teacher_logits, temperature)
    if student.shape[1] < 2:
        raise ValueError(f"decoupling needs two classes or more, got logits {tuple(student.shape)}")
    refuse_labels(labels, *student.shape)
    labelled, target = labels >= 0, labels.long().clamp(min=0)[:, None]
    student_split, student_others = _decoupled(student, target)
    teacher_split, teacher_others = _decoupled(teacher, target)
    n_labelled = counted(labelled)
    return {
        "tckd": temperature**2 * (labelled * row_divergences(teacher_split, student_split)).sum() / n_labelled,
        "nckd": temperature**2 * (labelled * row_divergences(teacher_others, student_others)).sum() / n_labelled,
    }


def dkd_loss(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, *, alpha: float = 1.0, beta: float = 8.0, temperature: float = 4.0
) -> Tensor:
    """alpha * tckd + beta * nckd of `dkd_losses`: T^2 included, mean over the labelled images."""
    parts = dkd_losses(student_logits, teacher_logits, labels, temperature=temperature)
    return alpha * parts["tckd"] + beta * parts["nckd"]


def _decoupled(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the split [batch, (target, anything else)] and of the other classes among themselves [batch, classes - 1]."""
    column = torch.arange(logits.shape[1] - 1, device=logits.device)[None]
    others = logits.gather(1, column + (column >= target))  # the target's column is left out, not masked by a large number
    log_sum = others.logsumexp(dim=1, keepdim=True)
    margin = logits.gather(1, target) - log_sum  # log of the odds of the target; its probability may underflow, this cannot
    return torch.cat([logsigmoid(margin), logsigmoid(-margin)], dim=1), others - log_sum


@method(paper="Zhao et al. 2022", weights={"ce": 1.0, "tckd": 1.0, "nckd": 8.0})
def dkd(
    student: Any, teacher: Any, images: Any, rng: Any, *, temperature: PositiveFloat = 4.0, standardize: bool = False
) -> Callable[..., dict[str, Tensor]]:
    """Logit matching in two parts with weights of their own: how sure the teacher is of the label, and how it ranks the other classes.

    Plain KD weighs the second part by the teacher's doubt, so that a confident teacher says little about the other classes; here
    it counts in full; where there are two classes there is no such ranking, and `nckd` is 0. The paper's alpha and beta are the
    weights of `tckd` and `nckd`, 1 and 8 with T = 4 for CIFAR-100 as in the authors' mdistiller (there `nckd` is 6 or 2 for some
    pairs; for ImageNet T = 1 and 0.5 or 2; in OFA-KD, across architectures, T = 1 and 2). It reads logits alone, so it serves any
    pair with the same classes.
    The authors raise both terms over the first 20 epochs: say `ramp_epochs: 20` for that (here the weight rises at every step, there
    once an epoch). Under mixup the target is the dominant class; unlabelled images have none and do not count.

    `standardize` compares standardised logits (Sun et al. 2024, https://arxiv.org/abs/2403.01427), the cross-entropy keeping the
    raw ones; its authors' values, not set by the switch, are `temperature: 2` and `weights: {tckd: 9, nckd: 72}`.
    """

    def objective(batch: Batch, student: Activations, teacher: Activations) -> dict[str, Tensor]:
        compared = compared_logits(student, teacher, standardize=standardize)
        return {"ce": cross_entropy(student.logits, batch.targets), **dkd_losses(*compared, batch.labels, temperature=temperature)}

    return objective
