"""Share of shape answers among all answers that name either cue (Geirhos et al., ICLR 2019, arXiv 1811.12231)."""

import numpy as np

from crossdistill.core.registry import metric
from crossdistill.core.types import Estimate
from crossdistill.metrics._answers import not_empty, same, share


@metric(source="Geirhos et al., ICLR 2019", unit="share")
def shape_bias(decisions: np.ndarray, shape_labels: np.ndarray, texture_labels: np.ndarray) -> Estimate:
    """Share of shape decisions among those that name the shape or the texture, 0 to 1, with Wilson's interval.

    Images whose two cues name one class are left out, and so are all other answers; `n` is the number of images that count.

    >>> shape, texture = np.array(["cat"] * 4), np.array(["dog", "dog", "dog", "cat"])
    >>> shape_bias(np.array(["cat", "dog", "na", "cat"]), shape, texture).value  # the last is no conflict, "na" names neither
    0.5
    """
    conflict = ~same(np.asarray(shape_labels), texture_labels)
    is_shape = same(not_empty(np.asarray(decisions), "decisions"), shape_labels)
    either = conflict & (is_shape | same(decisions, texture_labels))
    return share(is_shape, either, nothing="no decision names the shape or the texture of an image whose two cues conflict")
