"""How often a student takes its teacher's side where teacher and independent student disagree; after Stanton et al. (arXiv 2106.05945)."""

from dataclasses import replace

import numpy as np

from crossdistill.core.registry import metric
from crossdistill.core.types import Estimate
from crossdistill.metrics._answers import not_empty, per_image, same, share
from crossdistill.stats import paired_bootstrap

FEWEST_IMAGES = 30
"""Below this many images that count, a rate is not given: its interval would be wider than 30 points."""

ALONE = "there is no second independent student, whose rate is what the teacher has to be told from"
UNLABELLED = "without labels nobody knows where teacher and independent are both wrong"


@metric(source="Stanton et al., NeurIPS 2021", unit="share")
def side_with_teacher(
    student_decisions: np.ndarray,
    teacher_decisions: np.ndarray,
    independent_decisions: np.ndarray,
    second_independent_decisions: np.ndarray | None = None,
    labels: np.ndarray | None = None,
) -> dict[str, Estimate]:
    """P(S = T | T != I, S in {T, I}): `rate` of the student S, `second_rate` of a second independent student J, `excess` the difference.

    A student that is its teacher has rate 1. Half is not what to expect of one that inherited nothing, since a teacher that is often
    right is often agreed with: J's rate is, so that only `excess` tells of inheritance, and on the images that T and I both
    answer wrongly (`wrong_rate`, `wrong_second_rate`, `wrong_excess`) the teacher's being right cannot explain it. Rates have Wilson's
    intervals, the difference the percentile bootstrap over images, all networks resampled together: they are about these four
    checkpoints. Not measurable with fewer than 30 images that count.

    >>> teacher, independent = np.array(["cat"] * 40), np.array(["dog"] * 40)
    >>> student = np.array(["cat", "cat", "cat", "dog"] * 10)
    >>> side_with_teacher(student, teacher, independent)["rate"].value
    0.75
    """
    student, teacher = not_empty(np.asarray(student_decisions), "student_decisions"), np.asarray(teacher_decisions)
    independent = np.asarray(independent_decisions)
    apart = ~same(teacher, independent)
    sides = {"rate": _side(student, teacher, independent)}
    if second_independent_decisions is not None:
        sides["second_rate"] = _side(np.asarray(second_independent_decisions), teacher, independent)
    everywhere = _rates(sides, apart)
    if labels is None:
        return {**everywhere, **{f"wrong_{name}": Estimate.not_measurable(UNLABELLED, unit="share") for name in everywhere}}
    both_wrong = apart & ~same(teacher, np.asarray(labels)) & ~same(independent, np.asarray(labels))
    return {**everywhere, **{f"wrong_{name}": estimate for name, estimate in _rates(sides, both_wrong).items()}}


def _side(answers: np.ndarray, teacher: np.ndarray, independent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the answer is the teacher's, and where it is the teacher's or the independent's."""
    with_teacher = same(answers, teacher)
    return with_teacher, with_teacher | same(answers, independent)


def _rates(sides: dict[str, tuple[np.ndarray, np.ndarray]], where: np.ndarray) -> dict[str, Estimate]:
    """Both rates and their difference over the images `where`."""
    rates = {name: _rate(with_teacher, where & either) for name, (with_teacher, either) in sides.items()}
    if "second_rate" not in rates:
        alone = Estimate.not_measurable(ALONE, unit="share")
        return {**rates, "second_rate": alone, "excess": alone}
    refused = next((rate for rate in rates.values() if rate.value is None), None)
    if refused:
        refused = replace(refused, unit="difference")
    return {**rates, "excess": refused or _excess([(where & with_teacher, where & either) for with_teacher, either in sides.values()])}


def _rate(with_teacher: np.ndarray, counted: np.ndarray) -> Estimate:
    n = int(np.atleast_2d(counted).any(axis=0).sum())
    if n < FEWEST_IMAGES:
        refusal = f"{n} images on which teacher and independent differ and one of them is sided with: at least {FEWEST_IMAGES} are needed"
        return Estimate.not_measurable(refusal, n=n, unit="share")
    return share(with_teacher, counted)


def _excess(sides: list[tuple[np.ndarray, np.ndarray]]) -> Estimate:
    columns = np.stack([per_image(column) for side in sides for column in side], axis=1)
    value = float(_difference(columns.mean(axis=0)))
    low, high = paired_bootstrap(columns, _difference, "side_with_teacher")
    n = int((columns[:, 1] + columns[:, 3] > 0).sum())
    return Estimate(value, min(low, value), max(high, value), n=n, unit="difference")


def _difference(means: np.ndarray) -> np.ndarray:
    """One rate minus the other of means [..., 4]; NaN where a resample holds no image that counts."""
    hits, counted = means[..., 0::2], means[..., 1::2]
    rates = np.divide(hits, counted, out=np.full(hits.shape, np.nan), where=counted > 0)
    return rates[..., 0] - rates[..., 1]
