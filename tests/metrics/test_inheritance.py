import numpy as np
import pytest
from scipy.stats import ttest_ind

from crossdistill.metrics.inheritance import inheritance

STUDENTS, INDEPENDENTS = np.array([0.62, 0.65, 0.61]), np.array([0.55, 0.60, 0.54, 0.58])


def test_is_welchs_comparison_of_run_means():
    found, expected = inheritance(STUDENTS, INDEPENDENTS), ttest_ind(STUDENTS, INDEPENDENTS, equal_var=False)
    interval = expected.confidence_interval()
    difference = found["difference"]
    assert (difference.value, difference.low, difference.high) == pytest.approx(
        (0.18 / 3 - 0.0008333, interval.low, interval.high), abs=1e-4
    )
    assert (difference.low, difference.high) == pytest.approx((interval.low, interval.high), abs=1e-12)
    assert found["p_value"].value == pytest.approx(expected.pvalue, abs=1e-12)
    assert difference.n == 3  # the smaller arm


def test_swapping_the_arms_flips_the_sign():
    one, other = inheritance(STUDENTS, INDEPENDENTS), inheritance(INDEPENDENTS, STUDENTS)
    assert one["difference"].low == pytest.approx(-other["difference"].high)
    assert one["runs_needed"].value == other["runs_needed"].value


def test_a_unit_change_scales_everything_but_p_and_the_runs():
    share, percent = inheritance(STUDENTS, INDEPENDENTS), inheritance(100 * STUDENTS, 100 * INDEPENDENTS)
    assert percent["minimum_detectable"].value == pytest.approx(100 * share["minimum_detectable"].value)
    assert percent["p_value"].value == pytest.approx(share["p_value"].value)
    assert percent["runs_needed"].value == share["runs_needed"].value


def test_the_smallest_detectable_effect_is_beyond_the_interval():
    found = inheritance(STUDENTS, INDEPENDENTS)
    assert found["minimum_detectable"].value > found["difference"].high - found["difference"].value


def test_one_run_an_arm_is_not_measurable():
    found = inheritance(np.array([0.6]), INDEPENDENTS)
    assert {estimate.status for estimate in found.values()} == {"not_measurable"}
    assert "1 student and 4 independent runs" in found["difference"].reason


def test_arms_without_any_spread_are_not_measurable():
    found = inheritance(np.array([1.0, 1.0]), np.array([0.9, 0.9]))
    assert found["difference"].status == "not_measurable"
    assert "no spread between runs" in found["difference"].reason


def test_one_arm_without_spread_is_measurable():
    assert inheritance(np.array([1.0, 1.0]), np.array([0.8, 0.9]))["difference"].status == "ok"


def test_no_difference_needs_no_number_of_runs():
    found = inheritance(np.array([0.5, 0.75]), np.array([0.75, 0.5]))
    assert (found["difference"].value, found["runs_needed"].status) == (0, "not_measurable")


def test_refuses_figures_that_are_not_finite():
    with pytest.raises(ValueError, match="student_runs must be finite"):
        inheritance(np.array([np.nan, 1.0]), INDEPENDENTS)


def test_refuses_an_empty_arm():
    with pytest.raises(ValueError, match="independent_runs must be one figure a run, at least one"):
        inheritance(STUDENTS, np.array([]))
