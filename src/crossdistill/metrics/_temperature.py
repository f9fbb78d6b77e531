"""The temperature that makes a network's confidence honest on held-out data (Guo et al., ICML 2017, https://arxiv.org/abs/1706.04599)."""

import math

import numpy as np

from crossdistill.metrics._answers import finite, not_empty

LOWEST, HIGHEST = 0.01, 100.0


def probabilities(logits: np.ndarray, temperature: float) -> np.ndarray:
    """softmax(logits / temperature) over the last axis, float64."""
    from scipy.special import softmax

    return softmax(logits.astype(np.float64) / temperature, axis=-1)


def fitted_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature, 0.01 to 100, at which softmax(logits / temperature) gives the labels the least negative log likelihood.

    `logits` [images, classes] of clean validation images, `labels` [images] their classes as columns of the logits. The likelihood has
    one minimum (it is convex in 1 / temperature). Where it lies beyond a bound the bound is returned: 0.01 for a network that is
    never wrong here, 100 for one whose logits say nothing about the labels.
    """
    from scipy.optimize import minimize_scalar

    logits = finite(not_empty(np.asarray(logits), "logits"), "logits").astype(np.float64)
    columns = _columns(logits, np.asarray(labels))
    bounds = math.log(LOWEST), math.log(HIGHEST)

    def loss(log_temperature: float) -> float:
        return _nll(logits / math.exp(log_temperature), columns)

    inside = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-8}).x  # type: ignore[attr-defined]
    # The bounded search stops short of an end, the more so where the loss has underflowed to 0.
    return math.exp(min((*bounds, float(inside)), key=loss))


def _nll(logits: np.ndarray, columns: np.ndarray) -> float:
    """Mean negative log likelihood of the labels in nats."""
    from scipy.special import logsumexp

    return float((logsumexp(logits, axis=1) - logits[np.arange(len(logits)), columns]).mean())


def _columns(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise ValueError(f"logits must be [images, classes] with one label an image, got {logits.shape} and labels {labels.shape}")
    if labels.dtype.kind not in "iu":
        raise TypeError(f"labels must be integers, the columns of the logits, got {labels.dtype}")
    if labels.min() < 0 or labels.max() >= logits.shape[1]:
        raise ValueError(f"labels must be 0 to {logits.shape[1] - 1}, the columns of the logits, got {labels.min()} to {labels.max()}")
    return labels
