import numpy as np
import pytest
from scipy.special import softmax

from crossdistill.metrics.confidence import confidence


def test_is_the_mean_of_the_largest_probabilities():
    logits = np.random.default_rng(0).normal(size=(50, 4))
    estimate = confidence(logits)
    assert estimate.value == pytest.approx(softmax(logits, axis=1).max(axis=1).mean())
    assert estimate.low < estimate.value < estimate.high


def test_a_certain_network_has_confidence_one_and_huge_logits_stay_finite():
    assert confidence(np.array([[1e5, 0.0], [0.0, 1e5]])).value == 1.0


def test_draws_are_averaged_inside_an_image():
    certain, torn = np.full((3, 2), [50.0, 0.0]), np.zeros((3, 2))
    estimate = confidence(np.stack([certain, torn]))
    assert (estimate.value, estimate.n) == (pytest.approx(0.75), 3)


def test_one_image_has_no_interval():
    assert confidence(np.zeros((1, 2))).status == "not_measurable"
