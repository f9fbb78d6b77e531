import numpy as np
import pytest
from statsmodels.stats.proportion import proportion_confint

from crossdistill.metrics.accuracy import accuracy


def test_counts_right_answers_with_wilsons_interval():
    estimate = accuracy(np.array([0, 1, 2, 2]), np.array([0, 1, 2, 0]))
    assert (estimate.value, estimate.n, estimate.unit, estimate.status) == (0.75, 4, "share", "ok")
    assert (estimate.low, estimate.high) == pytest.approx(proportion_confint(3, 4, method="wilson"))


def test_logits_are_read_by_their_largest_class():
    logits = np.array([[0.1, 0.9], [0.8, 0.2]], dtype=np.float32)
    assert accuracy(logits, np.array([1, 1])).value == 0.5


def test_draws_are_averaged_inside_an_image_and_do_not_add_images():
    labels = np.array([0, 1, 2, 3])
    decisions = np.stack([labels, [0, 1, 0, 0]])  # images right in 2, 2, 1 and 1 of 2 draws
    estimate, one_draw = accuracy(decisions, labels), accuracy(np.array([0, 1, 2, 0]), labels)
    assert (estimate.value, estimate.n) == (0.75, 4)
    assert estimate.low > one_draw.low


def test_repeating_a_draw_changes_nothing():
    labels, decisions = np.arange(10) % 3, np.arange(10) % 2
    repeated, once = accuracy(np.stack([decisions] * 5), labels), accuracy(decisions, labels)
    assert (repeated.value, repeated.low, repeated.high, repeated.n) == pytest.approx((once.value, once.low, once.high, once.n))


def test_a_perfect_network_still_has_an_interval():
    estimate = accuracy(np.zeros(20, int), np.zeros(20, int))
    assert (estimate.value, estimate.high) == (1.0, 1.0)
    assert estimate.low == pytest.approx(proportion_confint(20, 20, method="wilson")[0])


def test_refuses_logits_that_are_not_finite():
    with pytest.raises(ValueError, match="logits must be finite, got 1 values"):
        accuracy(np.array([[np.nan, 0.0]]), np.array([0]))


def test_refuses_decisions_given_as_floats():
    with pytest.raises(ValueError, match="decisions must not be floats"):
        accuracy(np.array([1.0, 0.0]), np.array([1, 0]))


def test_refuses_text_beside_integers():
    with pytest.raises(TypeError, match="both be integers or both be text"):
        accuracy(np.array(["cat"]), np.array([0]))


def test_refuses_another_number_of_labels():
    with pytest.raises(ValueError, match="cover the same images"):
        accuracy(np.array([0, 1, 2]), np.array([0, 1]))
