"""Intervals and tests against statsmodels, scipy, and slow readings of their formulas."""

from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestIndPower, TTestPower
from statsmodels.stats.proportion import proportion_confint

from crossdistill import stats


def corrected(p_values, method):
    """statsmodels' correction, without the garbage collection of 0.2 s that its Holm does in every call."""
    with mock.patch("gc.collect"):
        return multipletests(p_values, method=method)[1].tolist()


@given(st.integers(1, 10_000), st.floats(0, 1))
@settings(max_examples=50, deadline=None)
def test_wilson_agrees_with_statsmodels(n, share):
    successes = round(share * n)
    assert stats.wilson(successes, n) == pytest.approx(proportion_confint(successes, n, method="wilson"), abs=1e-12)


def test_wilson_refuses_more_successes_than_trials():
    with pytest.raises(ValueError, match="got 3 of 2"):
        stats.wilson(3, 2)


def test_wilson_refuses_no_trials():
    with pytest.raises(ValueError, match="n > 0, got 0 of 0"):
        stats.wilson(0, 0)


def test_the_interval_of_a_share_is_wilsons_with_one_draw():
    hits = np.repeat([1.0, 0.0], [30, 70])
    assert stats.share_interval(hits, np.ones(100)) == pytest.approx(stats.wilson(30, 100), abs=1e-12)


def test_the_interval_of_a_ratio_is_wilsons_of_those_that_count_with_one_draw():
    hits, totals = np.repeat([1.0, 0.0, 0.0], [30, 20, 50]), np.repeat([1.0, 1.0, 0.0], [30, 20, 50])
    assert stats.share_interval(hits, totals) == pytest.approx(stats.wilson(30, 50), abs=1e-12)


def test_equal_draws_of_an_image_add_no_information():
    hits = np.repeat([1.0, 0.0], [30, 70])  # the mean over 5 draws that always agree
    assert stats.share_interval(hits, np.ones(100), draws=5) == pytest.approx(stats.wilson(30, 100), abs=1e-12)


def test_draws_never_count_for_more_than_their_number_of_answers():
    half_right = np.full(100, 0.5)  # no spread between images at all
    assert stats.share_interval(half_right, np.ones(100), draws=2) == pytest.approx(stats.wilson(100, 200), abs=1e-12)


def test_draws_of_always_right_images_count_as_images():
    assert stats.share_interval(np.ones(50), np.ones(50), draws=4) == stats.wilson(50, 50)


def test_the_interval_over_draws_covers_the_truth():
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        ease = generator.beta(1, 1, size=200)  # each image has its own chance of a right answer; the mean is 0.5
        hits = generator.binomial(3, ease) / 3
        low, high = stats.share_interval(hits, np.ones(200), draws=3)
        covered += low <= 0.5 <= high
    assert 0.92 <= covered / 400 <= 0.98  # 95 % within about 3 standard errors of 400 trials


def test_the_interval_of_a_mean_is_students():
    values = np.array([1.0, 2.0, 4.0, 7.0])
    expected = scipy_stats.t.interval(0.95, 3, loc=3.5, scale=scipy_stats.sem(values))
    assert stats.mean_interval(values) == pytest.approx(expected, abs=1e-12)


def test_the_interval_of_a_mean_refuses_a_single_value():
    with pytest.raises(ValueError, match="at least 2 values, got 1"):
        stats.mean_interval(np.array([1.0]))


def test_the_bootstrap_agrees_with_resampling_image_by_image():
    generator = np.random.default_rng(1)
    columns = generator.integers(0, 2, size=(300, 2)).astype(float)
    slow = np.array([np.subtract(*columns[generator.integers(0, 300, 300)].mean(axis=0)) for _ in range(4000)])
    found = stats.paired_bootstrap(columns, lambda means: means[:, 0] - means[:, 1], "test", resamples=4000)
    # Percentiles of 4,000 resamples of a statistic with a standard error of 0.04 wobble by about 0.002.
    assert found == pytest.approx(np.percentile(slow, [2.5, 97.5]), abs=0.008)


def test_the_bootstrap_keeps_columns_paired():
    column = np.random.default_rng(2).integers(0, 2, 200).astype(float)
    found = stats.paired_bootstrap(np.stack([column, column], axis=1), lambda means: means[:, 0] - means[:, 1], "test")
    assert found == (0.0, 0.0)


