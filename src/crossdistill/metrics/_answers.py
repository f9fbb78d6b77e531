"""What metrics share: answers brought to one shape, and a share of answers with its interval."""

from typing import NamedTuple

import numpy as np

from crossdistill.core.types import Estimate
from crossdistill.stats import mean_interval, share_interval

NOT_TRUSTED, COUNT, CHANCE = "ratio, not to be trusted", "images", "share that chance alone scores"
"""Units of what the comparison draws no conclusions from: kept for the record only, growing with the images, no network's own."""


class CueAnswers(NamedTuple):
    """Where shape and texture name two classes, and where the answer names either of them there; booleans."""

    conflict: np.ndarray
    shape: np.ndarray
    texture: np.ndarray


def as_decisions(logits_or_decisions: np.ndarray) -> np.ndarray:
    """The class answered for each image, [images] or [draws, images]; floating point is taken for logits.

    Raises ValueError where there are no images or a logit is not finite.
    """
    answers = np.asarray(logits_or_decisions)
    if answers.dtype.kind != "f":
        return not_empty(answers, "decisions")
    if answers.ndim not in (2, 3):
        raise ValueError(f"logits must be [images, classes] or [draws, images, classes], got {answers.shape}; decisions must not be floats")
    return finite(not_empty(answers, "logits"), "logits").argmax(axis=-1)


def not_empty(values: np.ndarray, name: str) -> np.ndarray:
    """`values` unchanged. Raises ValueError where there are none: a share of nothing is no figure."""
    if values.size == 0:
        raise ValueError(f"{name} must hold at least one image, got shape {values.shape}")
    return values


def finite(values: np.ndarray, name: str) -> np.ndarray:
    """`values` unchanged. Raises ValueError where one is NaN or infinite."""
    if not np.isfinite(values).all():
        raise ValueError(f"{name} must be finite, got {int((~np.isfinite(values)).sum())} values that are not")
    return values


def same(decisions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Where decisions name the labels; labels [images] serve every draw. Raises ValueError or TypeError where they do not fit."""
    decisions, labels = np.asarray(decisions), np.asarray(labels)
    if decisions.shape[-1:] != labels.shape[-1:]:
        raise ValueError(f"decisions and labels must cover the same images, got {decisions.shape} and {labels.shape}")
    if (decisions.dtype.kind in "iub") != (labels.dtype.kind in "iub"):
        raise TypeError(f"decisions and labels must both be integers or both be text, got {decisions.dtype} and {labels.dtype}")
    return decisions == labels


def cue_answers(decisions: np.ndarray, shape_labels: np.ndarray, texture_labels: np.ndarray) -> CueAnswers:
    """Which answers name the shape and which the texture, over the images in conflict. Raises ValueError where there are no images."""
    conflict = ~same(np.asarray(shape_labels), texture_labels)
    shape = same(not_empty(np.asarray(decisions), "decisions"), shape_labels)
    return CueAnswers(conflict, conflict & shape, conflict & same(decisions, texture_labels))


def three_cues(
    decisions: np.ndarray, shape_labels: np.ndarray, texture_labels: np.ndarray, colour_labels: np.ndarray
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Where the answer names each cue, by name, and where the three cues name three classes: only there does an answer name one of them."""
    shape, texture, colour = np.asarray(shape_labels), np.asarray(texture_labels), np.asarray(colour_labels)
    decisions = not_empty(np.asarray(decisions), "decisions")
    conflict = ~(same(shape, texture) | same(shape, colour) | same(texture, colour))
    cues = {"shape": shape, "texture": texture, "colour": colour}
    return {cue: conflict & same(decisions, labels) for cue, labels in cues.items()}, conflict


def one_answer(decisions: np.ndarray, among: np.ndarray, *cues: np.ndarray) -> str | None:
    """Why no cue was chosen: all images `among` them have one answer, although each cue names several classes there; else None."""
    among, *values = np.broadcast_arrays(among, decisions, *cues)
    decided, *named = (np.unique(of[among]) for of in values)
    if len(decided) == 1 and min(map(len, named)) > 1 and any(decided[0] in of_cue for of_cue in named):
        return "every answer is the same class, whatever the cues are: none is chosen"
    return None


def per_image(answers: np.ndarray) -> np.ndarray:
    """The mean over draws inside each image: [images] or [draws, images] -> float64 [images]."""
    return np.atleast_2d(np.asarray(answers, dtype=np.float64)).mean(axis=0)


def mean_over_images(values: np.ndarray, *, unit: str) -> Estimate:
    """The mean of one figure an image, [images] or [draws, images], with Student's t interval over images."""
    of_images = per_image(values)
    if len(of_images) < 2:
        return Estimate.not_measurable("a mean over 1 image has no interval", n=len(of_images), unit=unit)
    return Estimate(float(of_images.mean()), *mean_interval(of_images), n=len(of_images), unit=unit)


def share(hits: np.ndarray, among: np.ndarray | None = None, *, nothing: str = "") -> Estimate:
    """The share of answers that are hits among all, or `among` some, of them, with its Wilson interval over images.

    Both are boolean, [images] or [draws, images]. Where there is nothing to count, the figure is not measurable and
    `nothing` says why.
    """
    hits, totals = np.broadcast_arrays(hits, np.ones_like(hits, dtype=bool) if among is None else among)
    counted = int(np.atleast_2d(totals).any(axis=0).sum())
    if counted == 0:
        return Estimate.not_measurable(nothing, unit="share")
    hits_per_image, totals_per_image = per_image(hits & totals), per_image(totals)
    low, high = share_interval(hits_per_image, totals_per_image, draws=len(np.atleast_2d(hits)))
    value = float(hits_per_image.sum() / totals_per_image.sum())
    return Estimate(value, min(low, value), max(high, value), n=counted, unit="share")
