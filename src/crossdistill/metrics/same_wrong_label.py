"""Whether two networks that are both wrong give one answer, which error consistency ignores (Tuli et al., 2021, arXiv 2105.07197)."""

import numpy as np

from crossdistill.core.registry import metric
from crossdistill.core.types import Estimate
from crossdistill.metrics._answers import not_empty, same, share

NOT_BOTH_WRONG = "no image was answered wrongly by both networks"


@metric(source="Tuli et al., CogSci 2021", unit="share")
def same_wrong_label(decisions_a: np.ndarray, decisions_b: np.ndarray, labels: np.ndarray) -> dict[str, Estimate]:
    """`rate`: the share of equal answers where both are wrong, with Wilson's interval; `chance`: the same between different images.

    `chance` sets a's wrong answer to each image beside b's wrong answers to the other images of its class (on the same draw): what
    is left where the networks know which classes look alike and have nothing else in common. It has no interval. No answer ("na")
    is an answer. Not measurable where no image is answered wrongly by both, `chance` also where no class has two such images.

    >>> a, b = np.array(["cat", "cat", "owl", "dog"]), np.array(["cat", "owl", "cat", "cat"])
    >>> found = same_wrong_label(a, b, np.array(["dog"] * 4))  # a is right on the last image
    >>> round(found["rate"].value, 3), round(found["chance"].value, 3)  # 1 of 3 images; (1, 3), (2, 1), (2, 3), (3, 2) of 6 pairs
    (0.333, 0.667)
    """
    a, b, labels = not_empty(np.asarray(decisions_a), "decisions_a"), np.asarray(decisions_b), np.asarray(labels)
    equal, both_wrong = same(a, b), ~same(a, labels) & ~same(b, labels)
    rate = share(equal, both_wrong, nothing=NOT_BOTH_WRONG)
    if rate.value is None:
        return {"rate": rate, "chance": rate}
    chance = _between_images(*(np.atleast_2d(values) for values in np.broadcast_arrays(a, b, labels, both_wrong)))
    return {"rate": rate, "chance": chance}


def _between_images(a: np.ndarray, b: np.ndarray, labels: np.ndarray, both_wrong: np.ndarray) -> Estimate:
    """Over the images that both answered wrongly, the share of other such images of one class and draw with an equal answer.

    All arrays are [draws, images].
    """
    draws = both_wrong.nonzero()[0]
    n = int(both_wrong.any(axis=0).sum())
    groups = np.unique(labels[both_wrong], return_inverse=True)[1] * len(a) + draws  # one number for each class on each draw
    names, answers = np.unique(np.stack([a[both_wrong], b[both_wrong]]), return_inverse=True)
    answers_a, answers_b = answers.reshape(2, -1)
    size = np.bincount(groups)
    counts_a, counts_b = (
        np.bincount(groups * len(names) + of_network, minlength=len(size) * len(names)).reshape(-1, len(names))
        for of_network in (answers_a, answers_b)
    )  # groups answers
    itself = np.bincount(groups, weights=answers_a == answers_b)
    several = size > 1
    if not several.any():
        return Estimate.not_measurable("no class has two images that both networks answered wrongly", n=n, unit="share")
    equal = ((counts_a * counts_b).sum(axis=1) - itself)[several] / (size[several] - 1)
    return Estimate(float(equal.sum() / size[several].sum()), n=n, unit="share")
