import numpy as np
import pytest
import statsmodels.api as sm
from scipy.special import expit, logit

from crossdistill.metrics.accuracy_residual import accuracy_residual

POOL_CLEAN, POOL_PROBE = np.array([0.62, 0.71, 0.78, 0.85, 0.9]), np.array([0.3, 0.42, 0.44, 0.61, 0.66])


def right(share, n=1000):
    return np.arange(n) < round(share * n)


def pair(generator, probe=0.6, clean=0.8, n=800):
    """Right or wrong on a probe and on clean images, with much in common."""
    hardness = generator.random(n)
    return hardness + 0.2 * generator.normal(size=n) < probe, hardness < clean


def test_is_the_distance_from_the_least_squares_line():
    model = sm.OLS(logit(POOL_PROBE), sm.add_constant(logit(POOL_CLEAN))).fit()
    foretold = model.get_prediction(np.array([[1.0, logit(0.8)]]))
    found = accuracy_residual(right(0.6), right(0.8), POOL_PROBE, POOL_CLEAN)
    assert found["logit"].value == pytest.approx(logit(0.6) - foretold.predicted_mean[0])
    assert found["share"].value == pytest.approx(0.6 - expit(foretold.predicted_mean[0]))
    assert found["pool_sd"].value == pytest.approx(np.sqrt(model.mse_resid))
    assert (found["logit"].n, found["pool_sd"].n) == (1000, 5)


def test_with_endless_images_the_interval_is_that_of_the_line():
    model = sm.OLS(logit(POOL_PROBE), sm.add_constant(logit(POOL_CLEAN))).fit()
    low, high = model.get_prediction(np.array([[1.0, logit(0.8)]])).conf_int()[0]
    found = accuracy_residual(right(0.6, 10**6), right(0.8, 10**6), POOL_PROBE, POOL_CLEAN)["logit"]
    assert (found.low, found.high) == pytest.approx((logit(0.6) - high, logit(0.6) - low), rel=2e-3)


@pytest.mark.parametrize("figure", ["logit", "share"])
def test_on_an_exact_line_the_interval_is_that_of_resampled_images(figure):
    pool_probe = expit(0.8 * logit(POOL_CLEAN) - 1)
    generator = np.random.default_rng(0)
    probe, clean = pair(generator)
    found, resampled = accuracy_residual(probe, clean, pool_probe, POOL_CLEAN)[figure], []
    for _ in range(1000):
        rows = generator.integers(0, len(probe), len(probe))
        resampled.append(accuracy_residual(probe[rows], clean[rows], pool_probe, POOL_CLEAN)[figure].value)
    # 1,000 resamples know a standard error to 2 % (one standard deviation).
    assert (found.high - found.low) / 2 / 1.96 == pytest.approx(np.std(resampled), rel=0.08)


def test_the_interval_covers_the_truth():
    """A network 0.3 logits above a line from which the pool's five networks stray by 0.1."""
    generator, covered, truth = np.random.default_rng(1), 0, 0.3
    x = logit(POOL_CLEAN)
    for _ in range(500):
        pool_probe = expit(x - 1 + 0.1 * generator.normal(size=5))
        probe, clean = generator.random((2, 2000)) < np.array([[expit(logit(0.75) - 1 + truth)], [0.75]])
        estimate = accuracy_residual(probe, clean, pool_probe, POOL_CLEAN)["logit"]
        covered += estimate.low <= truth <= estimate.high
    assert 0.93 <= covered / 500 <= 0.98


def test_a_better_network_on_the_line_has_no_residual():
    pool_probe = expit(0.8 * logit(POOL_CLEAN) - 1)
    on_the_line = right(expit(0.8 * logit(0.8) - 1), 10**6)
    found = accuracy_residual(on_the_line, right(0.8, 10**6), pool_probe, POOL_CLEAN)
    assert (found["logit"].value, found["share"].value) == pytest.approx((0, 0), abs=1e-5)


@pytest.mark.parametrize("clean", [0.61, 0.91])
def test_is_not_measurable_outside_the_pool(clean):
    found = accuracy_residual(right(0.5), right(clean), POOL_PROBE, POOL_CLEAN)
    assert {estimate.status for estimate in found.values()} == {"not_measurable"}
    assert f"clean accuracy {100 * clean:.1f} % lies outside the pool's 62.0 to 90.0 %" in found["logit"].reason


@pytest.mark.parametrize(
    ("probe", "pool_probe", "pool_clean", "reason"),
    [
        (0.5, POOL_PROBE[:2], np.array([0.7, 0.9]), "a line through 2 networks"),
        (0.0, POOL_PROBE, POOL_CLEAN, "no logit"),
        (0.5, np.array([0.0, 0.5, 0.6]), np.array([0.7, 0.8, 0.9]), "no logit"),
        (0.5, POOL_PROBE, np.full(5, 0.8), "one clean accuracy"),
    ],
)
def test_is_not_measurable_without_a_line(probe, pool_probe, pool_clean, reason):
    found = accuracy_residual(right(probe), right(0.8), pool_probe, pool_clean)
    assert {estimate.status for estimate in found.values()} == {"not_measurable"}
    assert reason in found["share"].reason


def test_draws_are_averaged_inside_an_image():
    draws = np.stack([right(0.5), right(0.7)])
    found = accuracy_residual(draws, right(0.8), POOL_PROBE, POOL_CLEAN)["logit"]
    assert found.value == pytest.approx(accuracy_residual(right(0.6), right(0.8), POOL_PROBE, POOL_CLEAN)["logit"].value)
    assert found.n == 1000


def test_refuses_other_images_and_pools():
    with pytest.raises(ValueError, match="cover the same images, got 10 and 11"):
        accuracy_residual(right(0.5, 10), right(0.8, 11), POOL_PROBE, POOL_CLEAN)
    with pytest.raises(ValueError, match="both accuracies of each network, got 4 and 5"):
        accuracy_residual(right(0.5), right(0.8), POOL_PROBE[:4], POOL_CLEAN)
    with pytest.raises(ValueError, match="pool_clean_accuracies must be shares"):
        accuracy_residual(right(0.5), right(0.8), POOL_PROBE, 100 * POOL_CLEAN)
