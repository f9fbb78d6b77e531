import numpy as np
import pytest
from statsmodels.stats.proportion import proportion_confint

from crossdistill.metrics.shape_bias import shape_bias

SHAPES = np.array(["cat", "cat", "dog", "dog", "cat", "dog"])
TEXTURES = np.array(["dog", "dog", "cat", "cat", "cat", "bear"])


def test_counts_shape_among_answers_that_name_either_cue():
    decisions = np.array(["cat", "dog", "dog", "bear", "cat", "na"])  # shape, texture, shape, neither, no conflict, neither
    estimate = shape_bias(decisions, SHAPES, TEXTURES)
    assert (estimate.value, estimate.n) == (pytest.approx(2 / 3), 3)
    assert (estimate.low, estimate.high) == pytest.approx(proportion_confint(2, 3, method="wilson"))


def test_a_reader_of_shape_scores_one_and_a_reader_of_texture_zero():
    assert shape_bias(SHAPES, SHAPES, TEXTURES).value == 1
    assert shape_bias(TEXTURES, SHAPES, TEXTURES).value == 0


def test_is_not_measurable_where_no_answer_names_a_cue():
    estimate = shape_bias(np.array(["na"] * 6), SHAPES, TEXTURES)
    assert (estimate.status, estimate.value) == ("not_measurable", None)
    assert "no decision names the shape or the texture" in estimate.reason


def test_is_not_measurable_without_conflict():
    assert shape_bias(SHAPES, SHAPES, SHAPES).status == "not_measurable"


def test_draws_are_averaged_inside_an_image():
    estimate = shape_bias(np.stack([SHAPES, TEXTURES]), SHAPES, TEXTURES)
    assert (estimate.value, estimate.n) == (0.5, 5)


def test_a_factor_may_differ_between_draws():
    textures = np.stack([TEXTURES, TEXTURES[::-1]])
    assert shape_bias(np.stack([SHAPES, SHAPES]), SHAPES, textures).value == 1


def test_a_network_that_answers_every_conflict_alike_chose_no_cue():
    shapes, textures = np.arange(100) % 10, np.arange(1, 101) % 10
    refused = shape_bias(np.zeros(100, np.int64), shapes, textures)
    assert (refused.status, refused.value, refused.n) == ("not_measurable", None, 100)
    assert "every answer is the same class" in refused.reason
    assert shape_bias(np.zeros((2, 100), np.int64), shapes, textures).status == "not_measurable"
    assert shape_bias(np.eye(1, 100, dtype=np.int64)[0], shapes, textures).status == "ok"  # one other answer: it may have chosen
    assert shape_bias(np.zeros(100, np.int64), np.zeros(100, np.int64), np.arange(1, 101)).value == 1  # only one shape was shown
