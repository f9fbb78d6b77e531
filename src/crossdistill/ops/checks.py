"""Checks of what enters a loss: shapes and labels that would otherwise be broadcast to a plausible wrong number."""

from torch import Tensor


def refuse_unpaired(student: Tensor, teacher: Tensor, axes: str) -> None:
    """Raises ValueError unless both have the named axes and one batch size; the other sizes may differ.

    `axes` is a list of names such as "batch, channels"; "batch, ..." takes any shape of two axes and more.

    >>> import torch
    >>> refuse_unpaired(torch.zeros(4, 3), torch.zeros(1, 3), "batch, channels")
    Traceback (most recent call last):
    ValueError: student and teacher must be [batch, channels] of the same images, got (4, 3) and (1, 3)
    """
    n_axes = len(axes.split(", "))
    fits = [values.ndim == n_axes or (axes.endswith("...") and values.ndim > n_axes) for values in (student, teacher)]
    if not all(fits) or len(student) != len(teacher):
        raise ValueError(f"student and teacher must be [{axes}] of the same images, got {tuple(student.shape)} and {tuple(teacher.shape)}")


def refuse_labels(labels: Tensor, n_images: int, n_classes: int | None = None) -> None:
    """Raises ValueError unless `labels` are integers [n_images], below `n_classes` where that is given; -1 is unlabelled.

    >>> import torch
    >>> refuse_labels(torch.tensor([0, 3]), 2, n_classes=3)
    Traceback (most recent call last):
    ValueError: labels must be below 3, the number of classes, got 3
    """
    if tuple(labels.shape) != (n_images,) or labels.is_floating_point():
        raise ValueError(f"labels must be {n_images} integer classes, one for each image, got {labels.dtype} {tuple(labels.shape)}")
    # Only where the numbers are at hand: to read them from an accelerator would make every step wait for it.
    if n_classes is not None and labels.device.type == "cpu" and n_images and int(labels.max()) >= n_classes:
        raise ValueError(f"labels must be below {n_classes}, the number of classes, got {int(labels.max())}")
