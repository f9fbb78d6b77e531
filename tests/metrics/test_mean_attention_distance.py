import numpy as np
import pytest
from scipy.stats import t

from crossdistill.metrics.mean_attention_distance import mean_attention_distance

DISTANCES = np.random.default_rng(0).uniform(0.2, 1.2, size=(40, 2, 3))


def test_each_head_is_a_mean_over_images_with_students_t_interval():
    found = mean_attention_distance(DISTANCES)["layer2_head3"]
    values = DISTANCES[:, 1, 2]
    low, high = t.interval(0.95, 39, loc=values.mean(), scale=values.std(ddof=1) / np.sqrt(40))
    assert (found.value, found.low, found.high, found.n) == pytest.approx((values.mean(), low, high, 40))


def test_a_layer_is_the_mean_of_its_heads():
    found = mean_attention_distance(DISTANCES)
    assert list(found) == [name for layer in ("layer1", "layer2") for name in (layer, *(f"{layer}_head{head}" for head in (1, 2, 3)))]
    assert found["layer1"].value == pytest.approx(np.mean([found[f"layer1_head{head}"].value for head in (1, 2, 3)]))


def test_draws_are_averaged_inside_an_image():
    twice = mean_attention_distance(np.stack([DISTANCES, DISTANCES + 0.2]))["layer1_head1"]
    once = mean_attention_distance(DISTANCES + 0.1)["layer1_head1"]
    assert (twice.value, twice.low, twice.n) == pytest.approx((once.value, once.low, 40))


def test_one_image_has_no_interval_and_so_no_figure():
    assert mean_attention_distance(DISTANCES[:1])["layer1"].status == "not_measurable"


def test_refuses_what_is_no_distance_of_layers_and_heads():
    with pytest.raises(ValueError, match=r"must be \[images, layers, heads\]"):
        mean_attention_distance(np.ones((4, 3)))
    with pytest.raises(ValueError, match="finite"):
        mean_attention_distance(np.full((4, 1, 1), np.nan))