def test_the_bootstrap_depends_on_its_key_alone():
    columns = np.random.default_rng(3).normal(size=(50, 1))
    first, again, other = (stats.paired_bootstrap(columns, lambda means: means[:, 0], key) for key in ("a", "a", "b"))
    assert first == again != other


def test_the_bootstrap_does_not_depend_on_the_order_of_images():
    columns = np.random.default_rng(4).integers(0, 2, size=(80, 2)).astype(float)
    assert stats.paired_bootstrap(columns, lambda m: m[:, 0], "k") == stats.paired_bootstrap(columns[::-1], lambda m: m[:, 0], "k")


@given(st.integers(2, 8), st.integers(2, 8), st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_welch_agrees_with_scipy(n_a, n_b, seed):
    generator = np.random.default_rng(seed)
    a, b = generator.normal(0.5, 0.03, n_a), generator.normal(0.45, 0.01, n_b)
    expected = scipy_stats.ttest_ind(a, b, equal_var=False)
    interval = expected.confidence_interval()
    found = stats.welch(a, b)
    assert (found.p, found.low, found.high) == pytest.approx((expected.pvalue, interval.low, interval.high), abs=1e-9)
    assert found.spread.freedom == pytest.approx(expected.df)


def test_welch_works_where_one_arm_has_no_spread():
    found = stats.welch(np.array([1.0, 1.0, 1.0]), np.array([0.4, 0.6]))
    assert found.difference == pytest.approx(0.5)
    assert found.spread.freedom == pytest.approx(1)  # those of the other arm


@pytest.mark.parametrize(("a", "b", "words"), [([1.0], [1.0, 2.0], "at least 2 runs"), ([1.0, 1.0], [2.0, 2.0], "no spread")])
def test_welch_refuses_what_it_cannot_judge(a, b, words):
    with pytest.raises(ValueError, match=words):
        stats.welch(np.array(a), np.array(b))


@given(st.integers(2, 8), st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_one_sample_agrees_with_scipy(n, seed):
    values = np.random.default_rng(seed).normal(0.01, 0.03, n)
    expected = scipy_stats.ttest_1samp(values, 0)
    interval = expected.confidence_interval()
    found = stats.one_sample(values)
    assert (found.p, found.low, found.high) == pytest.approx((expected.pvalue, interval.low, interval.high), abs=1e-9)


@pytest.mark.parametrize(("values", "words"), [([0.1], "at least 2 runs, got 1"), ([0.1, 0.1], "no spread")])
def test_one_sample_refuses_what_it_cannot_judge(values, words):
    with pytest.raises(ValueError, match=words):
        stats.one_sample(np.array(values))


def test_the_fewest_runs_of_a_mean_agree_with_statsmodels():
    expected = TTestPower().solve_power(effect_size=0.7, alpha=0.05, power=0.8)
    assert stats.fewest_runs(0.7, lambda runs: stats.Spread(runs**-0.5, runs - 1)) == int(np.ceil(expected))


@given(st.integers(2, 8), st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_fiellers_set_is_where_students_test_does_not_reject(n, seed):
    generator = np.random.default_rng(seed)
    b = generator.normal(0.1, 0.02, n)
    a = 0.4 * b + generator.normal(0, 0.02, n)
    found = stats.fieller(a, b)
    ratios = np.concatenate([[-1e9], np.linspace(-40, 40, 160_001), [1e9]])
    strays = a - ratios[:, None] * b
    quantile = scipy_stats.t.ppf(0.975, n - 1)
    kept = ratios[np.abs(strays.mean(axis=1)) <= quantile * strays.std(axis=1, ddof=1) / np.sqrt(n)]
    assert found.value == pytest.approx(a.mean() / b.mean())
    if found.low is None:
        assert scipy_stats.ttest_1samp(b, 0).pvalue > 0.05  # the denominator itself is not told from zero
        assert (kept[0], kept[-1]) == (-1e9, 1e9)
    elif max(abs(found.low), abs(found.high)) < 40:
        assert (kept[0], kept[-1]) == pytest.approx((found.low, found.high), abs=1e-3)
        assert len(kept) == pytest.approx((found.high - found.low) * 2000, abs=2)  # one stretch, without a hole


def test_fiellers_interval_of_a_denominator_without_noise_is_students():
    a = np.array([0.03, 0.05, 0.04, 0.06])
    low, high = scipy_stats.ttest_1samp(a, 0).confidence_interval()
    assert stats.fieller(a, np.full(4, 0.5)) == pytest.approx((a.mean() / 0.5, low / 0.5, high / 0.5))


def test_fiellers_interval_closes_where_all_figures_are_proportional():
    b = np.array([0.1, 0.2, 0.15])
    assert stats.fieller(0.4 * b, b) == pytest.approx((0.4, 0.4, 0.4), abs=1e-7)  # the square root of a rounding error


def test_fiellers_interval_covers_the_true_ratio():
    generator, covered = np.random.default_rng(6), 0
    for _ in range(1000):
        teacher = generator.normal(0.10, 0.0125, 5)
        gaps = teacher - generator.normal(0, 0.0125, 5)
        ratio = stats.fieller(0.4 * teacher + generator.normal(0, 0.018, 5), gaps)
        covered += ratio.low is None or ratio.low <= 0.4 <= ratio.high
    assert 0.93 <= covered / 1000 <= 0.97  # the set is exact; 1,000 studies have a standard error of 0.7 %


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        ([1.0], [1.0], "at least 2 pairs"),
        ([1.0, 2.0], [1.0], "2 and 1 figures"),
        ([1.0, 1.0], [2.0, 2.0], "no spread"),
        ([1, 2], [-1, 1], "is 0"),
    ],
)
def test_fieller_refuses_what_it_cannot_judge(a, b, words):
    with pytest.raises(ValueError, match=words):
        stats.fieller(np.array(a), np.array(b))


@pytest.mark.parametrize("n", [2, 3, 5, 10, 40])
def test_the_smallest_detectable_effect_agrees_with_statsmodels(n):
    expected = TTestIndPower().solve_power(nobs1=n, alpha=0.05, power=0.8)  # in standard deviations
    found = stats.minimum_detectable_effect(*stats.difference_spread(1 / n, n - 1, 1 / n, n - 1))
    # statsmodels adds the chance of a finding in the wrong tail, under 1e-5 of power.
    assert found == pytest.approx(expected, rel=1e-4)


def test_the_smallest_detectable_effect_of_a_known_spread_is_the_normal_one():
    assert stats.minimum_detectable_effect(1.0, np.inf) == pytest.approx(1.9600 + 0.8416, abs=1e-3)


@pytest.mark.parametrize("effect", [0.3, 0.8, 1.5, 4.0])
def test_the_runs_needed_agree_with_statsmodels(effect):
    expected = TTestIndPower().solve_power(effect_size=effect, alpha=0.05, power=0.8)
    assert stats.runs_needed(effect, 1.0, 1.0) == int(np.ceil(expected))


def test_unequal_spreads_need_the_runs_that_simulation_needs():
    runs = stats.runs_needed(1.0, 1.0, 0.1)
    assert runs is not None
    generator = np.random.default_rng(5)
    a, b = generator.normal(1.0, 1.0, (4000, runs)), generator.normal(0.0, 0.1**0.5, (4000, runs))
    power = (scipy_stats.ttest_ind(a, b, axis=1, equal_var=False).pvalue < 0.05).mean()
    assert 0.77 <= power <= 0.90  # 80 %, rounded up to whole runs; 4,000 studies have a standard error of 0.6 %


@pytest.mark.parametrize(("difference", "variance"), [(0.0, 1.0), (1.0, 0.0), (1e-6, 1.0)])
def test_no_number_of_runs_is_needed_where_none_would_do(difference, variance):
    assert stats.runs_needed(difference, variance, variance) is None


def test_a_negative_difference_needs_as_many_runs():
    assert stats.runs_needed(-0.8, 1.0, 1.0) == stats.runs_needed(0.8, 1.0, 1.0)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
@settings(max_examples=60, deadline=None)
def test_holm_agrees_with_statsmodels(p_values):
    assert stats.holm(p_values) == pytest.approx(corrected(p_values, "holm"))


def test_holm_of_an_empty_family_is_empty():
    assert stats.holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
@settings(max_examples=40, deadline=None)
def test_benjamini_hochberg_agrees_with_statsmodels(p_values):
    assert stats.benjamini_hochberg(p_values) == pytest.approx(corrected(p_values, "fdr_bh"))


def test_benjamini_hochberg_of_an_empty_family_is_empty():
    assert stats.benjamini_hochberg([]) == []
