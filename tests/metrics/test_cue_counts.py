import numpy as np
import pytest
from statsmodels.stats.proportion import proportion_confint

from crossdistill.metrics.cue_counts import cue_counts
from crossdistill.metrics.shape_bias import shape_bias

SHAPES = np.array(["cat", "cat", "dog", "dog", "cat", "dog"])
TEXTURES = np.array(["dog", "dog", "cat", "cat", "cat", "bear"])
DECISIONS = np.array(["cat", "dog", "dog", "bear", "cat", "na"])  # shape, texture, shape, neither, no conflict, neither


def test_counts_both_cues_and_the_share_of_either():
    found = cue_counts(DECISIONS, SHAPES, TEXTURES)
    assert {name: estimate.value for name, estimate in found.items()} == {"shape": 2, "texture": 1, "either": 0.6}
    assert [estimate.n for estimate in found.values()] == [5, 5, 5]
    assert (found["either"].low, found["either"].high) == pytest.approx(proportion_confint(3, 5, method="wilson"))
    assert (found["shape"].unit, found["either"].unit) == ("images", "share")


def test_the_counts_give_the_shape_bias():
    generator = np.random.default_rng(0)
    shapes, textures, decisions = generator.integers(0, 4, (3, 500))
    found = cue_counts(decisions, shapes, textures)
    bias = shape_bias(decisions, shapes, textures)
    assert bias.value == pytest.approx(found["shape"].value / (found["shape"].value + found["texture"].value))
    assert bias.n == found["shape"].value + found["texture"].value


def test_draws_are_averaged_inside_an_image():
    found = cue_counts(np.stack([SHAPES, DECISIONS]), SHAPES, TEXTURES)
    assert (found["shape"].value, found["texture"].value, found["shape"].n) == (3.5, 0.5, 5)


def test_no_answer_names_a_cue():
    assert [estimate.value for estimate in cue_counts(np.array(["na"] * 6), SHAPES, TEXTURES).values()] == [0, 0, 0]


def test_is_not_measurable_without_conflict():
    found = cue_counts(SHAPES, SHAPES, SHAPES)
    assert {estimate.status for estimate in found.values()} == {"not_measurable"}
