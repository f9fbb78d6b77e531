"""A figure at every level of a probe, and the area under that curve."""

from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np

AREA = "auc"
"""The level that stands for the area under the curve."""

F = TypeVar("F")


def curve(figure: Callable[[np.ndarray], F], levels: Mapping[str, np.ndarray]) -> dict[str, F]:
    """{level: figure(its answers)} in the order given and, with several levels, "auc": the figure of all their answers together.

    The answers are [images], [draws, images] or, floating, [images, classes], [draws, images, classes]; the same images at every level.
    The area is the mean over the levels inside each image, every level with the same weight: severities have no common unit that a
    trapezoid could be measured in, and the list of levels says which of them count. Of a share (accuracy, or retention, which is
    linear in it) it is the mean of the levels' figures; of a ratio or a distance it is the figure of the mean answers.

    >>> from crossdistill.metrics.accuracy import accuracy
    >>> labels = np.array([0, 1, 2, 3])
    >>> found = curve(lambda answers: accuracy(answers, labels), {"0.1": labels, "0.5": np.array([0, 1, 0, 0])})
    >>> {level: estimate.value for level, estimate in found.items()}
    {'0.1': 1.0, '0.5': 0.5, 'auc': 0.75}
    """
    found = {level: figure(answers) for level, answers in levels.items()}
    return found if len(levels) < 2 else {**found, AREA: figure(_together(levels))}


def _together(levels: Mapping[str, np.ndarray]) -> np.ndarray:
    """All draws of all levels along one first axis. Raises ValueError where an average over them would be lopsided."""
    drawn = {level: _with_draws(np.asarray(answers)) for level, answers in levels.items()}
    if len({answers.shape for answers in drawn.values()}) > 1:
        shapes = {level: answers.shape for level, answers in drawn.items()}
        raise ValueError(f"every level must have the same images and as many draws, got {shapes}")
    return np.concatenate(list(drawn.values()))


def _with_draws(answers: np.ndarray) -> np.ndarray:
    """Answers with their axis of draws; floating point is taken for logits or probabilities, with an axis of classes."""
    one_draw = 2 if answers.dtype.kind == "f" else 1
    return answers[None] if answers.ndim == one_draw else answers
