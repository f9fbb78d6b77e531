"""How closely a network answers like its teacher: top-1 agreement and mean KL (Stanton et al., NeurIPS 2021, arXiv 2106.05945)."""

import numpy as np

from crossdistill.core.registry import metric
from crossdistill.core.types import Estimate
from crossdistill.metrics._answers import as_decisions, mean_over_images, same, share


def kl_divergence(student_logits: np.ndarray, teacher_logits: np.ndarray) -> np.ndarray:
    """KL(teacher || student) of each image in nats, at least 0: the last axis (classes) is summed away."""
    from scipy.special import log_softmax

    teacher_log_p = log_softmax(teacher_logits.astype(np.float64), axis=-1)
    student_log_p = log_softmax(student_logits.astype(np.float64), axis=-1)
    divergence = (np.exp(teacher_log_p) * (teacher_log_p - student_log_p)).sum(axis=-1)
    return np.maximum(divergence, 0.0)  # rounding can leave -1e-17


@metric(source="Stanton et al., NeurIPS 2021", unit="share; nats")
def fidelity(student_logits: np.ndarray, teacher_logits: np.ndarray) -> dict[str, Estimate]:
    """`agreement`: share of images where both give one answer (Wilson); `kl`: mean KL(teacher || student) in nats (t interval).

    Both inputs are [images, classes], or [draws, images, classes]. Agreement and KL of a network with itself are 1 and 0.

    >>> logits = np.array([[2.0, 0.0], [0.0, 1.0]])
    >>> fidelity(logits, -logits)["agreement"].value
    0.0
    """
    student, teacher = np.asarray(student_logits), np.asarray(teacher_logits)
    if student.shape != teacher.shape:
        raise ValueError(f"student and teacher must answer the same images and classes, got logits {student.shape} and {teacher.shape}")
    agreement = share(same(as_decisions(student), as_decisions(teacher)))
    return {"agreement": agreement, "kl": mean_over_images(kl_divergence(student, teacher), unit="nats")}
