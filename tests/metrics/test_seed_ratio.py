import numpy as np
import pytest

from crossdistill.metrics.seed_ratio import seed_ratio


@pytest.mark.parametrize(("clean", "shape", "printed"), [(14.72, 10.00, 0.679), (16.91, 9.97, 0.590), (9.99, 10.01, 1.002)])
def test_gives_the_ratios_that_were_once_printed(clean, shape, printed):
    image = np.arange(9_984)
    estimate = seed_ratio(image < round(shape * 99.84), image < round(clean * 99.84))
    assert estimate.value == pytest.approx(printed, abs=2e-3)  # accuracies are given to 0.01 points


def test_flatters_a_constant_predictor_and_says_that_it_is_not_to_be_trusted():
    constant = np.arange(100) < 10
    estimate = seed_ratio(constant, constant)
    assert (estimate.value, estimate.low, estimate.high) == (1.0, None, None)
    assert "not to be trusted" in estimate.unit


def test_is_not_measurable_where_nothing_was_right():
    assert seed_ratio(np.array([True, False]), np.array([False, False])).status == "not_measurable"


def test_refuses_other_images():
    with pytest.raises(ValueError, match="cover the same images"):
        seed_ratio(np.array([True]), np.array([True, False]))
