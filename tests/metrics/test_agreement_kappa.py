import math

import numpy as np
import pytest
from scipy.stats import t
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.inter_rater import cohens_kappa
from statsmodels.stats.proportion import proportion_confint

from crossdistill.metrics.agreement_kappa import agreement_kappa


def answers(generator, n=500, n_classes=4, agreeing=0.6, draws=None):
    """Answers before and after: the same class in some 60 % of the images, else any, unevenly."""
    before = generator.choice(n_classes, n, p=[0.4, 0.3, 0.2, 0.1])
    shape = n if draws is None else (draws, n)
    other = generator.choice(n_classes, shape, p=[0.1, 0.1, 0.1, 0.7])
    return before, np.where(generator.random(shape) < agreeing, before, other)


def test_is_cohens_kappa_with_its_large_sample_standard_error():
    before, after = answers(np.random.default_rng(0))
    table = np.array([[np.sum((before == i) & (after == j)) for j in range(4)] for i in range(4)])
    estimate, expected = agreement_kappa(before, after), cohens_kappa(table)
    assert estimate.value == pytest.approx(cohen_kappa_score(before, after), abs=1e-12)
    assert estimate.value == pytest.approx(expected.kappa, abs=1e-12)
    half = math.log((1 - estimate.low) / (1 - estimate.high)) / 2
    error = half / t.ppf(0.975, 499) * (1 - estimate.value)
    assert error == pytest.approx(expected.std_kappa * math.sqrt(500 / 499), rel=1e-9)


@pytest.mark.parametrize("draws", [None, 5])
def test_the_interval_is_that_of_resampled_images(draws):
    generator = np.random.default_rng(1)
    before, after = answers(generator, n=300, draws=draws)
    estimate, resampled = agreement_kappa(before, after), []
    for _ in range(2000):
        rows = generator.integers(0, 300, 300)
        resampled.append(agreement_kappa(before[rows], after[..., rows]).value)
    # The ends of 2,000 resamples wobble by 5 % of the standard error, and the two differ at second order in 1 / 300.
    low, high = np.percentile(resampled, [2.5, 97.5])
    assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=0.2 * np.std(resampled))


def test_the_interval_covers_the_truth():
    generator, truth, covered = np.random.default_rng(2), 0.6, 0
    for _ in range(500):
        before = generator.integers(0, 4, 100)
        after = np.where(generator.random(100) < truth, before, generator.integers(0, 4, 100))
        estimate = agreement_kappa(before, after)
        covered += estimate.low <= truth <= estimate.high
    assert 0.93 <= covered / 500 <= 0.97


def test_agreement_of_draws_is_averaged_inside_an_image_and_chance_is_that_of_each_draw():
    before, after = answers(np.random.default_rng(3), draws=3)
    observed = np.mean([after_draw == before for after_draw in after])
    chance = np.mean([sum(np.mean(before == k) * np.mean(after_draw == k) for k in range(4)) for after_draw in after])
    estimate = agreement_kappa(before, after)
    assert estimate.value == pytest.approx((observed - chance) / (1 - chance), abs=1e-12)
    assert estimate.n == 500


def test_logits_count_by_their_largest_class():
    logits = np.array([[2.0, 1.0], [0.0, 1.0], [3.0, 0.0], [0.0, 3.0]])
    after = np.stack([logits, logits[[0, 1, 3, 2]]])
    decisions = np.array([0, 1, 0, 1]), np.array([[0, 1, 0, 1], [0, 1, 1, 0]])
    assert agreement_kappa(logits, after) == agreement_kappa(*decisions)
    assert agreement_kappa(logits, after).value == pytest.approx(0.5)  # A = (1 + 1/2) / 2, A0 = 1/2


def test_answers_that_do_not_change_agree_perfectly_but_not_for_certain():
    before = np.arange(40) % 4
    estimate = agreement_kappa(before, before)
    lowest = proportion_confint(40, 40, method="wilson")[0]
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((1, (lowest - 0.25) / 0.75, 1))


def test_answers_that_collapse_to_one_class_agree_by_chance():
    estimate = agreement_kappa(np.arange(40) % 4, np.zeros(40, int))
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((0, 0, 0))  # A is A0 whatever the images are


def test_a_constant_predictor_is_not_measurable():
    estimate = agreement_kappa(np.zeros(50, int), np.zeros((3, 50), int))
    assert (estimate.status, estimate.value) == ("not_measurable", None)
    assert estimate.reason == "every answer is the same class, so that agreement proves nothing"


def test_one_image_is_not_measurable():
    assert agreement_kappa(np.array([0]), np.array([1])).status == "not_measurable"


def test_draws_of_both_are_paired():
    generator = np.random.default_rng(4)
    first, second = answers(generator), answers(generator)
    before, after = (np.stack(draws) for draws in zip(first, second, strict=True))
    observed = np.mean(before == after)
    chance = np.mean([[np.mean(b == k) * np.mean(a == k) for k in range(4)] for b, a in (first, second)]) * 4
    assert agreement_kappa(before, after).value == pytest.approx((observed - chance) / (1 - chance), abs=1e-12)


def test_refuses_another_number_of_draws():
    with pytest.raises(ValueError, match="one draw or those of probe_decisions, got 2 and 3"):
        agreement_kappa(np.zeros((2, 5), int), np.zeros((3, 5), int))


def test_refuses_other_images():
    with pytest.raises(ValueError, match="cover the same images"):
        agreement_kappa(np.zeros(5, int), np.zeros(6, int))
