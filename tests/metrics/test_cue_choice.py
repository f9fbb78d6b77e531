import numpy as np
import pytest
from statsmodels.stats.proportion import proportion_confint

from crossdistill.metrics.cue_choice import cue_choice

SHAPE, TEXTURE, COLOUR = np.array([0, 0, 1, 1, 0]), np.array([1, 1, 2, 2, 0]), np.array([2, 2, 0, 0, 1])


def values(estimates):
    return {cue: estimate.value for cue, estimate in estimates.items()}


def test_shares_are_over_images_of_three_different_classes():
    found = cue_choice(np.array([0, 1, 2, 5, 0]), SHAPE, TEXTURE, COLOUR)  # shape, texture, texture, none; the last has two cues in one
    assert values(found) == {"shape": 0.25, "texture": 0.5, "colour": 0.0}
    assert all(estimate.n == 4 for estimate in found.values())
    assert (found["texture"].low, found["texture"].high) == pytest.approx(proportion_confint(2, 4, method="wilson"))


@pytest.mark.parametrize(("factor", "cue"), [(SHAPE, "shape"), (TEXTURE, "texture"), (COLOUR, "colour")])
def test_a_reader_of_one_cue_names_only_that(factor, cue):
    assert values(cue_choice(factor, SHAPE, TEXTURE, COLOUR)) == {"shape": 0, "texture": 0, "colour": 0, cue: 1}


def test_is_not_measurable_where_no_image_has_three_classes():
    found = cue_choice(SHAPE, SHAPE, SHAPE, COLOUR)
    assert {estimate.status for estimate in found.values()} == {"not_measurable"}


def test_draws_are_averaged_inside_an_image():
    found = cue_choice(np.stack([SHAPE, COLOUR]), SHAPE, TEXTURE, COLOUR)
    assert values(found) == {"shape": 0.5, "texture": 0, "colour": 0.5}
    assert found["shape"].n == 4
