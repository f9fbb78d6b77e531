"""CKA against a literal reading, the published reason for the unbiased form, planted truth, and what it must not see."""

import numpy as np
import pytest

from crossdistill.metrics.cka import cka


def _gaussian(n: int, p: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, p))


def _literal_hsic1(k: np.ndarray, m: np.ndarray) -> float:
    """The formula, sum by sum, in O(n^2) steps of plain Python but for the dot product of two rows."""
    n = len(k)
    trace = sum_k = sum_m = joint = 0.0
    for i in range(n):
        for j in range(n):
            if i != j:
                trace += k[i, j] * m[j, i]
                sum_k += k[i, j]
                sum_m += m[i, j]
    for i in range(n):
        row = sum(k[j, i] for j in range(n) if j != i)
        joint += row * sum(m[i, j] for j in range(n) if j != i)
    return (trace + sum_k * sum_m / ((n - 1) * (n - 2)) - 2 / (n - 2) * joint) / (n * (n - 3))


def _literal_cka(a: np.ndarray, b: np.ndarray, n_batches: int = 1) -> float:
    sums = np.zeros(3)
    for start in range(n_batches):
        k, m = (x[start::n_batches] @ x[start::n_batches].T for x in (a, b))
        sums += [_literal_hsic1(k, m), _literal_hsic1(k, k), _literal_hsic1(m, m)]
    return float(sums[0] / np.sqrt(sums[1] * sums[2]))


