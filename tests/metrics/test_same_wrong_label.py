from itertools import permutations

import numpy as np
import pytest
from statsmodels.stats.proportion import proportion_confint

from crossdistill.metrics.same_wrong_label import same_wrong_label


def literal_chance(a, b, labels):
    """For each image that both got wrong, the share of the other such images of its class with an equal answer; then their mean."""
    wrong = [i for i in range(len(a)) if a[i] != labels[i] and b[i] != labels[i]]
    shares = []
    for i in wrong:
        others = [j for j in wrong if j != i and labels[j] == labels[i]]
        if others:
            shares.append(np.mean([a[i] == b[j] for j in others]))
    return np.mean(shares)


def test_by_hand():
    labels = np.array(["cat", "cat", "cat", "dog", "dog", "dog"])
    a = np.array(["dog", "owl", "cat", "cat", "na", "owl"])
    b = np.array(["dog", "dog", "owl", "cat", "na", "cat"])  # both wrong on all but the third; equal on 1, 4 and 5
    rate = same_wrong_label(a, b, labels)["rate"]
    assert (rate.value, rate.n) == (pytest.approx(3 / 5), 5)
    assert (rate.low, rate.high) == pytest.approx(proportion_confint(3, 5, method="wilson"))


@pytest.mark.parametrize("seed", range(3))
def test_chance_agrees_with_a_slow_reading(seed):
    generator = np.random.default_rng(seed)
    labels, a, b = generator.integers(0, 4, (3, 80))
    assert same_wrong_label(a, b, labels)["chance"].value == pytest.approx(literal_chance(a, b, labels), abs=1e-12)


def test_a_network_beside_itself_has_rate_one():
    generator = np.random.default_rng(0)
    labels, answers = generator.integers(0, 5, (2, 200))
    found = same_wrong_label(answers, answers, labels)
    assert found["rate"].value == 1
    assert found["chance"].value == pytest.approx(1 / 4, abs=0.05)  # answers over four wrong classes at random


def test_networks_that_share_only_which_classes_look_alike_have_the_chance_rate():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 5, 20_000)
    a, b = ((labels + np.where(generator.random(20_000) < 0.7, 1, 2)) % 5 for _ in range(2))
    found = same_wrong_label(a, b, labels)
    assert found["chance"].value == pytest.approx(0.7**2 + 0.3**2, abs=0.01)
    assert found["rate"].low < found["chance"].value < found["rate"].high


def test_chance_is_unbiased_for_few_images():
    # Three answers of each network to one class: over all orders of b's answers the mean rate is the chance.
    a, b, labels = np.array([1, 1, 2]), np.array([1, 2, 3]), np.zeros(3, int)
    orders = [np.array(order) for order in permutations(b)]
    rates = [same_wrong_label(a, order, labels)["rate"].value for order in orders]
    chances = [same_wrong_label(a, order, labels)["chance"].value for order in orders]
    assert np.mean(chances) == pytest.approx(np.mean(rates))


def test_is_not_measurable_where_one_network_is_faultless():
    found = same_wrong_label(np.array([0, 1]), np.array([1, 0]), np.array([0, 1]))
    assert {estimate.status for estimate in found.values()} == {"not_measurable"}
    assert "answered wrongly by both" in found["rate"].reason


def test_chance_needs_two_images_of_a_class():
    found = same_wrong_label(np.array([1, 0]), np.array([1, 2]), np.array([0, 1]))
    assert (found["rate"].value, found["chance"].status) == (0.5, "not_measurable")


def test_draws_are_compared_with_themselves():
    labels = np.zeros(4, int)
    first, second = np.array([1, 1, 2, 2]), np.array([3, 3, 3, 3])
    found = same_wrong_label(np.stack([first, second]), np.stack([first, second]), labels)
    assert (found["rate"].value, found["rate"].n) == (1, 4)
    assert found["chance"].value == pytest.approx((1 / 3 + 1) / 2)  # of 1 1 2 2 one other of three is equal, of 3 3 3 3 all are


def test_refuses_text_beside_integers():
    with pytest.raises(TypeError, match="both be integers or both be text"):
        same_wrong_label(np.array(["a"]), np.array([0]), np.array([0]))
