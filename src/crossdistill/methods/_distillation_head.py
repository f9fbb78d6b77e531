"""What DeiT and CSKD share: a student with a distillation head beside the class head, and that head's loss (DeiT's)."""

from typing import Any, Literal

import torch
from torch import Tensor

from crossdistill.core.errors import SettingError
from crossdistill.ops.losses import cross_entropy, kl_divergence, widened

HEAD = "distillation"
Kind = Literal["hard", "soft"]


def add_distillation_head(student: Any, readout: str) -> None:
    """Give the student a distillation token and head where it has none yet, and let `readout` make its predictions."""
    if HEAD not in student.heads:
        student.add_token_head(HEAD)
    student.readout = readout


def check_student(student: Any, method: str) -> None:
    """Raise SettingError unless the student has a distillation head."""
    if HEAD not in student.heads:
        raise SettingError(
            f"method '{method}' trains a distillation head, the student has {', '.join(student.heads)}: "
            "call the method's `prepare_student(network, settings)` before training starts"
        )


def check_settings(*, alpha: float, kinds: tuple[str, ...], temperature: float) -> None:
    """Raise ValueError for a share outside 0 to 1, an unknown kind, or a temperature that is not positive."""
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is a share from 0 to 1, got {alpha}")
    for kind in kinds:
        if kind not in ("hard", "soft"):
            raise ValueError(f"kind is 'hard' or 'soft', got {kind!r}")
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, got {temperature}")


def label_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy with labels [batch], without rows labelled -1; zero where there is no other."""
    one_hot = torch.nn.functional.one_hot(labels.clamp(min=0), logits.shape[1])
    return cross_entropy(logits, one_hot * (labels >= 0)[:, None])


def distillation_loss(distillation_logits: Tensor, teacher_logits: Tensor, *, kind: Kind, temperature: float) -> Tensor:
    """DeiT's loss of the distillation head, logits [batch, classes]. Hard: cross-entropy with the teacher's decision, mean over the batch.
    Soft: T^2 KL(teacher || student) divided by batch x classes, as the authors' code does: 1/classes of a mean over the batch.
    """
    student, teacher = widened(distillation_logits), widened(teacher_logits)
    if kind == "hard":
        return torch.nn.functional.cross_entropy(student, teacher.argmax(dim=1))
    log_p = (teacher / temperature).log_softmax(dim=1)
    return temperature**2 * kl_divergence(log_p, (student / temperature).log_softmax(dim=1)) / student.shape[1]
