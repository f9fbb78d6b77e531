"""Mean confidence: the probability that a network gives to its own answer (Guo et al., 2017, https://arxiv.org/abs/1706.04599)."""

import numpy as np

from crossdistill.core.registry import metric
from crossdistill.core.types import Estimate
from crossdistill.metrics._answers import finite, mean_over_images, not_empty


@metric(source="Guo et al., ICML 2017", unit="probability")
def confidence(logits: np.ndarray) -> Estimate:
    """Mean largest softmax probability, 1 / classes to 1, with a t interval over images.

    `logits` are [images, classes], or [draws, images, classes]: draws are averaged inside an image first.

    >>> confidence(np.zeros((4, 2))).value
    0.5
    """
    logits = finite(not_empty(np.asarray(logits), "logits"), "logits").astype(np.float64)
    largest = 1 / np.exp(logits - logits.max(axis=-1, keepdims=True)).sum(axis=-1)
    return mean_over_images(largest, unit="probability")