def _biased_cka(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    k, m = a @ a.T, b @ b.T
    return float((k * m).sum() / np.sqrt((k * k).sum() * (m * m).sum()))


def test_equals_the_literal_reading():
    a, b = _gaussian(30, 7, 0) + 3, _gaussian(30, 4, 1)
    b[:, :2] += a[:, :2]
    assert cka(a, b).value == pytest.approx(_literal_cka(a, b), abs=1e-12)


def test_four_images_are_enough_for_a_value_but_not_for_an_interval():
    a, b = _gaussian(4, 7, 0), _gaussian(4, 7, 1) + _gaussian(4, 7, 0)
    found = cka(a, b)
    assert found.value == pytest.approx(_literal_cka(a, b), abs=1e-12)
    assert (found.low, found.high, found.n) == (None, None, 4)


def test_sums_of_minibatches_are_divided_never_their_ratios_averaged():
    a = _gaussian(520, 3, 0)
    b = a + _gaussian(520, 3, 1)
    a[::2] *= 5  # the two minibatches weigh differently
    assert cka(a, b).value == pytest.approx(_literal_cka(a, b, n_batches=2), abs=1e-10)
    assert cka(a[:511], b[:511]).value == pytest.approx(_literal_cka(a[:511], b[:511]), abs=1e-10)  # 511 make no two of 256


@pytest.mark.parametrize(("n", "p", "biased"), [(128, 512, 0.80), (128, 4096, 0.97), (1024, 4096, 0.80)])
def test_unrelated_features_score_nothing_where_the_biased_form_scores_almost_everything(n, p, biased):
    a, b = _gaussian(n, p, 0).astype(np.float32), _gaussian(n, p, 1).astype(np.float32)
    assert _biased_cka(a, b) == pytest.approx(biased, abs=0.01)
    found = cka(a, b)
    assert abs(found.value) < 0.03  # its standard error is 0.012 at 128 images
    assert found.low <= 0 <= found.high


def test_the_truth_of_a_linear_model_is_found():
    """Ten of twenty unit-variance directions shared: ||cov(a, b)||^2 / (||cov(a)|| ||cov(b)||) = 10 / 20."""
    a = _gaussian(4096, 20, 0)
    b = np.concatenate([a[:, :10], _gaussian(4096, 10, 1)], axis=1)
    found = cka(a, b)
    assert found.value == pytest.approx(0.5, abs=0.02)
    assert found.low < 0.5 < found.high


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    hits = 0
    for seed in range(200):
        a = _gaussian(300, 20, seed)
        b = np.concatenate([a[:, :10], _gaussian(300, 10, 1000 + seed)], axis=1)
        found = cka(a, b)
        hits += found.low <= 0.5 <= found.high
    assert 180 <= hits <= 199  # 95 % of 200, three standard errors either side


def test_the_interval_is_the_delete_one_jackknife():
    a = _gaussian(25, 6, 0)
    b = a @ _gaussian(6, 5, 1) + 2 * _gaussian(25, 5, 2)
    without = np.array([cka(np.delete(a, i, axis=0), np.delete(b, i, axis=0)).value for i in range(25)])
    from scipy.stats import t

    half = t.ppf(0.975, 24) * np.sqrt(24 / 25 * ((without - without.mean()) ** 2).sum())
    found = cka(a, b)
    assert (found.low, found.high) == (pytest.approx(found.value - half, abs=1e-10), pytest.approx(min(found.value + half, 1), abs=1e-10))


def test_features_are_fully_similar_to_themselves():
    a = _gaussian(600, 40, 0)
    found = cka(a, a)
    assert (found.value, found.low, found.high) == (pytest.approx(1), pytest.approx(1), pytest.approx(1))


def test_rotation_scale_and_shift_change_nothing_and_a_stretch_does():
    a, b = _gaussian(60, 8, 0), _gaussian(60, 8, 1) + _gaussian(60, 8, 0)
    rotation, _ = np.linalg.qr(_gaussian(8, 8, 2))
    expected = cka(a, b).value
    assert cka(a @ rotation * 7 + 100, b).value == pytest.approx(expected, abs=1e-10)
    assert cka(b, a).value == pytest.approx(expected, abs=1e-12)
    assert cka(a * np.arange(1, 9), b).value != pytest.approx(expected, abs=1e-2)


def test_a_large_mean_in_float32_costs_no_digits():
    a, b = _gaussian(60, 8, 0), _gaussian(60, 8, 1) + _gaussian(60, 8, 0)
    shifted = (a + 1000).astype(np.float32)
    assert cka(shifted, b).value == pytest.approx(cka(a, b).value, abs=1e-4)  # float32 keeps 6e-5 of 1000


def test_maps_are_flattened():
    a, b = _gaussian(12, 18, 0), _gaussian(12, 5, 1)
    assert cka(a.reshape(12, 2, 3, 3), b).value == cka(a, b).value


def test_images_sorted_by_class_are_compared_across_classes():
    """Features that tell two classes apart and nothing else: minibatches of one class would have nothing to see."""
    classes = np.repeat([0.0, 10.0], 300)[:, None]
    assert cka(classes + 0.01 * _gaussian(600, 1, 0), classes + 0.01 * _gaussian(600, 1, 1)).value == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("alike", [np.ones((20, 3)), np.eye(20)[:, :1]])
def test_features_that_do_not_differ_are_not_measurable(alike):
    for found in (cka(alike, _gaussian(20, 3, 0)), cka(_gaussian(20, 3, 0), alike)):
        assert found.status == "not_measurable"
        assert "alike for all images" in found.reason


def test_two_images_that_stand_out_give_a_value_without_interval():
    odd = np.zeros((20, 1))
    odd[:2] = 1
    found = cka(odd, odd)
    assert (found.value, found.low) == (pytest.approx(1), None)


def test_refusals():
    with pytest.raises(ValueError, match="same images in the same order, got 5 and 6 images"):
        cka(np.ones((5, 2)), np.ones((6, 2)))
    with pytest.raises(ValueError, match="at least 4 images, got 3"):
        cka(_gaussian(3, 2, 0), _gaussian(3, 2, 1))
    with pytest.raises(ValueError, match=r"must be \[images, ...\]"):
        cka(np.ones(5), np.ones(5))
    with pytest.raises(ValueError, match="at least one"):
        cka(np.ones((0, 5)), np.ones((0, 5)))
    with pytest.raises(ValueError, match="features_b must be finite"):
        cka(_gaussian(5, 2, 0), np.full((5, 2), np.nan))
