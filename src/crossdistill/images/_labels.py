"""Label values of any kind as class numbers."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from crossdistill.core.errors import ImageError
from crossdistill.core.types import UNLABELLED


def as_classes(values: Mapping[str, Iterable[Any]], names: list[str] | None) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """Class names, and each split's labels as int64 class numbers; -1 and None are unlabelled.

    With `names`, whole-number values are class numbers already (checked later) and texts are looked up. Without, the classes are
    the distinct values of the split "train", sorted. Raises ImageError for a value that training lacks.

    >>> as_classes({"train": ["dog", "cat", "dog"], "test": ["cat", None]}, None)
    (('cat', 'dog'), {'train': array([1, 0, 1]), 'test': array([ 0, -1])})
    """
    columns = {split: list(column) for split, column in values.items()}
    if names and all(isinstance(value, int) for column in columns.values() for value in column if value is not None):
        return tuple(names), {
            split: np.array([UNLABELLED if v is None else v for v in column], np.int64) for split, column in columns.items()
        }
    classes = list(names) if names else sorted({value for value in columns["train"] if _is_label(value)})
    number = {value: row for row, value in enumerate(classes)}
    labels = {split: np.array([_number(number, value, split) for value in column], np.int64) for split, column in columns.items()}
    return tuple(str(value) for value in classes), labels


def _is_label(value: Any) -> bool:
    return value is not None and value != UNLABELLED


def _number(number: dict[Any, int], value: Any, split: str) -> int:
    if not _is_label(value):
        return UNLABELLED
    if value not in number:
        known = ", ".join(str(name) for name in list(number)[:10])
        raise ImageError(f"the {split} images have the label '{value}', which no training image has; known labels: {known}")
    return number[value]
