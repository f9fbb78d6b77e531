"""How many answers a shape bias rests on: the counts of its two cues (Geirhos et al., ICLR 2019, arXiv 1811.12231)."""

import numpy as np

from crossdistill.core.registry import metric
from crossdistill.core.types import Estimate
from crossdistill.metrics._answers import COUNT, cue_answers, per_image, share

NO_CONFLICT = "no image has shape and texture of two different classes"


@metric(source="Geirhos et al., ICLR 2019", unit="images; share")
def cue_counts(decisions: np.ndarray, shape_labels: np.ndarray, texture_labels: np.ndarray) -> dict[str, Estimate]:
    """`shape`, `texture`: how many images are answered with that cue; `either`: their share of all images in conflict (Wilson).

    Over images whose two cues name different classes; their number is `n`. Several draws are averaged inside an image, so that a
    count may be fractional. `shape_bias` is shape / (shape + texture): from 5 % "either" it is noise.

    >>> shape, texture = np.array(["cat"] * 4), np.array(["dog", "dog", "dog", "cat"])
    >>> found = cue_counts(np.array(["cat", "dog", "na", "cat"]), shape, texture)  # the last is no conflict, "na" names neither
    >>> found["shape"].value, found["texture"].value, round(found["either"].value, 3)
    (1.0, 1.0, 0.667)
    """
    answers = cue_answers(decisions, shape_labels, texture_labels)
    either = share(answers.shape | answers.texture, answers.conflict, nothing=NO_CONFLICT)
    if either.value is None:
        return {"shape": either, "texture": either, "either": either}
    counts = {"shape": answers.shape, "texture": answers.texture}
    return {**{cue: Estimate(float(per_image(named).sum()), n=either.n, unit=COUNT) for cue, named in counts.items()}, "either": either}
