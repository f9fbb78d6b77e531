import colorsys

import numpy as np
import pytest

from crossdistill.probes.hue import hue


def turned(images, degrees):
    return hue(images, np.zeros(len(images), np.int64), degrees=degrees).images


@pytest.fixture
def colours():
    raw = np.random.Philox(key=8).random_raw(2 * 3 * 20 * 30) >> np.uint64(56)
    return raw.astype(np.uint8).reshape(2, 3, 20, 30)


@pytest.mark.parametrize("degrees", [30, 90, 180, 217, -45, 400])
def test_is_colorsys_with_another_hue(colours, degrees):
    made = turned(colours, degrees).transpose(0, 2, 3, 1).reshape(-1, 3)
    for before, after in zip(colours.transpose(0, 2, 3, 1).reshape(-1, 3) / 255, made, strict=True):
        h, s, v = colorsys.rgb_to_hsv(*before)
        expected = np.array(colorsys.hsv_to_rgb((h + degrees / 360) % 1, s, v)) * 255
        assert np.abs(after - expected).max() <= 0.5 + 1e-9  # rounding; at a half either side is right


def test_thirds_of_the_circle_swap_the_channels(colours):
    assert np.array_equal(turned(colours, 120), colours[:, [2, 0, 1]])  # red becomes green
    assert np.array_equal(turned(colours, 240), colours[:, [1, 2, 0]])


def test_whole_turns_and_greys_change_nothing(colours):
    assert np.array_equal(turned(colours, 360), colours)
    grey = colours[:, :1].repeat(3, axis=1)
    assert np.array_equal(turned(grey, 77), grey)


def test_the_largest_and_the_smallest_channel_keep_their_values(colours):
    made = turned(colours, 47)
    assert np.array_equal(made.max(axis=1), colours.max(axis=1))
    assert np.array_equal(made.min(axis=1), colours.min(axis=1))
