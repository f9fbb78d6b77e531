"""What DeiT and CSKD share: a student with a distillation head beside the class head, and that head's loss (DeiT's)."""

from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor

from crossdistill.core.errors import SettingError
from crossdistill.methods._logits import check_logits, tempered_kl
from crossdistill.ops.losses import widened

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


def idle_temperature(kinds: tuple[str, ...], temperature: float) -> str | None:
    """Why a temperature cannot be set, in words, where no loss of these kinds has one; None where it may."""
    if "soft" in kinds or temperature == 1:
        return None
    return f"`temperature` belongs to soft distillation: hard takes the teacher's decision and has no use for {temperature:g}."


def distillation_loss(distillation_logits: Tensor, teacher_logits: Tensor, *, kind: Kind, temperature: float) -> Tensor:
    """DeiT's loss of the distillation head, logits [batch, classes]. Hard: cross-entropy with the teacher's decision, mean over the batch.
    Soft: T^2 KL(teacher || student) divided by batch x classes, as the authors' code does: 1/classes of a mean over the batch.
    Raises ValueError where the two have not one shape.
    """
    if kind == "hard":
        check_logits(distillation_logits, teacher_logits)
        return F.cross_entropy(widened(distillation_logits), teacher_logits.argmax(dim=1))
    divergence = tempered_kl(distillation_logits, teacher_logits, temperature).mean()
    return temperature**2 * divergence / distillation_logits.shape[1]
