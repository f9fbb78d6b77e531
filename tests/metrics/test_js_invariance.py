import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.special import softmax

from crossdistill.metrics.js_invariance import js_divergence, js_invariance, spread_between_images


def predictions(generator, n, n_classes=5, sharpness=2.0):
    """Logits that favour one class an image, more or less."""
    return sharpness * generator.normal(size=(n, n_classes)) + 2 * np.eye(n_classes)[np.arange(n) % n_classes]


def all_pairs(p):
    """[images]: the mean divergence of each image from every other, pair by pair."""
    divergence = np.array([js_divergence(row, p) for row in p])
    return divergence.sum(axis=1) / (len(p) - 1)


def test_divergence_is_the_square_of_scipys_distance_in_base_two():
    p, q = softmax(np.random.default_rng(0).normal(size=(2, 40, 6)) * 3, axis=-1)
    assert js_divergence(p, q) == pytest.approx(jensenshannon(p, q, base=2, axis=1) ** 2, abs=1e-12)
    assert js_divergence(p, q) == pytest.approx(js_divergence(q, p), abs=1e-15)


def test_divergence_by_hand():
    p, q = np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([[0.0, 1.0], [0.5, 0.5]])
    # H(3/4, 1/4) - H(1/2, 1/2) / 2 = 0.8113 - 0.5
    assert js_divergence(p, q) == pytest.approx([1, 0.75 * np.log2(4 / 3) + 0.25 * 2 - 0.5])


@pytest.mark.parametrize("n", [2, 3, 10, 31, 200])
def test_few_images_are_all_paired_with_all(n):
    p = softmax(predictions(np.random.default_rng(1), n), axis=-1)
    assert spread_between_images(p) == pytest.approx(all_pairs(p), abs=1e-12)


def test_many_images_are_paired_with_a_fair_sample():
    p = softmax(predictions(np.random.default_rng(2), 1500), axis=-1)
    exact, sampled = all_pairs(p), spread_between_images(p)
    # 100,000 pairs with a standard deviation of about 0.25 bits.
    assert sampled.mean() == pytest.approx(exact.mean(), abs=4 * 0.25 / np.sqrt(100_000))
    assert np.corrcoef(exact, sampled)[0, 1] > 0.95


def test_images_sorted_by_class_are_paired_no_differently():
    logits = predictions(np.random.default_rng(3), 1000)
    order = np.argsort(np.arange(1000) % 5, kind="stable")
    p = softmax(logits, axis=-1)
    assert spread_between_images(p[order]) == pytest.approx(spread_between_images(p)[order], abs=1e-12)


def test_is_one_minus_the_ratio_of_two_means():
    generator = np.random.default_rng(4)
    clean = predictions(generator, 60)
    probe = clean + generator.normal(size=(3, 60, 5))
    p, draws = softmax(clean, axis=-1), softmax(probe, axis=-1)
    change = np.mean([jensenshannon(p, draw, base=2, axis=1) ** 2 for draw in draws])
    estimate = js_invariance(clean, probe)
    assert estimate.value == pytest.approx(1 - change / all_pairs(p).mean(), abs=1e-12)
    assert estimate.n == 60


def test_predictions_that_do_not_change_are_invariant():
    logits = predictions(np.random.default_rng(5), 50)
    estimate = js_invariance(logits, np.stack([logits, logits + 7]))  # the same for all classes: no change either
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((1, 1, 1), abs=1e-9)


def test_predictions_of_other_images_are_not_invariant_at_all():
    logits = predictions(np.random.default_rng(6), 2000)
    estimate = js_invariance(logits, np.random.default_rng(7).permutation(logits))
    assert estimate.low < 0 < estimate.high
    assert estimate.value == pytest.approx(0, abs=0.05)


def test_the_temperature_undoes_a_scale_of_the_logits():
    generator = np.random.default_rng(8)
    clean = predictions(generator, 80)
    probe = clean + generator.normal(size=clean.shape)
    assert js_invariance(3 * clean, 3 * probe, temperature=3).value == pytest.approx(js_invariance(clean, probe).value, abs=1e-12)
    flat = js_invariance(0.05 * clean, 0.05 * probe)
    assert flat.value is None or flat.value != pytest.approx(js_invariance(clean, probe).value, abs=0.02)


def test_the_interval_covers_the_truth():
    def study(generator, n):
        clean = predictions(generator, n)
        return clean, clean + 1.5 * generator.normal(size=clean.shape)

    truth = js_invariance(*study(np.random.default_rng(9), 100_000)).value
    covered = 0
    for seed in range(300):
        estimate = js_invariance(*study(np.random.default_rng(1000 + seed), 100))
        covered += estimate.low <= truth <= estimate.high
    assert 0.92 <= covered / 300 <= 0.98  # 95 %, give or take 2.4 standard deviations


def test_a_constant_predictor_is_not_measurable():
    noise = 1e-4 * np.random.default_rng(10).normal(size=(50, 3))
    estimate = js_invariance(np.array([[2.0, 0.0, 0.0]]) + noise, np.zeros((50, 3)))
    assert (estimate.status, estimate.value) == ("not_measurable", None)
    assert "every image is answered alike" in estimate.reason


def test_one_image_is_not_measurable():
    assert js_invariance(np.zeros((1, 3)), np.zeros((1, 3))).status == "not_measurable"
    assert spread_between_images(np.full((1, 3), 1 / 3)).tolist() == [0.0]  # and never NaN


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_refuses_a_temperature_that_is_not_positive(temperature):
    with pytest.raises(ValueError, match=f"temperature must be positive, got {temperature}"):
        js_invariance(np.zeros((4, 3)), np.zeros((4, 3)), temperature=temperature)


@pytest.mark.parametrize("shape", [(4, 2), (5, 3), (4,)])
def test_refuses_other_images_or_classes(shape):
    with pytest.raises(ValueError, match="clean_logits must be"):
        js_invariance(np.zeros((4, 3)), np.zeros(shape))


def test_a_known_spread_is_not_taken_again():
    generator = np.random.default_rng(8)
    before, after = predictions(generator, 300), predictions(generator, 300)
    spread = spread_between_images(softmax(before / 1.7, axis=-1))
    found, known = (js_invariance(before, after, of, temperature=1.7) for of in (None, spread))
    assert (known.value, known.low, known.high) == pytest.approx((found.value, found.low, found.high), abs=1e-12)
    assert js_invariance(before, after, 2 * spread, temperature=1.7).value == pytest.approx(1 - (1 - found.value) / 2)


def test_a_spread_of_other_images_is_refused():
    logits = predictions(np.random.default_rng(9), 20)
    with pytest.raises(ValueError, match=r"one number for each of the 20 images, got \(19,\)"):
        js_invariance(logits, logits, np.ones(19))
