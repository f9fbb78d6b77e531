import numpy as np
import pytest
from statsmodels.stats.proportion import proportion_confint

from crossdistill.metrics.cue_bias import cue_bias
from crossdistill.metrics.cue_choice import cue_choice

SHAPE, TEXTURE, COLOUR = np.array([0, 0, 1, 1, 0]), np.array([1, 1, 2, 2, 0]), np.array([2, 2, 0, 0, 1])


def values(estimates):
    return {cue: estimate.value for cue, estimate in estimates.items()}


def test_divides_by_the_answers_that_name_a_cue():
    found = cue_bias(np.array([0, 1, 2, 5, 0]), SHAPE, TEXTURE, COLOUR)  # shape, texture, texture, none; the last has two cues in one
    assert values(found) == pytest.approx({"shape": 1 / 3, "texture": 2 / 3, "colour": 0})
    assert all(estimate.n == 3 for estimate in found.values())
    assert (found["texture"].low, found["texture"].high) == pytest.approx(proportion_confint(2, 3, method="wilson"))


@pytest.mark.parametrize(("factor", "cue"), [(SHAPE, "shape"), (TEXTURE, "texture"), (COLOUR, "colour")])
def test_a_reader_of_one_cue_has_only_that_bias(factor, cue):
    assert values(cue_bias(factor, SHAPE, TEXTURE, COLOUR)) == {"shape": 0, "texture": 0, "colour": 0, cue: 1}


def test_is_the_choice_among_those_who_chose():
    generator = np.random.default_rng(0)
    factors, decisions = generator.permuted(np.tile(np.arange(6), (300, 1)), axis=1).T[:3], generator.integers(0, 6, 300)
    bias, choice = values(cue_bias(decisions, *factors)), values(cue_choice(decisions, *factors))
    assert sum(bias.values()) == pytest.approx(1)
    assert bias == pytest.approx({cue: share / sum(choice.values()) for cue, share in choice.items()})


def test_is_not_measurable_where_no_answer_names_a_cue():
    found = cue_bias(np.full(5, 9), SHAPE, TEXTURE, COLOUR)
    assert {estimate.status for estimate in found.values()} == {"not_measurable"}


def test_a_network_that_answers_every_conflict_alike_chose_no_cue():
    factors = [np.arange(start, start + 100) % 10 for start in range(3)]
    found = cue_bias(np.zeros(100, np.int64), *factors)
    assert {(e.status, e.value, e.n) for e in found.values()} == {("not_measurable", None, 100)}
    assert all("every answer is the same class" in e.reason for e in found.values())
