"""How often an image that is answered rightly stays right on a probe, beside what answers blind to it score (chance as in Cohen, 1960)."""

import numpy as np

from crossdistill.core.registry import metric
from crossdistill.core.types import Estimate
from crossdistill.metrics._answers import CHANCE, not_empty, per_image, same, share
from crossdistill.metrics._marginals import class_shares, coded
from crossdistill.stats import mean_interval

FEWEST = 30
"""Images right on clean below which a share of them says nothing: the interval of one half of 30 is 34 points wide."""

ROUNDING = 1e-12  # a chance level is a sum of shares


@metric(source="chance from the marginals: Cohen, Educational and Psychological Measurement 1960", unit="share")
def conditional_retention(decisions: np.ndarray, labels: np.ndarray, clean_correct: np.ndarray) -> dict[str, Estimate]:
    """`share`: P(right on the probe | right on clean), paired by image; `chance`: its chance level; `above_chance`: their difference.

    `decisions` [images] or [draws, images] are the answers to the probe; `labels` and `clean_correct` [images] belong to the same
    images. The chance level is the mean, over the images right on clean, of the share that an image's class has among all answers
    to the probe (with draws the mean over the draws): what the same answers would score if they were dealt out blindly. Intervals over
    images: Wilson for the share, Student's t for the difference, which counts in that the answers' shares are themselves observed.
    Not measurable below 30 images right on clean, nor where the chance level is 1 (one answer to everything).

    >>> labels, decisions = np.repeat([0, 1], 50), np.repeat([0, 1, 0], [40, 50, 10])  # 40 and 40 of 50 right, answers 50 : 50
    >>> {name: round(e.value, 3) for name, e in conditional_retention(decisions, labels, np.ones(100, bool)).items()}
    {'share': 0.8, 'chance': 0.5, 'above_chance': 0.3}
    """
    labels, clean = not_empty(np.asarray(labels), "labels"), np.asarray(clean_correct, dtype=bool)
    right = same(decisions, labels)
    if labels.shape != clean.shape:
        raise ValueError(f"labels and clean_correct must cover the same images, got {labels.shape} and {clean.shape}")
    if (n := int(clean.sum())) < FEWEST:
        return _refused(f"{n} images are right on clean: a share of them takes at least {FEWEST}", n)
    (answers, classes), n_classes = coded(np.asarray(decisions), labels)
    answer_shares, clean_shares = class_shares(answers, n_classes), class_shares(classes[clean], n_classes)
    chance = float(answer_shares @ clean_shares)
    if chance > 1 - ROUNDING:
        return _refused("every answer to the probe is the class of every image right on clean: a constant answer cannot fail here", n)
    # First-order influence of an image: through its own answer if it is right on clean, and through the shares of the answers.
    above = per_image(right)[clean] - answer_shares[classes[clean]]
    influence = -(per_image(clean_shares[answers]) - chance)
    influence[clean] += (above - above.mean()) / clean.mean()
    return {
        "share": share(right, clean),
        "chance": Estimate(chance, n=n, unit=CHANCE),
        "above_chance": Estimate(float(above.mean()), *mean_interval(above.mean() + influence), n=n, unit="share"),
    }


def _refused(reason: str, n: int) -> dict[str, Estimate]:
    units = {"share": "share", "chance": CHANCE, "above_chance": "share"}
    return {name: Estimate.not_measurable(reason, n=n, unit=unit) for name, unit in units.items()}
