import numpy as np
import pytest
from scipy.stats import binomtest
from statsmodels.stats.contingency_tables import mcnemar as reference

from crossdistill.metrics.mcnemar import mcnemar


def right(only_a, only_b, both=30, neither=10):
    counts = (both, only_a, only_b, neither)
    return np.repeat([True, True, False, False], counts), np.repeat([True, False, True, False], counts)


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 1), (3, 3), (10, 2), (0, 12), (151, 32), (516, 134)])
def test_agrees_with_statsmodels_and_scipy(only_a, only_b):
    found = mcnemar(*right(only_a, only_b))
    n = 40 + only_a + only_b
    assert found["p_value"].value == pytest.approx(reference([[30, only_a], [only_b, 10]], exact=True).pvalue, rel=1e-10)
    test = binomtest(only_a, only_a + only_b)
    assert found["p_value"].value == pytest.approx(test.pvalue, rel=1e-10)
    ends = [(2 * end - 1) * (only_a + only_b) / n for end in test.proportion_ci(method="exact")]
    difference = found["difference"]
    assert (difference.value, difference.low, difference.high) == pytest.approx(((only_a - only_b) / n, *ends), abs=1e-9)
    assert (found["only_a"].value, found["only_b"].value, difference.n) == (only_a, only_b, n)


@pytest.mark.parametrize("only_a", range(0, 21))
def test_the_interval_holds_zero_where_the_test_finds_nothing(only_a):
    found = mcnemar(*right(only_a, 20 - only_a))
    difference = found["difference"]
    assert (difference.low <= 0 <= difference.high) == (found["p_value"].value > 0.05)


def test_swapping_the_networks_flips_the_sign():
    one, other = mcnemar(*right(9, 2)), mcnemar(*reversed(right(9, 2)))
    assert one["difference"].low == pytest.approx(-other["difference"].high)
    assert one["p_value"] == other["p_value"]


def test_equal_networks_are_not_told_apart():
    found = mcnemar(*right(0, 0))
    assert (found["p_value"].value, found["difference"].value, found["difference"].low, found["difference"].high) == (1, 0, 0, 0)


def test_draws_that_do_not_agree_have_no_exact_test():
    a, b = right(9, 2)
    found = mcnemar(np.stack([a, b]), np.stack([b, b]))
    assert found["p_value"].status == "not_measurable"
    assert (found["difference"].value, found["difference"].low) == (pytest.approx(7 / 51 / 2), None)
    assert found["only_a"].value == 4.5


def test_a_repeated_draw_adds_nothing():
    a, b = right(9, 2)
    assert mcnemar(np.stack([a, a]), np.stack([b, b])) == mcnemar(a, b)


def test_refuses_what_is_not_right_or_wrong():
    with pytest.raises(ValueError, match="correct_a must be right or wrong"):
        mcnemar(np.array([2, 1]), np.array([1, 1]))
