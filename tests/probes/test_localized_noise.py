import numpy as np
import pytest
from scipy.special import ndtri

from crossdistill.core.errors import SettingError
from crossdistill.probes._noise import noise_table, square_side
from crossdistill.probes.localized_noise import localized_noise


def grey(n, side=32, value=128):
    return np.full((n, 3, side, side), value, np.uint8)


def noisy(images, seed=1, **level):
    return localized_noise(images, np.zeros(len(images), np.int64), np.arange(len(images)), seed, **level)


@pytest.mark.parametrize("sigma", [0.01, 0.1, 0.25, 0.5])
def test_noise_is_made_of_normal_quantiles_of_the_sigma_asked_for(sigma):
    table = noise_table(sigma).astype(float)
    kept = np.abs(table) < 255  # beyond, any pixel clips
    expected = np.rint(255 * sigma * ndtri((np.arange(65536) + 0.5) / 65536))
    # Quantiles are exact to 2**-25, 4e-6 grey levels at most: a rounding may fall the other way in 1 of 10**5 entries.
    assert np.abs(table - expected)[kept].max() <= 1
    assert (table != expected)[kept].sum() <= 4


def test_quantiles_stand_far_from_where_rounding_would_depend_on_the_machine():
    exact = ndtri((np.arange(2**15, 2**16) + 0.5) / 2**16) * 2**24
    # Other libraries may differ by some 1e-15 of values up to 7e7: less than a tenth of this distance to a half.
    assert np.abs(exact - np.floor(exact) - 0.5).min() > 1e-6


def test_noise_is_symmetric():
    table = noise_table(0.3)
    assert np.array_equal(table, -table[::-1])


def test_pixels_outside_the_square_are_untouched_and_inside_are_noisy():
    images = grey(50)
    made = noisy(images, fraction=0.2, sigma=0.5)
    side = square_side(0.2, 32, 32)
    inside = np.zeros((50, 1, 32, 32), bool)
    for i, (top, left) in enumerate(zip(made.factors["top"], made.factors["left"], strict=True)):
        inside[i, :, top : top + side, left : left + side] = True
    inside = np.broadcast_to(inside, images.shape)
    assert np.array_equal(made.images[~inside], images[~inside])
    # A draw leaves a pixel as it is with probability 0.003 (half a grey level of 127).
    assert (made.images[inside] != images[inside]).mean() > 0.99


def test_noise_is_clipped_once_and_not_wrapped():
    white = noisy(grey(20, value=255), fraction=1.0, sigma=0.25).images
    # Half of the draws are positive and clip to white; wrapping would leave next to none.
    assert 0.48 < (white == 255).mean() < 0.52


def test_values_inside_have_mean_and_spread_of_the_noise():
    made = noisy(grey(100), fraction=1.0, sigma=0.1).images.astype(float)
    # 307,200 values of sd 25.5: the mean is known to 0.046, the sd to 0.033; five of these are allowed.
    assert abs(made.mean() - 128) < 0.25
    assert abs(made.std() - 25.5) < 0.2


def test_channels_and_pixels_are_independent():
    made = noisy(grey(100), fraction=1.0, sigma=0.1).images.astype(float) - 128
    correlations = [
        np.corrcoef(made[:, 0].ravel(), made[:, 1].ravel())[0, 1],
        np.corrcoef(made[..., 1:].ravel(), made[..., :-1].ravel())[0, 1],
    ]
    # Standard error at most 1 / sqrt(102,400) = 0.003; five of these.
    assert np.abs(correlations).max() < 0.016


def test_every_position_fully_inside_occurs_and_no_other():
    made = noisy(grey(4000, side=8), fraction=0.25, sigma=0.5)
    places = {(int(t), int(le)) for t, le in zip(made.factors["top"], made.factors["left"], strict=True)}
    assert places == {(top, left) for top in range(5) for left in range(5)}  # 8 - 4 + 1 = 5 places each way


def test_the_centred_square_is_in_the_centre_with_the_same_noise():
    random, centre = noisy(grey(3), fraction=0.25), noisy(grey(3), fraction=0.25, position="centre")
    assert centre.factors["top"].tolist() == centre.factors["left"].tolist() == [8, 8, 8]  # (32 - 16) / 2
    for i, (top, left) in enumerate(zip(random.factors["top"], random.factors["left"], strict=True)):
        assert np.array_equal(random.images[i, :, top : top + 16, left : left + 16], centre.images[i, :, 8:24, 8:24])


def test_levels_draw_apart_from_one_another():
    weak, strong = noisy(grey(100), sigma=0.25), noisy(grey(100), sigma=0.5)
    assert (weak.factors["top"] == strong.factors["top"]).mean() < 0.5


def test_a_tiny_fraction_still_has_a_pixel():
    assert square_side(1e-6, 32, 48) == 1
    assert square_side(1.0, 48, 64) == 48


@pytest.mark.parametrize(
    ("level", "message"),
    [
        ({"fraction": 0.0}, "fraction must be above 0 and at most 1, got 0.0"),
        ({"fraction": 1.5}, "fraction must be above 0 and at most 1, got 1.5"),
        ({"sigma": -0.1}, "sigma must not be negative, got -0.1"),
    ],
)
def test_settings_out_of_range_are_refused(level, message):
    with pytest.raises(SettingError, match=message):
        noisy(grey(1), **level)
