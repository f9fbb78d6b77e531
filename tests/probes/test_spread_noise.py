import numpy as np
import pytest
from scipy.special import ndtri

from crossdistill.core.errors import SettingError
from crossdistill.probes._build import build_probe_set
from crossdistill.probes._noise import noisy_squares
from crossdistill.probes.spread_noise import spread_noise, squared_error, standard_normal


def spread(images, seed=1, **level):
    return spread_noise(images, np.zeros(len(images), np.int64), np.arange(len(images)), seed, **level)


def error(made, images):
    return ((made.astype(np.int64) - images) ** 2).sum(axis=(1, 2, 3))


@pytest.mark.parametrize("position", ["random", "centre"])
@pytest.mark.parametrize(("fraction", "sigma"), [(0.05, 0.1), (0.2, 0.25), (0.4, 0.5), (1.0, 0.5)])
def test_the_error_is_that_of_localized_noise(make_images, fraction, sigma, position):
    images = make_images(20).images
    made = spread(images, fraction=fraction, sigma=sigma, position=position)
    square, _, _ = noisy_squares(images, np.arange(20), 1, fraction, sigma, position)
    assert np.array_equal(made.factors["localized_error"], error(square, images))
    assert np.array_equal(made.factors["squared_error"], error(made.images, images))
    share = made.factors["squared_error"] / made.factors["localized_error"]
    # One step of the scale is 2**-13 of sigma, and the mildest level needs a fifth of sigma: 0.12 % of the error, four of them allowed.
    assert (share <= 1).all()
    assert share.min() > 0.995


def test_a_built_set_spreads_the_error_of_the_squares_that_localized_noise_shows(make_images, tmp_path):
    images = make_images(12)
    local, spread_out = (build_probe_set(name, images, draws=2, folder=tmp_path) for name in ("localized_noise", "spread_noise"))
    for level in range(len(local.levels)):
        for draw in range(2):
            found = error(local.images(level, draw).images, images.images)
            assert np.array_equal(spread_out.factor("localized_error", level, draw), found)
            share = error(spread_out.images(level, draw).images, images.images) / found
            assert (share <= 1).all()
            assert share.min() > 0.99


def test_noise_is_all_over_the_image():
    grey = np.full((50, 3, 32, 32), 128, np.uint8)
    noise = spread(grey, fraction=0.2, sigma=0.5).images.astype(float) - 128
    # Each of 1,024 places has 150 values of one sd, known to 6 %; five of these are allowed.
    places = noise.reshape(150, 32, 32).std(axis=0)
    assert np.abs(places / places.mean() - 1).max() < 0.3
    assert abs(noise.mean()) < 5 * noise.std() / np.sqrt(noise.size)


def test_noise_is_clipped_and_not_wrapped():
    white = spread(np.full((20, 3, 32, 32), 255, np.uint8), fraction=0.4, sigma=0.5).images
    # Half of the draws are positive and clip to white; wrapping would leave next to none.
    assert 0.48 < (white == 255).mean() < 0.52


def test_draws_are_normal_quantiles():
    words = np.array([[0, 2**63 + 5]], np.uint64)
    expected = ndtri((np.array([0, 0, 0, 0, 5, 0, 0, 32768]) + 0.5) / 65536)
    # Rounded to 2**-24, then to 2**-20.
    assert np.abs(standard_normal(words, 8)[0] - expected).max() <= 2**-21 + 2**-25


def test_errors_are_exact_sums_of_squares():
    difference = np.random.Philox(key=3).random_raw(2 * 3072).reshape(2, 3072) % np.uint64(256)
    expected = [sum(int(value) ** 2 for value in row) for row in difference]
    assert squared_error(difference.astype(np.float32), np.zeros((2, 3072), np.float32)).tolist() == expected


def test_a_tiny_image_works():
    made = spread(np.full((3, 3, 1, 2), 100, np.uint8), fraction=1.0, sigma=0.5)
    assert (made.factors["squared_error"] <= made.factors["localized_error"]).all()


@pytest.mark.parametrize(
    ("level", "message"), [({"fraction": 0.0}, "fraction must be above 0"), ({"sigma": -1.0}, "sigma must not be negative, got -1.0")]
)
def test_settings_out_of_range_are_refused(level, message):
    with pytest.raises(SettingError, match=message):
        spread(np.zeros((1, 3, 8, 8), np.uint8), **level)
