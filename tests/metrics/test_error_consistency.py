import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.inter_rater import cohens_kappa

from crossdistill.metrics.error_consistency import error_consistency


def right(both, only_a, only_b, neither):
    """Right or wrong of two networks with the given 2 x 2 table."""
    counts = (both, only_a, only_b, neither)
    return np.repeat([True, True, False, False], counts), np.repeat([True, False, True, False], counts)


def literal(a, b):
    """The published definition, read one image after the other."""
    n = len(a)
    p_a, p_b = sum(map(int, a)) / n, sum(map(int, b)) / n
    expected = p_a * p_b + (1 - p_a) * (1 - p_b)
    observed = sum(bool(x) == bool(y) for x, y in zip(a, b, strict=True)) / n
    return 1.0 if observed == 1 else (observed - expected) / (1 - expected)


def test_by_hand():
    # 50 images: both right on 20, a alone on 5, b alone on 10, neither on 15: c_obs = .7, c_exp = .5 * .6 + .5 * .4 = .5.
    estimate = error_consistency(*right(20, 5, 10, 15))
    assert (estimate.value, estimate.n, estimate.unit) == (pytest.approx(0.4, abs=1e-15), 50, "kappa")
    assert estimate.low < 0.4 < estimate.high


@pytest.mark.parametrize("seed", range(5))
def test_is_cohens_kappa_of_being_right(seed):
    generator = np.random.default_rng(seed)
    a, b = generator.random((2, 400)) < generator.random((2, 1))
    table = [[np.sum(a & b), np.sum(a & ~b)], [np.sum(~a & b), np.sum(~a & ~b)]]
    found = error_consistency(a, b).value
    assert found == pytest.approx(literal(a, b), abs=1e-14)
    assert found == pytest.approx(cohen_kappa_score(a, b), abs=1e-12)
    assert found == pytest.approx(cohens_kappa(np.array(table)).kappa, abs=1e-12)


def test_a_network_errs_as_itself_always():
    a, _ = right(60, 20, 10, 10)
    estimate = error_consistency(a, a)
    assert (estimate.value, estimate.low, estimate.high) == (1.0, 1.0, 1.0)


def test_opposite_networks_of_half_accuracy_reach_minus_one():
    assert error_consistency(*right(0, 50, 50, 0)).value == -1.0


def test_independent_errors_have_none_and_the_interval_covers_it_as_often_as_it_says():
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        a, b = generator.random((2, 500)) < [[0.6], [0.7]]
        estimate = error_consistency(a, b)
        covered += estimate.low <= 0 <= estimate.high
    assert 0.92 <= covered / 400 <= 0.98  # 95 % +- 3 standard errors of 400 trials


def test_the_interval_is_that_of_resampled_images():
    a, b = right(50, 20, 10, 20)
    generator = np.random.default_rng(3)
    rows = generator.integers(0, 100, (4000, 100))
    kappas = [literal(a[row], b[row]) for row in rows]
    estimate = error_consistency(a, b)
    # Two sets of some thousand resamples: their percentiles wobble by about .01.
    assert (estimate.low, estimate.high) == pytest.approx(tuple(np.percentile(kappas, [2.5, 97.5])), abs=0.03)


def test_its_interval_at_the_accuracies_of_strong_networks():
    # 10,000 images at .973 and .9347: published networks on CIFAR-10, whose interval is .230 to .307 round .269.
    estimate = error_consistency(*right(9213, 516, 134, 137))
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((0.2685, 0.2305, 0.307), abs=0.003)


@pytest.mark.parametrize("table", [(10, 0, 0, 0), (6, 4, 0, 0), (0, 4, 0, 6), (0, 0, 0, 10)])
def test_a_network_that_is_always_right_or_wrong_has_nothing_to_be_told_from_chance(table):
    estimate = error_consistency(*right(*table))
    assert (estimate.status, estimate.value, estimate.n) == ("not_measurable", None, 10)
    assert "always right or always wrong" in estimate.reason


def test_zeros_and_ones_are_right_and_wrong():
    a, b = right(20, 5, 10, 15)
    assert error_consistency(a.astype(int), b.astype(float)) == error_consistency(a, b)


def test_a_draw_that_is_hard_for_both_is_no_agreement():
    generator = np.random.default_rng(0)
    easy, hard = generator.random((2, 2, 4000)) < np.array([0.9, 0.2])[:, None, None]  # [draw][network, images], errors independent
    a, b = np.stack([easy[0], hard[0]]), np.stack([easy[1], hard[1]])
    assert abs(error_consistency(a, b).value) < 0.05
    assert literal(a.ravel(), b.ravel()) > 0.4  # what pooling the answers would give


def test_of_several_draws_chance_is_the_mean_over_draws():
    generator = np.random.default_rng(1)
    a, b = generator.random((2, 3, 200)) < 0.6
    p_a, p_b = a.mean(axis=1), b.mean(axis=1)
    expected, observed = (p_a * p_b + (1 - p_a) * (1 - p_b)).mean(), (a == b).mean()
    estimate = error_consistency(a, b)
    assert (estimate.value, estimate.n) == (pytest.approx((observed - expected) / (1 - expected), abs=1e-12), 200)


def test_refuses_what_is_not_right_or_wrong():
    with pytest.raises(ValueError, match=r"correct_b must be right or wrong \(True or False, 1 or 0\), got int64"):
        error_consistency(np.array([0, 1, 1]), np.array([0, 1, 7]))


def test_refuses_other_images():
    with pytest.raises(ValueError, match="correct_a and correct_b must cover the same images"):
        error_consistency(np.array([True, False]), np.array([True, False, True]))
