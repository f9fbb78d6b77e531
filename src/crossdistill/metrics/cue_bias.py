"""Shape, texture and colour bias of the answers that name one of them (after Hermann & Lampinen, NeurIPS 2020, arXiv 2006.12433)."""

import numpy as np

from crossdistill.core.registry import metric
from crossdistill.core.types import Estimate
from crossdistill.metrics._answers import one_answer, share, three_cues


@metric(source="Hermann & Lampinen, NeurIPS 2020", unit="share")
def cue_bias(decisions: np.ndarray, shape_labels: np.ndarray, texture_labels: np.ndarray, colour_labels: np.ndarray) -> dict[str, Estimate]:
    """`shape`, `texture`, `colour`: the share of answers that name this cue among those that name any of the three; they add up to 1.

    Over images whose three factors name three different classes, with Wilson's intervals; exact where the factors are known, as on
    trifeature. It is `shape_bias` with a third cue; `cue_choice` divides by all answers instead. Not measurable of a network that
    answers all of these images alike.

    >>> factors = np.array([0, 0, 0]), np.array([1, 1, 1]), np.array([2, 2, 2])
    >>> {cue: estimate.value for cue, estimate in cue_bias(np.array([0, 2, 7]), *factors).items()}  # the last names none
    {'shape': 0.5, 'texture': 0.0, 'colour': 0.5}
    """
    named, conflict = three_cues(decisions, shape_labels, texture_labels, colour_labels)
    nothing = "no decision names a cue of an image whose shape, texture and colour are of three different classes"
    if refusal := one_answer(decisions, conflict, shape_labels, texture_labels, colour_labels):
        n = int(np.atleast_2d(conflict).any(axis=0).sum())
        return {cue: Estimate.not_measurable(refusal, n=n, unit="share") for cue in named}
    any_cue = named["shape"] | named["texture"] | named["colour"]
    return {cue: share(of_cue, any_cue, nothing=nothing) for cue, of_cue in named.items()}
