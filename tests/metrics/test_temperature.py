import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import log_loss

from crossdistill.metrics._temperature import HIGHEST, LOWEST, fitted_temperature


@pytest.fixture
def honest():
    """Logits whose softmax is the law that their labels were drawn from."""
    generator = np.random.default_rng(0)
    logits = 2 * generator.normal(size=(20_000, 4))
    cumulated = softmax(logits, axis=1).cumsum(axis=1)
    return logits, (generator.random((20_000, 1)) > cumulated).sum(axis=1).clip(max=3)


@pytest.mark.parametrize("planted", [0.3, 1.0, 2.5, 20.0])
def test_finds_the_temperature_that_was_planted(honest, planted):
    logits, labels = honest
    assert fitted_temperature(planted * logits, labels) == pytest.approx(planted, rel=0.03)


def test_no_temperature_of_a_grid_is_better(honest):
    logits, labels = 3 * honest[0][:500], honest[1][:500]
    grid = np.geomspace(LOWEST, HIGHEST, 20_001)
    losses = [log_loss(labels, softmax(logits / temperature, axis=1)) for temperature in grid[::100]]
    best = np.argmin(losses) * 100
    near = grid[best - 100 : best + 101]
    best_near = near[np.argmin([log_loss(labels, softmax(logits / temperature, axis=1)) for temperature in near])]
    assert fitted_temperature(logits, labels) == pytest.approx(best_near, rel=1e-3)  # the grid's step is 0.05 %


def test_a_scale_of_the_logits_is_the_scale_of_the_temperature(honest):
    logits, labels = honest[0][:500], honest[1][:500]
    assert fitted_temperature(5 * logits, labels) == pytest.approx(5 * fitted_temperature(logits, labels), rel=1e-6)


def test_a_network_that_is_never_wrong_gets_the_lowest_and_one_that_is_wrong_on_purpose_the_highest():
    logits = np.eye(3)[np.arange(30) % 3]
    assert fitted_temperature(logits, np.arange(30) % 3) == pytest.approx(LOWEST)
    assert fitted_temperature(-logits, np.arange(30) % 3) == pytest.approx(HIGHEST)


def test_huge_logits_stay_finite():
    logits = 1e5 * np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    assert fitted_temperature(logits, np.array([0, 1, 1])) == pytest.approx(HIGHEST)


def test_refuses_labels_that_are_no_columns():
    with pytest.raises(ValueError, match="labels must be 0 to 2, the columns of the logits, got 0 to 3"):
        fitted_temperature(np.zeros((2, 3)), np.array([0, 3]))
    with pytest.raises(TypeError, match="labels must be integers"):
        fitted_temperature(np.zeros((2, 3)), np.array(["cat", "dog"]))


def test_refuses_another_number_of_labels():
    with pytest.raises(ValueError, match=r"one label an image, got \(2, 3\) and labels \(3,\)"):
        fitted_temperature(np.zeros((2, 3)), np.array([0, 1, 2]))


def test_refuses_no_images():
    with pytest.raises(ValueError, match="at least one image"):
        fitted_temperature(np.zeros((0, 3)), np.zeros(0, int))
