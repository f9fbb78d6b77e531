"""Which cue the answers name when shape, texture and colour disagree (after Hermann & Lampinen, NeurIPS 2020, arXiv 2006.12433)."""

import numpy as np

from crossdistill.core.registry import metric
from crossdistill.core.types import Estimate
from crossdistill.metrics._answers import share, three_cues


@metric(source="Hermann & Lampinen, NeurIPS 2020", unit="share")
def cue_choice(
    decisions: np.ndarray, shape_labels: np.ndarray, texture_labels: np.ndarray, colour_labels: np.ndarray
) -> dict[str, Estimate]:
    """`shape`, `texture`, `colour`: the share of decisions that name each factor, 0 to 1, with Wilson's intervals.

    Over images whose three factors name three different classes, so that no answer names two; the shares add up to at most
    1, and the rest named none. Unlike `cue_bias` and `shape_bias` this keeps the absolute sensitivity to each cue.

    >>> factors = np.array([0, 0]), np.array([1, 1]), np.array([2, 2])
    >>> {cue: estimate.value for cue, estimate in cue_choice(np.array([0, 2]), *factors).items()}
    {'shape': 0.5, 'texture': 0.0, 'colour': 0.5}
    """
    named, conflict = three_cues(decisions, shape_labels, texture_labels, colour_labels)
    nothing = "no image has shape, texture and colour of three different classes"
    return {cue: share(of_cue, conflict, nothing=nothing) for cue, of_cue in named.items()}
