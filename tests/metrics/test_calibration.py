import itertools

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import brier_score_loss, log_loss

from crossdistill.metrics.calibration import calibration, equal_mass_bins, equal_width_bins


def network(generator, n=600, n_classes=5, sharpness=1.0):
    """Probabilities and labels; calibrated at sharpness 1, overconfident above."""
    logits = 1.5 * generator.normal(size=(n, n_classes))
    drawn = (generator.random((n, 1)) > softmax(logits, axis=1).cumsum(axis=1)).sum(axis=1).clip(max=n_classes - 1)
    return softmax(sharpness * logits, axis=1), drawn


def literal_ece(confidences, right, edges):
    """Bin by bin: the share of the images in it times the distance of its accuracy from its mean confidence."""
    total = 0.0
    for low, high in itertools.pairwise(edges):
        inside = (confidences >= low) & ((confidences < high) | (high == edges[-1]))
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - confidences[inside].mean())
    return total


def test_by_hand():
    p = np.array([[0.9, 0.1], [0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    labels = np.array([0, 1, 1, 0])
    found = {name: estimate.value for name, estimate in calibration(p, labels).items()}
    # Bins of 0.9 (two, one right), 0.8 and 0.6, right both: (|1 - 1.8| + |1 - 0.8| + |1 - 0.6|) / 4.
    assert found["ece"] == pytest.approx((0.8 + 0.2 + 0.4) / 4)
    assert found["ece_equal_mass"] == pytest.approx(found["ece"])
    assert found["nll"] == pytest.approx(-np.log([0.9, 0.1, 0.8, 0.6]).mean())
    assert found["brier"] == pytest.approx((0.02 + 1.62 + 0.08 + 0.32) / 4)


@pytest.mark.parametrize("sharpness", [1.0, 3.0])
def test_equals_a_literal_reading_and_scikit_learn(sharpness):
    p, labels = network(np.random.default_rng(0), sharpness=sharpness)
    confidences, right = p.max(axis=1), p.argmax(axis=1) == labels
    found = calibration(p, labels)
    assert found["ece"].value == pytest.approx(literal_ece(confidences, right, np.linspace(0, 1, 16)), abs=1e-12)
    assert found["nll"].value == pytest.approx(log_loss(labels, p), abs=1e-12)
    assert found["brier"].value == pytest.approx(brier_score_loss(labels, p, scale_by_half=False), abs=1e-12)
    parts = np.array_split(np.argsort(confidences), 15)
    by_mass = sum(abs(right[part].sum() - confidences[part].sum()) for part in parts) / len(labels)
    assert found["ece_equal_mass"].value == pytest.approx(by_mass, abs=1e-12)  # 600 images: 40 a bin either way


def test_an_edge_belongs_to_the_bin_above_it_and_one_to_the_last():
    edges = np.linspace(0, 1, 16)
    assert equal_width_bins(edges).tolist() == [*range(15), 14]
    assert equal_width_bins(np.nextafter(edges[1:], 0)).tolist() == list(range(15))


def test_equal_confidences_share_a_bin_of_equal_mass():
    bins = equal_mass_bins(np.array([0.5] * 10 + [1.0] * 90))
    assert len(set(bins[:10])) == len(set(bins[10:])) == 1
    assert equal_mass_bins(np.linspace(0.2, 1, 30)).tolist() == np.repeat(np.arange(15), 2).tolist()


def test_a_certain_network_that_is_right_half_the_time_is_off_by_a_half():
    found = calibration(np.eye(2)[np.zeros(100, int)], np.arange(100) % 2)
    assert (found["ece"].value, found["brier"].value) == (0.5, 1.0)
    assert found["nll"].status == "not_measurable"
    assert found["nll"].reason == "the label of 50 images was given probability 0: the log likelihood is infinite"


def test_a_certain_network_that_is_always_right_is_perfect():
    found = calibration(np.eye(3)[np.arange(30) % 3], np.arange(30) % 3)
    assert {name: (e.value, e.low, e.high) for name, e in found.items()} == {
        name: pytest.approx((0, 0, 0), abs=1e-12) for name in ("ece", "ece_equal_mass", "nll", "brier")
    }


def test_the_interval_of_ece_is_the_basic_one_of_resampled_images():
    p, labels = network(np.random.default_rng(1), sharpness=3.0)
    generator, resampled = np.random.default_rng(2), []
    for _ in range(2000):
        rows = generator.integers(0, len(labels), len(labels))
        resampled.append(literal_ece(p[rows].max(axis=1), p[rows].argmax(axis=1) == labels[rows], np.linspace(0, 1, 16)))
    estimate = calibration(p, labels)["ece"]
    low, high = 2 * estimate.value - np.percentile(resampled, [97.5, 2.5])
    # The ends of two times 2,000 resamples wobble by 7 % of the standard error together.
    assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=0.25 * np.std(resampled))


def test_the_interval_holds_zero_for_a_calibrated_network_and_not_for_an_overconfident_one():
    generator = np.random.default_rng(3)
    held = [calibration(*network(generator))["ece"].low == 0 for _ in range(200)]
    assert np.mean(held) >= 0.94  # 97.5 %
    assert not any(calibration(*network(generator, sharpness=3.0))["ece"].low == 0 for _ in range(50))


def test_draws_are_parts_of_an_image():
    p, labels = network(np.random.default_rng(4))
    q, _ = network(np.random.default_rng(5))
    found, one, other = calibration(np.stack([p, q]), labels), calibration(p, labels), calibration(q, labels)
    assert found["nll"].value == pytest.approx((one["nll"].value + other["nll"].value) / 2)
    assert found["brier"].value == pytest.approx((one["brier"].value + other["brier"].value) / 2)
    all_answers = np.concatenate([p, q]).max(axis=1), np.concatenate([p, q]).argmax(axis=1) == np.tile(labels, 2)
    assert found["ece"].value == pytest.approx(literal_ece(*all_answers, np.linspace(0, 1, 16)))
    assert {estimate.n for estimate in found.values()} == {600}


def test_names_stand_for_the_columns_in_sorted_order():
    p, labels = network(np.random.default_rng(6))
    assert calibration(p, np.array(["ant", "bee", "cow", "dog", "emu"])[labels]) == calibration(p, labels)
    with pytest.raises(ValueError, match="5 classes, but 1 names among the labels"):
        calibration(p, np.array(["ant"] * 600))


@pytest.mark.parametrize("rows", [[[2.0, -1.0]], [[0.5, 0.6]], [[0.2, 0.3]]])
def test_refuses_rows_that_are_no_probabilities(rows):
    with pytest.raises(ValueError, match="probabilities must be at least 0 and add up to 1"):
        calibration(np.array(rows), np.array([0]))


def test_half_precision_is_taken():
    p, labels = network(np.random.default_rng(7), n_classes=50)
    assert calibration(p.astype(np.float16), labels)["ece"].value == pytest.approx(calibration(p, labels)["ece"].value, abs=0.01)


def test_refuses_labels_that_are_no_columns():
    with pytest.raises(ValueError, match="labels must be 0 to 1, the columns"):
        calibration(np.full((2, 2), 0.5), np.array([0, 2]))
    with pytest.raises(ValueError, match="labels must be one an image"):
        calibration(np.full((2, 2), 0.5), np.array([0]))


def test_one_image_is_not_measurable():
    assert {estimate.status for estimate in calibration(np.array([[0.5, 0.5]]), np.array([0])).values()} == {"not_measurable"}
