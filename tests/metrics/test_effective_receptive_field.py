import numpy as np
import pytest

from crossdistill.metrics.effective_receptive_field import effective_receptive_field, sides_holding

SIDES = np.linspace(0, 1, 257)


def _square(side: float) -> np.ndarray:
    """A gradient spread evenly over a centred square of that side."""
    return np.minimum((SIDES / side) ** 2, 1)


def test_an_even_gradient_needs_the_root_of_the_share():
    found = effective_receptive_field(np.stack([_square(0.5)] * 5))
    assert found["side_50"].value == pytest.approx(0.5 * np.sqrt(0.5), abs=1e-4)  # straight between sides 1/256 apart
    assert found["side_99"].value == pytest.approx(0.5 * np.sqrt(0.99), abs=1e-4)
    assert (found["side_50"].low, found["side_50"].high, found["side_50"].n) == (*[found["side_50"].value] * 2, 5)


def test_it_is_the_mean_gradient_that_is_measured_not_the_mean_of_sides():
    small, large = _square(0.25), 9 * _square(1.0)
    found = effective_receptive_field(np.stack([small, large]))["side_50"]
    assert found.value == pytest.approx(np.sqrt(4 / 9), abs=1e-4)  # 1 + 9 s^2 = 5
    assert found.low == pytest.approx(0.25 * np.sqrt(0.5), abs=1e-4)
    assert found.high == pytest.approx(np.sqrt(0.5), abs=1e-4)


def test_a_sum_of_slopes_by_hand():
    mass = np.array([[0.0, 1.0, 1.0, 4.0, 4.0], [0.0, 0.0, 0.0, 0.0, 2.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
    half = sides_holding(mass, 0.5)
    assert half[:2].tolist() == pytest.approx([(2 + 1 / 3) / 4, 3.5 / 4])
    assert np.isnan(half[2])


def test_no_gradient_is_not_measurable_and_one_image_has_no_interval():
    assert effective_receptive_field(np.zeros((3, 257)))["side_99"].reason == "the centre of the last map depends on no pixel"
    found = effective_receptive_field(_square(1.0)[None])["side_50"]
    assert (found.status, found.low, found.n) == ("ok", None, 1)


def test_an_image_without_gradient_counts_for_nothing():
    found = effective_receptive_field(np.stack([_square(0.5), np.zeros(257)]))["side_50"]
    assert found.value == pytest.approx(0.5 * np.sqrt(0.5), abs=1e-4)
    assert np.isfinite([found.low, found.high]).all()


def test_draws_are_averaged_inside_an_image():
    draws = np.stack([[_square(0.25), _square(0.25)], [_square(0.5), _square(0.5)]])
    expected = effective_receptive_field(draws.mean(axis=0))
    assert effective_receptive_field(draws) == expected


def test_refuses_what_is_no_profile():
    with pytest.raises(ValueError, match=r"must be \[images, sides\]"):
        effective_receptive_field(np.ones(257))
