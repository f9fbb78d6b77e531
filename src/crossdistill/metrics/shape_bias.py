"""Share of shape answers among all answers that name either cue (Geirhos et al., ICLR 2019, arXiv 1811.12231)."""

import numpy as np

from crossdistill.core.registry import metric
from crossdistill.core.types import Estimate
from crossdistill.metrics._answers import cue_answers, one_answer, share


@metric(source="Geirhos et al., ICLR 2019", unit="share")
def shape_bias(decisions: np.ndarray, shape_labels: np.ndarray, texture_labels: np.ndarray) -> Estimate:
    """Share of shape decisions among those that name the shape or the texture, 0 to 1, with Wilson's interval.

    Images whose two cues name one class are left out, and so are all other answers; `n` is the number of images that count. Read it
    beside `cue_counts`, which says how many answers of either kind there are. Not measurable of a network that answers all of them alike.

    >>> shape, texture = np.array(["cat"] * 4), np.array(["dog", "dog", "dog", "cat"])
    >>> shape_bias(np.array(["cat", "dog", "na", "cat"]), shape, texture).value  # the last is no conflict, "na" names neither
    0.5
    """
    answers = cue_answers(decisions, shape_labels, texture_labels)
    if refusal := one_answer(decisions, answers.conflict, shape_labels, texture_labels):
        return Estimate.not_measurable(refusal, n=int(np.atleast_2d(answers.conflict).any(axis=0).sum()), unit="share")
    nothing = "no decision names the shape or the texture of an image whose two cues conflict"
    return share(answers.shape, answers.shape | answers.texture, nothing=nothing)
