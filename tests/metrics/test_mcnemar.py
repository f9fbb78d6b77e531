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
    difference = found["difference"]
    assert difference.value == pytest.approx((only_a - only_b) / n, abs=1e-9)
    assert (found["only_a"].value, found["only_b"].value, difference.n) == (only_a, only_b, n)


@pytest.mark.parametrize("only_a", range(0, 21))
def test_the_interval_holds_zero_where_the_test_finds_nothing(only_a):
    found = mcnemar(*right(only_a, 20 - only_a))
    difference = found["difference"]
    assert (difference.low < 0 < difference.high) == (found["p_value"].value > 0.05)


def test_swapping_the_networks_flips_the_sign():
    one, other = mcnemar(*right(9, 2)), mcnemar(*reversed(right(9, 2)))
    assert one["difference"].low == pytest.approx(-other["difference"].high)
    assert one["p_value"] == other["p_value"]


def test_equal_networks_are_not_told_apart():
    found = mcnemar(*right(0, 0))
    difference = found["difference"]
    assert (found["p_value"].value, difference.value) == (1, 0)
    assert difference.low == pytest.approx(-difference.high)
    assert difference.low < 0  # none of 40 images told them apart: a few of a hundred still could


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


@pytest.mark.parametrize(("both", "only_a", "only_b"), [(0.05, 0.01, 0.75), (0.2, 0.1, 0.5), (0.6, 0.05, 0.15), (0.6, 0.1, 0.1)])
def test_the_interval_covers_the_difference_however_many_images_tell_the_two_apart(both, only_a, only_b):
    """Given the number of images told apart, the exact interval covers 63 % in the first case."""
    rng = np.random.default_rng(0)
    counts = rng.multinomial(400, [both, only_a, only_b, 1 - both - only_a - only_b], 400)
    found = [mcnemar(*right(a, b, both=c, neither=d))["difference"] for c, a, b, d in counts]
    assert np.mean([e.low <= only_a - only_b <= e.high for e in found]) > 0.93


def test_the_interval_is_newcombes_by_a_slow_reading():
    both, only_a, only_b, neither, z = 30, 10, 2, 10, 1.959963984540054
    n = both + only_a + only_b + neither
    ends = []
    for k in (both + only_a, both + only_b):
        root = z * np.sqrt(z**2 + 4 * k * (n - k) / n)
        ends.append(((2 * k + z**2 - root) / (2 * (n + z**2)), (2 * k + z**2 + root) / (2 * (n + z**2))))
    (low_a, high_a), (low_b, high_b) = ends
    a, b = (both + only_a) / n, (both + only_b) / n
    correlation = (both * neither - only_a * only_b - n / 2) / np.sqrt(
        (both + only_a) * (only_b + neither) * (both + only_b) * (only_a + neither)
    )
    low = (a - b) - np.sqrt((a - low_a) ** 2 - 2 * correlation * (a - low_a) * (high_b - b) + (high_b - b) ** 2)
    high = (a - b) + np.sqrt((high_a - a) ** 2 - 2 * correlation * (high_a - a) * (b - low_b) + (b - low_b) ** 2)
    found = mcnemar(*right(only_a, only_b))["difference"]
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-9)
