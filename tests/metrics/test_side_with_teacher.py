import numpy as np
import pytest
from statsmodels.stats.proportion import proportion_confint

from crossdistill.metrics.side_with_teacher import FEWEST_IMAGES, side_with_teacher

N = 4000
CLASSES = 6
LABELS = np.arange(N) % CLASSES


def network(seed, accuracy=0.6):
    """Right with this probability, else wrong at random."""
    generator = np.random.default_rng(seed)
    return np.where(generator.random(N) < accuracy, LABELS, (LABELS + generator.integers(1, CLASSES, N)) % CLASSES)


def mixed(seed, share, one, other):
    """Answers like `one` on this share of the images, like `other` on the rest."""
    return np.where(np.random.default_rng(seed).random(N) < share, one, other)


TEACHER, INDEPENDENT, SECOND = network(1, 0.8), network(2), network(3)


def test_by_hand():
    teacher, independent = np.repeat(["t", "x"], [36, 24]), np.repeat(["i", "x"], [36, 24])  # apart on 36 images
    student = np.repeat(["t", "i", "other", "x"], [24, 8, 4, 24])
    rate = side_with_teacher(student, teacher, independent)["rate"]
    assert (rate.value, rate.n) == (0.75, 32)
    assert (rate.low, rate.high) == pytest.approx(proportion_confint(24, 32, method="wilson"))


def test_a_student_that_is_the_teacher_always_sides_with_it():
    found = side_with_teacher(TEACHER, TEACHER, INDEPENDENT, SECOND, LABELS)
    assert (found["rate"].value, found["rate"].high, found["wrong_rate"].value) == (1, 1, 1)
    assert found["excess"].low > 0
    assert found["wrong_excess"].low > 0


def test_a_student_that_is_the_independent_never_does():
    found = side_with_teacher(INDEPENDENT, TEACHER, INDEPENDENT, SECOND, LABELS)
    assert (found["rate"].value, found["rate"].low) == (0, 0)
    assert found["excess"].high < 0


def test_an_independent_student_has_a_rate_above_half_and_no_excess():
    found = side_with_teacher(network(4), TEACHER, INDEPENDENT, SECOND, LABELS)
    assert found["rate"].low > 0.5  # the teacher is more often right
    assert found["excess"].low < 0 < found["excess"].high
    assert found["wrong_rate"].low < 0.5 < found["wrong_rate"].high
    assert found["wrong_excess"].low < 0 < found["wrong_excess"].high


def test_an_inheriting_student_sides_with_the_teacher_where_that_is_wrong_too():
    found = side_with_teacher(mixed(5, 0.4, TEACHER, network(4)), TEACHER, INDEPENDENT, SECOND, LABELS)
    assert found["excess"].low > 0
    assert found["wrong_excess"].low > 0


def test_the_excess_is_the_difference_of_the_rates():
    found = side_with_teacher(network(4), TEACHER, INDEPENDENT, SECOND, LABELS)
    for stratum in ("", "wrong_"):
        rates = found[f"{stratum}rate"].value - found[f"{stratum}second_rate"].value
        assert found[f"{stratum}excess"].value == pytest.approx(rates, abs=1e-12)


def test_the_interval_of_the_excess_is_paired_by_image():
    student = network(4)
    alike = side_with_teacher(student, TEACHER, INDEPENDENT, mixed(6, 0.9, student, SECOND))["excess"]
    apart = side_with_teacher(student, TEACHER, INDEPENDENT, SECOND)["excess"]
    assert alike.high - alike.low < 0.6 * (apart.high - apart.low)
    itself = side_with_teacher(student, TEACHER, INDEPENDENT, student)["excess"]
    assert (itself.value, itself.low, itself.high) == (0, 0, 0)


def test_the_interval_of_the_excess_agrees_with_two_independent_rates():
    found = side_with_teacher(network(4), TEACHER, INDEPENDENT, SECOND)
    rates = [found["rate"], found["second_rate"]]
    error = np.sqrt(sum(rate.value * (1 - rate.value) / rate.n for rate in rates))
    # Errors of these networks are independent but for the images that both are shown, so that this is a little too wide.
    assert (found["excess"].high - found["excess"].low) / 2 == pytest.approx(1.96 * error, rel=0.25)


def test_figures_stay_inside_their_bounds():
    generator = np.random.default_rng(0)
    for _ in range(200):
        student, teacher, independent, second, labels = generator.integers(0, generator.integers(2, 5), (5, 150))
        for name, estimate in side_with_teacher(student, teacher, independent, second, labels).items():
            if estimate.value is not None:
                lowest = -1 if name.endswith("excess") else 0
                assert lowest <= estimate.low <= estimate.value <= estimate.high <= 1


def test_too_few_images_are_not_measurable():
    teacher = np.zeros(FEWEST_IMAGES - 1, int)
    found = side_with_teacher(teacher, teacher, teacher + 1, teacher)
    assert {estimate.status for estimate in found.values()} == {"not_measurable"}
    assert found["excess"].unit == "difference"  # refused or not
    assert (
        f"29 images on which teacher and independent differ and one of them is sided with: at least {FEWEST_IMAGES}" in found["rate"].reason
    )
    enough = np.zeros(FEWEST_IMAGES, int)
    assert side_with_teacher(enough, enough, enough + 1, enough)["excess"].value == 0


def test_teacher_and_independent_that_never_differ_are_not_measurable():
    assert side_with_teacher(SECOND, TEACHER, TEACHER)["rate"].status == "not_measurable"


def test_without_a_second_independent_or_labels_the_figures_that_need_them_say_so():
    found = side_with_teacher(network(4), TEACHER, INDEPENDENT)
    assert found["rate"].status == "ok"
    assert found["excess"].reason.startswith("there is no second independent student")
    assert found["wrong_rate"].reason.startswith("without labels")
    assert found.keys() == side_with_teacher(network(4), TEACHER, INDEPENDENT, SECOND, LABELS).keys()


def test_draws_are_averaged_inside_an_image():
    both = side_with_teacher(*(np.stack(pair) for pair in ((TEACHER, INDEPENDENT), (TEACHER,) * 2, (INDEPENDENT,) * 2, (SECOND,) * 2)))
    assert (both["rate"].value, both["rate"].n) == (0.5, int((TEACHER != INDEPENDENT).sum()))


def test_refuses_other_images():
    with pytest.raises(ValueError, match="cover the same images"):
        side_with_teacher(TEACHER, TEACHER[:-1], INDEPENDENT)
