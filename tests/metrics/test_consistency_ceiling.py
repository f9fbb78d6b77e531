import numpy as np
import pytest

from crossdistill.metrics.consistency_ceiling import consistency_ceiling
from crossdistill.metrics.error_consistency import error_consistency

N = 10_000


def first(share):
    """Right on the first images, wrong on the others."""
    return np.repeat([True, False], [round(share * N), N - round(share * N)])


@pytest.mark.parametrize(("p_a", "p_b", "ceiling"), [(0.97, 0.93, 0.58), (0.95, 0.60, 0.15), (0.95, 0.15, 0.02)])
def test_unequal_accuracy_lowers_what_can_be_reached(p_a, p_b, ceiling):
    nested = consistency_ceiling(first(p_a), first(p_b))  # the weaker network is right only where the other is
    assert nested["ceiling"].value == pytest.approx(ceiling, abs=0.005)
    assert nested["reached"].value == pytest.approx(1, abs=1e-12)
    assert error_consistency(first(p_a), first(p_b)).value == pytest.approx(nested["ceiling"].value, abs=1e-12)


def test_is_one_at_equal_accuracy():
    found = consistency_ceiling(first(0.6), first(0.6)[::-1])
    assert found["ceiling"].value == 1
    assert found["reached"].value == pytest.approx(error_consistency(first(0.6), first(0.6)[::-1]).value)


def test_by_hand():
    # Of 20 images both right on 8, a alone on 8, neither on 4: p = .8 and .4, c_exp = .32 + .12 = .44, at most 1 - .4 = .6.
    a, b = np.repeat([1, 1, 0], [8, 8, 4]), np.repeat([1, 0, 0], [8, 8, 4])
    values = {name: estimate.value for name, estimate in consistency_ceiling(a, b).items()}
    assert values == pytest.approx({"ceiling": 0.16 / 0.56, "reached": 1.0, "observed": 0.6, "expected": 0.44})


def test_the_parts_make_the_consistency():
    generator = np.random.default_rng(0)
    a, b = generator.random((2, 300)) < [[0.8], [0.5]]
    found, kappa = {name: e.value for name, e in consistency_ceiling(a, b).items()}, error_consistency(a, b).value
    assert kappa == pytest.approx((found["observed"] - found["expected"]) / (1 - found["expected"]))
    assert kappa == pytest.approx(found["reached"] * found["ceiling"])


def test_shares_stay_where_a_network_is_always_right():
    found = consistency_ceiling(np.ones(10, int), np.repeat([1, 0], 5))
    assert {name: estimate.status for name, estimate in found.items() if estimate.value is None} == {
        "ceiling": "not_measurable",
        "reached": "not_measurable",
    }
    assert (found["observed"].value, found["expected"].value) == (0.5, 0.5)


def test_draws_on_each_of_which_one_network_is_faultless_tell_nothing():
    half, whole = np.repeat([1, 0], 5), np.ones(10, int)
    found = consistency_ceiling(np.stack([half, whole]), np.stack([whole, half]))
    assert found["reached"].status == "not_measurable"
