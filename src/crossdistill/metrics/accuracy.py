"""Share of images whose label is answered, with Wilson's interval (Wilson, JASA 1927)."""

import numpy as np

from crossdistill.core.registry import metric
from crossdistill.core.types import Estimate
from crossdistill.metrics._answers import as_decisions, not_empty, same, share


@metric(source="Wilson, JASA 1927", unit="share")
def accuracy(logits_or_decisions: np.ndarray, labels: np.ndarray) -> Estimate:
    """Share of images answered with their label, 0 to 1; the interval is over images.

    `logits_or_decisions` is floating [images, classes], or the classes answered [images], integers or text; several draws
    carry a leading axis and are averaged inside an image first.

    >>> accuracy(np.array(["cat", "dog", "cat", "dog"]), np.array(["cat", "dog", "cat", "cat"])).value
    0.75
    """
    return share(same(as_decisions(logits_or_decisions), not_empty(np.asarray(labels), "labels")))
