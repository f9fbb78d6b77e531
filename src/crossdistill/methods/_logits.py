"""What methods that compare logits share: logit standardisation (Sun et al., CVPR 2024, https://arxiv.org/abs/2403.01427), checks."""

from torch import Tensor

from crossdistill.core.types import Activations
from crossdistill.ops.losses import row_divergences, widened

EPSILON = 1e-7  # the authors' constant: added to the standard deviation, so that constant logits become zeros


def standardize_logits(logits: Tensor) -> Tensor:
    """Logits [batch, classes] with mean 0 and standard deviation 1 over the classes of each image, differentiable in both.

    (z - mean) / (1e-7 + std), the standard deviation with classes - 1 in its denominator, as the authors' code has it: dividing
    by classes instead would amount to another temperature. Raises ValueError where there are fewer than two classes.

    >>> import torch
    >>> standardize_logits(torch.tensor([[1.0, 2.0, 3.0]]))
    tensor([[-1.0000,  0.0000,  1.0000]])
    """
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise ValueError(f"logits must be [batch, classes] with two classes or more to be standardised, got {tuple(logits.shape)}")
    values = widened(logits)
    return (values - values.mean(dim=1, keepdim=True)) / (EPSILON + values.std(dim=1, keepdim=True))


def compared_logits(student: Activations, teacher: Activations, *, standardize: bool) -> tuple[Tensor, Tensor]:
    """The student's and the teacher's logits as a distillation term compares them; the cross-entropy keeps the raw ones."""
    if not standardize:
        return student.logits, teacher.logits
    return standardize_logits(student.logits), standardize_logits(teacher.logits)


def softened(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Both logits [batch, classes] divided by the temperature, half precision promoted to float32.

    Raises ValueError unless the temperature is positive and both are matrices of one shape.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    check_logits(student_logits, teacher_logits)
    return widened(student_logits) / temperature, widened(teacher_logits) / temperature


def tempered_kl(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """KL(teacher || student) in nats of logits [rows, classes] softened by T: one value for each row, without a factor T^2.

    Raises ValueError as `softened` does.
    """
    student, teacher = softened(student_logits, teacher_logits, temperature)
    return row_divergences(teacher.log_softmax(dim=1), student.log_softmax(dim=1))


def check_logits(student_logits: Tensor, teacher_logits: Tensor) -> None:
    """Raise ValueError unless both are matrices [batch, classes] of one shape."""
    if student_logits.ndim != 2 or student_logits.shape != teacher_logits.shape:
        raise ValueError(
            f"student and teacher logits must be [batch, classes] of one shape, "
            f"got {tuple(student_logits.shape)} and {tuple(teacher_logits.shape)}"
        )
