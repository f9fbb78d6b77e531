import numpy as np
import pytest

from crossdistill.compare.observed import AVERAGE
from crossdistill.compare.observed import curve as compared
from crossdistill.core.types import Observations
from crossdistill.metrics._curves import AREA, curve
from crossdistill.metrics.accuracy import accuracy
from crossdistill.metrics.confidence import confidence
from crossdistill.metrics.retention import retention

N, CLASSES = 60, 4


@pytest.fixture
def logits():
    """{level: [draws, images, classes]} of a probe at three levels, two draws each."""
    generator = np.random.default_rng(0)
    return {level: generator.normal(size=(2, N, CLASSES)).astype(np.float32) for level in ("0.1", "0.5", "0.9")}


def test_the_area_is_what_the_comparison_calls_so(logits):
    labels = np.arange(N) % CLASSES
    seen = {level: [Observations(draw, labels, np.arange(N)) for draw in draws] for level, draws in logits.items()}
    ours, theirs = curve(lambda answers: answers, logits), compared(seen)
    assert AREA == AVERAGE
    assert list(ours) == list(theirs)
    assert all(np.array_equal(answers, theirs[level].logits) for level, answers in ours.items())


def test_the_area_under_a_share_is_the_mean_of_the_levels():
    labels, clean = np.arange(N) % CLASSES, np.arange(N) < 50
    right = {"2": np.arange(N) < 40, "4": np.arange(N) < 30, "8": np.arange(N) < 5}
    found = curve(lambda probe: retention(probe, clean, chance=1 / CLASSES).value, right)
    assert found.pop(AREA) == pytest.approx(np.mean(list(found.values())))
    decisions = {level: np.where(hits, labels, (labels + 1) % CLASSES) for level, hits in right.items()}
    assert curve(lambda answers: accuracy(answers, labels), decisions)[AREA].value == pytest.approx(75 / 180)


def test_the_area_counts_every_image_once(logits):
    assert curve(confidence, logits)[AREA].n == N


def test_one_level_has_no_area(logits):
    assert list(curve(confidence, {"0.1": logits["0.1"]})) == ["0.1"]


def test_refuses_levels_of_different_numbers_of_draws(logits):
    with pytest.raises(ValueError, match="as many draws"):
        curve(confidence, {**logits, "0.9": logits["0.9"][:1]})
