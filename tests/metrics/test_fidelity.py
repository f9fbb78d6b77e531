import numpy as np
import pytest
from scipy.special import rel_entr, softmax

from crossdistill.metrics.fidelity import fidelity, kl_divergence


@pytest.fixture
def logits():
    generator = np.random.default_rng(0)
    return generator.normal(size=(60, 5)).astype(np.float32), generator.normal(size=(60, 5)).astype(np.float32)


def test_agreement_and_divergence_by_hand():
    student = np.log([[0.5, 0.5], [0.8, 0.2]])
    teacher = np.log([[0.25, 0.75], [0.8, 0.2]])
    found = fidelity(student, teacher)
    assert found["agreement"].value == 0.5  # a tie goes to the first class, so the first image disagrees
    first = 0.25 * np.log(0.25 / 0.5) + 0.75 * np.log(0.75 / 0.5)
    assert found["kl"].value == pytest.approx(first / 2)


def test_divergence_agrees_with_scipy(logits):
    student, teacher = logits
    expected = rel_entr(softmax(teacher.astype(float), axis=1), softmax(student.astype(float), axis=1)).sum(axis=1)
    assert kl_divergence(student, teacher) == pytest.approx(expected, abs=1e-12)


def test_divergence_is_from_the_teacher_to_the_student(logits):
    student, teacher = logits
    assert fidelity(student, teacher)["kl"].value != pytest.approx(fidelity(teacher, student)["kl"].value, rel=1e-3)


def test_a_network_agrees_with_itself(logits):
    found = fidelity(logits[0], logits[0])
    assert (found["agreement"].value, found["kl"].value, found["kl"].low, found["kl"].high) == (1, 0, 0, 0)


def test_a_shift_of_all_logits_changes_nothing(logits):
    student, teacher = logits
    assert fidelity(student + 300, teacher)["kl"].value == pytest.approx(fidelity(student, teacher)["kl"].value, abs=1e-4)  # float32 logits


def test_huge_logits_stay_finite():
    kl = fidelity(np.array([[1e4, 0.0], [1e4, 0.0]]), np.array([[0.0, 1e4], [0.0, 1e4]]))["kl"]
    assert kl.value == pytest.approx(1e4)


def test_draws_are_averaged_inside_an_image(logits):
    student, teacher = logits
    both = fidelity(np.stack([student, teacher]), np.stack([teacher, teacher]))  # the second draw agrees always
    once = fidelity(student, teacher)
    assert both["agreement"].value == pytest.approx((once["agreement"].value + 1) / 2)
    assert (both["kl"].value, both["kl"].n) == (pytest.approx(once["kl"].value / 2), 60)


def test_one_image_has_an_agreement_but_no_interval_of_its_divergence():
    found = fidelity(np.array([[1.0, 0.0]]), np.array([[2.0, 0.0]]))
    assert (found["agreement"].value, found["kl"].status) == (1.0, "not_measurable")


def test_refuses_other_classes():
    with pytest.raises(ValueError, match=r"same images and classes, got logits \(2, 3\) and \(2, 4\)"):
        fidelity(np.zeros((2, 3)), np.zeros((2, 4)))
