import numpy as np
import pytest

from crossdistill.metrics.retention import chance_corrected_ratio, retention

N_SEED = 9_984


def right(percent, n=N_SEED):
    """`percent` of n images right, the first ones."""
    return np.arange(n) < round(percent / 100 * n)


def test_is_the_part_of_the_way_from_chance_that_is_left():
    estimate = retention(right(35, 1000), right(60, 1000), chance=0.1)
    assert estimate.value == pytest.approx(0.5)  # (0.35 - 0.1) / (0.6 - 0.1)
    assert estimate.low < 0.5 < estimate.high


def test_is_not_clipped():
    assert retention(right(5, 1000), right(60, 1000), chance=0.1).value == pytest.approx(-0.1)
    assert retention(right(70, 1000), right(60, 1000), chance=0.1).value == pytest.approx(1.2)


def test_losing_nothing_is_one_exactly_and_pairing_leaves_no_doubt():
    estimate = retention(right(60, 1000), right(60, 1000), chance=0.1)
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((1, 1, 1))


def test_the_interval_is_paired():
    clean = right(60, 1000)
    same_errors = retention(right(30, 1000), clean, chance=0.1)
    other_errors = retention(right(30, 1000)[::-1], clean, chance=0.1)
    assert same_errors.value == pytest.approx(other_errors.value)
    assert same_errors.high - same_errors.low < other_errors.high - other_errors.low


def test_the_interval_agrees_with_the_delta_method():
    generator = np.random.default_rng(0)
    clean, probe = generator.random(5000) < 0.8, generator.random(5000) < 0.4
    estimate = retention(probe, clean, chance=0.1)
    residual = (probe - 0.1) - estimate.value * (clean - 0.1)
    error = residual.std() / np.sqrt(5000) / (clean.mean() - 0.1)
    # Both are first-order right; percentiles of 2,000 resamples wobble by 5 % of the standard error.
    assert (estimate.low, estimate.high) == pytest.approx((estimate.value - 1.96 * error, estimate.value + 1.96 * error), abs=0.2 * error)


def test_draws_are_averaged_inside_an_image():
    clean = right(60, 1000)
    draws = np.stack([right(30, 1000), right(40, 1000)])
    estimate = retention(draws, clean, chance=0.1)
    assert (estimate.value, estimate.n) == (pytest.approx(0.5), 1000)


def test_a_constant_predictor_is_not_measurable():
    constant = right(10, 1000)
    estimate = retention(constant, constant, chance=0.1)
    assert (estimate.status, estimate.value) == ("not_measurable", None)
    assert "clean accuracy 10.0 % on 1,000 images is not clearly above the 10.0 % of chance" in estimate.reason


# Clean and silhouette accuracy of the students in the notebooks of the project that this one grew from (n = 9,984, chance 10 %),
# and the lower bound of clean - chance, whose Wald value is -.006, .040 and .062; Wilson's differs by less than .0005.
SEED_STUDENTS = {"capd": (9.99, 10.01, -0.006), "crd": (14.72, 10.00, 0.040), "sskd": (16.91, 9.97, 0.062)}


@pytest.mark.parametrize("student", SEED_STUDENTS)
def test_students_that_hardly_learnt_are_not_measurable(student):
    clean, shape, lower = SEED_STUDENTS[student]
    estimate = retention(right(shape), right(clean), chance=0.1)
    assert estimate.status == "not_measurable"
    assert f"its lower bound is {100 * lower:+.1f} points" in estimate.reason


@pytest.mark.parametrize(("clean", "noise", "expected"), [(79.11, 37.93, 0.404), (95.19, 38.60, 0.336), (95.24, 69.71, 0.700)])
def test_students_that_learnt_are_measurable(clean, noise, expected):
    assert retention(right(noise), right(clean), chance=0.1).value == pytest.approx(expected, abs=5e-4)


def test_the_gate_opens_above_a_tenth_of_the_way():
    # Of 10,000 images at chance 0: 1,060 right have a lower bound of 10.01 %, 1,050 one of 9.91 %.
    assert retention(right(10.6, 10_000), right(10.6, 10_000), chance=0.0).status == "ok"
    assert retention(right(10.5, 10_000), right(10.5, 10_000), chance=0.0).status == "not_measurable"


def test_the_ratio_is_undefined_at_chance_and_below():
    assert np.isnan(chance_corrected_ratio(np.array([0.2, 0.2]), np.array([0.1, 0.05]), 0.1)).all()


def test_is_not_measurable_where_only_one_class_is_left():
    estimate = retention(right(90), right(95), chance=1.0)
    assert (estimate.status, estimate.value) == ("not_measurable", None)
    assert estimate.reason.startswith("all images have one class")


def test_refuses_a_chance_that_is_no_share():
    with pytest.raises(ValueError, match=r"chance must be .* got 10"):
        retention(right(50, 10), right(50, 10), chance=10)


def test_refuses_other_images():
    with pytest.raises(ValueError, match="cover the same images, got 10 and"):
        retention(right(50, 10), right(50, 11), chance=0.1)
