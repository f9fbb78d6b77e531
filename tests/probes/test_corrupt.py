import hashlib
import io

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from scipy.special import ndtri, pdtr
from scipy.stats import poisson
from skimage import color, data

from crossdistill.core import registry
from crossdistill.core.errors import SettingError, UnknownNameError
from crossdistill.probes import _corruptions_weather as weather
from crossdistill.probes._build import build_probe_set
from crossdistill.probes._corruptions import CORRUPTIONS
from crossdistill.probes._corruptions_blur import angles_between, disc, passed_on, soft_disc
from crossdistill.probes._corruptions_digital import affine_places, interpolated
from crossdistill.probes._corruptions_linear import gaussian, mirror_edge, smoothed, streak_offsets, streaked, whole_weights, zoomed
from crossdistill.probes._corruptions_noise import normal_quantiles, shot_table
from crossdistill.probes._corruptions_weather import plasma
from crossdistill.probes.corrupt import corrupt

KINDS = list(CORRUPTIONS)
SEVERITIES = range(1, 6)
WITHOUT_CHANCE = ["defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression"]

every_severity = pytest.mark.parametrize("severity", SEVERITIES)
small_and_large = pytest.mark.parametrize("side", [32, 96])


def photographs(side, n=2):
    """Parts of a photograph at its own resolution, so that there are sharp edges."""
    picture = data.astronaut().transpose(2, 0, 1)
    starts = [(0, 60), (20, 180), (200, 100), (260, 250)][:n]
    return np.stack([picture[:, top : top + side, left : left + side] for top, left in starts])


def corrupted(images, kind, severity, seed=1):
    made = corrupt(images, np.zeros(len(images), np.int64), np.arange(len(images)), seed, kind=kind, severity=severity)
    return made.images.astype(float)


def squared_error(made, images):
    return ((made - images.astype(float)) ** 2).mean()


def strength(kind, severity, side):
    return CORRUPTIONS[kind].strength(severity, (side, side))


def draws_of(n_images, n, seed=0):
    return (np.random.Philox(key=seed).random_raw(n_images * n).reshape(n_images, n) >> np.uint64(48)).astype(np.uint16)


def test_there_are_the_fifteen_standard_kinds_in_the_order_of_the_paper():
    # Paper, figure 1: three kinds of noise, four of blur, four of weather, four digital ones.
    assert KINDS[:3] == ["gaussian_noise", "shot_noise", "impulse_noise"]
    assert KINDS[3:7] == ["defocus_blur", "glass_blur", "motion_blur", "zoom_blur"]
    assert KINDS[7:11] == ["snow", "frost", "fog", "brightness"]
    assert KINDS[11:] == ["contrast", "elastic_transform", "pixelate", "jpeg_compression"]
    assert registry.get("probe", "corrupt").settings.model_json_schema()["properties"]["kind"]["enum"] == KINDS
    assert len(registry.get("probe", "corrupt").facts["full"]((32, 32))) == 75


def test_small_images_have_the_strengths_of_cifar_and_larger_ones_those_of_imagenet():
    assert [strength("gaussian_noise", severity, 64) for severity in SEVERITIES] == [4, 6, 8, 9, 10]
    assert CORRUPTIONS["gaussian_noise"].strength(5, (48, 65)) == 38


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "frost"])
def test_kinds_draw_for_each_image_or_not_at_all(kind):
    images = np.repeat(photographs(32, 1), 3, axis=0)
    made = corrupted(images, kind, 4)
    other = corrupted(images, kind, 4, seed=2)
    drawn = kind not in WITHOUT_CHANCE
    assert (made[0] != made[1]).any() == drawn
    assert (made != other).any() == drawn
    assert (made != images).any()


def test_no_weight_stands_where_rounding_would_depend_on_the_machine():
    def distance(weights, bits):
        exact = weights / weights.sum() * 2**bits
        return np.abs(exact - np.floor(exact) - 0.5).min()

    discs = [soft_disc(*shape) for shape in (*CORRUPTIONS["defocus_blur"].small, *CORRUPTIONS["defocus_blur"].large)]
    glass = [shape[0] for shape in (*CORRUPTIONS["glass_blur"].small, *CORRUPTIONS["glass_blur"].large)]
    streaks = [*CORRUPTIONS["motion_blur"].small, *CORRUPTIONS["motion_blur"].large]
    streaks += [shape[4:6] for shape in (*CORRUPTIONS["snow"].small, *CORRUPTIONS["snow"].large)]
    # Libraries differ by some 1e-15 of weights up to 4e6, and of 65,536.
    assert min(distance(disc, 22) for disc in discs) > 1e-8
    assert min(distance(gaussian(sigma, int(4 * sigma + 0.5)), 16) for sigma in glass) > 1e-8
    for radius, sigma in streaks:
        assert distance(gaussian(sigma, 2 * radius)[2 * radius :], 16) > 1e-8
    for side in (32, 64, 224):
        for severity in SEVERITIES:
            sigma = strength("elastic_transform", severity, side)[1] * side
            assert distance(gaussian(sigma, int(3 * sigma + 0.5)), 16) > 1e-8


# Noise


def test_the_quantiles_and_counts_stand_far_from_where_rounding_would_depend_on_the_machine():
    exact = ndtri((np.arange(2**15, 2**16) + 0.5) / 2**16) * 2**24
    # Other libraries may differ by some 1e-15 of values up to 7e7, and by some 1e-15 of 65,536 draws.
    assert np.abs(exact - np.floor(exact) - 0.5).min() > 1e-6
    for photons in (*CORRUPTIONS["shot_noise"].small, *CORRUPTIONS["shot_noise"].large):
        shares = pdtr(np.arange(photons), photons * np.arange(256)[:, None] / 255) * 2**16
        assert np.abs(shares - np.floor(shares) - 0.5).min() > 1e-8


@every_severity
@small_and_large
def test_gaussian_noise_has_the_published_deviation(severity, side):
    grey = np.full((40, 3, side, side), 128, np.uint8)
    sigma = 2.55 * strength("gaussian_noise", severity, side)
    clipped = np.clip(128 + sigma * normal_quantiles() / 2**24, 0, 255) - 128  # independent of the table in whole numbers
    error = squared_error(corrupted(grey, "gaussian_noise", severity), grey)
    # At least 122,880 values: a standard error of 0.4 %; rounding to whole levels adds 1/12.
    assert error == pytest.approx((clipped**2).mean() + 1 / 12, rel=0.02)


@pytest.mark.parametrize("photons", [3, 12, 60, 250, 500])
def test_shot_noise_counts_photons(photons):
    table = shot_table(photons).reshape(256, 65536)
    for level in (0, 1, 40, 128, 255):
        for count in range(photons):  # more photons than white has are white
            grey = np.floor(255 * count / photons + 0.5)
            most = np.searchsorted(np.floor(255 * np.arange(photons) / photons + 0.5), grey, side="right") - 1  # counts that share it
            # One rounding of a number of draws.
            assert abs((table[level] <= grey).mean() - poisson.cdf(most, photons * level / 255)) <= 0.5 / 65536 + 1e-9


@every_severity
def test_impulses_are_black_and_white_in_equal_shares(severity):
    grey = np.full((20, 3, 96, 96), 100, np.uint8)
    share = strength("impulse_noise", severity, 96) / 100
    made = corrupted(grey, "impulse_noise", severity)
    for value in (0, 255):
        # 552,960 values: a standard error of at most 0.0005.
        assert (made == value).mean() == pytest.approx(share / 2, abs=0.0025)
    assert set(np.unique(made)) == {0, 100, 255}


# Blur


@every_severity
@small_and_large
def test_defocus_is_filtering_by_a_soft_disc(severity, side):
    images = photographs(side)
    radius, sigma = strength("defocus_blur", severity, side)
    places = np.arange(-14, 15)
    sharp = (np.hypot(places, places[:, None]) <= radius).astype(float)
    soft = np.exp(-0.5 * (np.arange(-1, 2) / sigma) ** 2) if radius <= 8 else np.exp(-0.5 * (np.arange(-2, 3) / sigma) ** 2)
    kernel = ndimage.convolve(sharp, np.outer(soft, soft) / soft.sum() ** 2 / sharp.sum(), mode="constant")
    expected = ndimage.convolve(images.astype(float), kernel[None, None], mode="mirror")
    # Up to 400 weights are rounded to 2**-22, which the centre makes up for: 255 * 400 / 2**23 grey levels; the rest is the rounding.
    assert np.abs(corrupted(images, "defocus_blur", severity) - expected).max() < 0.513


def test_the_disc_keeps_brightness_and_is_symmetric():
    for radius, sigma in (*CORRUPTIONS["defocus_blur"].small, *CORRUPTIONS["defocus_blur"].large):
        kernel = disc(radius, sigma)
        assert kernel.sum() == 2**22
        assert np.array_equal(kernel, kernel.T)
        assert np.array_equal(kernel, kernel[::-1, ::-1])


@pytest.mark.parametrize(("height", "width", "reach"), [(12, 12, 1), (17, 11, 3), (9, 20, 4), (4, 5, 4)])
def test_glass_copies_pixels_one_after_the_other(height, width, reach):
    draws = draws_of(3, 2 * height * width).reshape(3, 2, -1)
    source = passed_on(draws, height, width, reach)
    for row in range(3):
        picture = np.arange(height * width).reshape(height, width)
        down, right = (draws[row].astype(int) * (2 * reach) // 65536 - reach).reshape(2, height, width)
        for y in range(height - reach, reach, -1):
            for x in range(width - reach, reach, -1):
                picture[y, x] = picture[y + down[y, x], x + right[y, x]]
        assert np.array_equal(source[row].reshape(height, width), picture)


def test_glass_without_a_neighbour_to_copy_is_smoothing_twice():
    # Four pixels a side and a reach of four: nothing lies inside the margin.
    images = photographs(96)[:, :, 40:44, 40:44]
    sigma, reach, passes = 1.5, 4, 2
    made = CORRUPTIONS["glass_blur"].apply(images, (sigma, reach, passes), lambda n: draws_of(2, n))
    expected = images.astype(float)
    for _ in range(2):
        expected = ndimage.gaussian_filter(expected, (0, 0, sigma, sigma), mode="nearest", truncate=4)
    assert np.abs(made - expected).max() <= 1.01  # rounded after each smoothing


def test_streaks_never_start_where_rounding_would_depend_on_the_machine():
    for low, high in ((-45, 45), (-135, -45)):
        turned = np.deg2rad(angles_between(np.arange(65536, dtype=np.uint16), low, high))[:, None]
        for part in (np.sin(turned), np.cos(turned)):
            places = np.arange(1, 41) * part - 0.5
            assert np.abs(places - np.rint(places)).min() > 1e-9  # libraries differ by some 1e-15


def test_motion_smears_along_a_line():
    images = photographs(96)
    angles = np.array([-30.1, 20.2])
    made = streaked(images, angles, 10, 3)
    weights = np.exp(-0.5 * (np.arange(21) / 3) ** 2)
    weights /= weights.sum()
    y, x = np.mgrid[:96, :96]
    for row, angle in enumerate(np.deg2rad(angles)):
        expected = np.zeros((3, 96, 96))
        for step, weight in enumerate(weights):
            down, right = (int(np.ceil(step * part - 0.5)) for part in (np.sin(angle), np.cos(angle)))
            expected += weight * images[row][:, np.clip(y + down, 0, 95), np.clip(x + right, 0, 95)]
        assert np.abs(made[row] - expected).max() < 0.51  # weights are rounded to 2**-16


def test_a_streak_leads_where_its_angle_points():
    down, right = streak_offsets(np.array([0.3, 89.7, -89.7]), 10)
    assert down[:, -1].tolist() == [0, 9, -9]
    assert right[:, -1].tolist() == [9, 0, 0]


@every_severity
@pytest.mark.parametrize(("height", "width"), [(32, 32), (48, 64), (96, 81)])
def test_zoom_is_the_mean_of_linear_magnifications(severity, height, width):
    images = photographs(96)[:, :, :height, :width]
    step, number = CORRUPTIONS["zoom_blur"].strength(severity, (height, width))
    layers = [images.astype(float)]
    for zoom in 1 + step / 100 * np.arange(number):
        parts = [int(np.ceil(side / zoom - 1e-9)) for side in (height, width)]
        top, left = (height - parts[0]) // 2, (width - parts[1]) // 2
        part = images[:, :, top : top + parts[0], left : left + parts[1]].astype(float)
        layer = ndimage.zoom(part, (1, 1, zoom, zoom), order=1)
        top, left = (layer.shape[2] - height) // 2, (layer.shape[3] - width) // 2
        layers.append(layer[:, :, top : top + height, left : left + width])
    # Places are cut to 1/256 of a pixel: up to one level of the steepest edge.
    assert np.abs(corrupted(images, "zoom_blur", severity) - np.mean(layers, axis=0)).max() < 1.5


def test_zooming_by_nothing_changes_nothing():
    values = photographs(32).astype(np.int32)
    assert np.array_equal(zoomed(values, 100), values << 16)


# Weather and light


@every_severity
@small_and_large
def test_snow_falls_on_a_veil_and_is_the_same_upside_down(severity, side):
    black = np.zeros((3, 3, side, side), np.uint8)
    made = corrupted(black, "snow", severity)
    veil = (1 - strength("snow", severity, side)[-1] / 100) * 127.5  # 1.5 luma + half of white, on black
    assert abs(made.min() - veil) <= 0.5 + 1e-9
    assert (made > veil + 20).any(axis=(1, 2, 3)).all()
    assert np.array_equal(made, made[..., ::-1, ::-1])


def test_snow_whitens_by_luma():
    image = photographs(32)
    kept = 0.8
    made = CORRUPTIONS["snow"].apply(image, (0, 0, 100, 100, 4, 1, 80), lambda n: draws_of(2, n))  # no noise, no flakes
    luma = np.einsum("nchw,c->nhw", image, [0.299, 0.587, 0.114])[:, None]
    expected = kept * image + (1 - kept) * np.maximum(image, 1.5 * luma + 127.5)
    assert np.abs(made - np.minimum(expected, 255)).max() <= 0.5 + 1e-9


@pytest.fixture
def frost_pictures(tmp_path, monkeypatch):
    """Five pictures of plain colours in place of the photographs."""
    for number, name in enumerate(weather.FROST_PICTURES):
        colour = np.broadcast_to(np.array([10 + 40 * number, 7, 90], np.uint8), (60, 80, 3))
        Image.fromarray(colour).save(tmp_path / name, quality=100)
    monkeypatch.setattr(weather, "frost_folder", lambda: tmp_path)
    weather.frost_pictures.cache_clear()
    yield tmp_path
    weather.frost_pictures.cache_clear()


@pytest.mark.parametrize("side", [8, 32, 96])
def test_frost_lays_a_picture_over_the_image(frost_pictures, side):
    grey = np.full((40, 3, side, side), 100, np.uint8)
    made = corrupted(grey, "frost", 3)
    image_share, frost_share, _ = strength("frost", 3, side)
    expected = [image_share + frost_share * np.array([10 + 40 * number, 7, 90]) / 100 for number in range(5)]
    seen = {min(range(5), key=lambda k: np.abs(image[:, 0, 0] - expected[k]).max()) for image in made}
    assert seen == set(range(5))
    for image in made:
        # JPEG moves plain colours by some levels, a share of which shows.
        assert min(np.abs(image - colour[:, None, None]).max() for colour in expected) <= 3


def test_frost_without_its_photographs_is_refused_before_anything_is_built(monkeypatch, tmp_path, make_images):
    monkeypatch.setattr(weather, "frost_folder", lambda: None)
    with pytest.raises(SettingError, match=r"setting 'kind' of probe 'corrupt': frost needs photographs .*'crossdistill\[corruptions\]"):
        build_probe_set("corrupt", make_images(), preset="full", folder=tmp_path)
    assert not list(tmp_path.iterdir())
    weather.frost_pictures.cache_clear()
    with pytest.raises(SettingError, match=r"^frost needs photographs that come with another package: pip install"):
        corrupted(photographs(32), "frost", 1)


def test_clouds_are_those_of_the_diamond_square_algorithm():
    side, decay = 8, 1.7
    draws = draws_of(2, side * side)
    uniform = (2 * draws.astype(float) + 1) / 65536 - 1
    for row, cloud in enumerate(plasma(draws, side, decay)):
        heights, step, roughness, used = np.zeros((side, side)), side, 1.0, 0
        while step >= 2:
            half = step // 2
            corners = [(y, x) for y in range(0, side, step) for x in range(0, side, step)]
            for kind, places in enumerate(([(half, half)], [(0, half)], [(half, 0)])):
                (dy, dx), *_ = places
                around = [(-half, -half), (-half, half), (half, -half), (half, half)] if kind == 0 else [
                    (-half, 0), (half, 0), (0, -half), (0, half)
                ]  # fmt: skip
                for y, x in corners:
                    mean = np.mean([heights[(y + dy + b) % side, (x + dx + a) % side] for b, a in around])
                    heights[y + dy, x + dx] = mean + roughness * uniform[row, used]
                    used += 1
            step, roughness = half, roughness / decay**2
        heights -= heights.min()
        assert np.allclose(cloud, heights / heights.max(), rtol=0, atol=1e-12)


@every_severity
@small_and_large
def test_fog_keeps_the_brightest_value_as_the_limit(severity, side):
    images = photographs(side) // 2
    made = corrupted(images, "fog", severity)
    for image, fogged in zip(images, made, strict=True):
        brightest, thickness = float(image.max()), strength("fog", severity, side)[0]
        assert fogged.max() <= brightest
        assert (fogged >= np.floor(image * (brightest / (brightest + 255 * thickness)))).all()
    assert not corrupted(np.zeros((1, 3, side, side), np.uint8), "fog", severity).any()


@every_severity
@small_and_large
def test_brightness_raises_the_value_of_hsv(severity, side):
    images = photographs(side)
    images[0, :, :4] = 0  # black has no hue
    hsv = color.rgb2hsv(images, channel_axis=1)
    hsv[:, 2] = np.clip(hsv[:, 2] + strength("brightness", severity, side) / 100, 0, 1)
    expected = 255 * color.hsv2rgb(hsv, channel_axis=1)
    assert np.abs(corrupted(images, "brightness", severity) - expected).max() < 0.5 + 1e-6


# Digital


@every_severity
@small_and_large
def test_contrast_shrinks_towards_the_mean_of_each_channel(severity, side):
    images = photographs(side)
    means = images.mean(axis=(2, 3), keepdims=True)
    expected = means + strength("contrast", severity, side) / 100 * (images - means)
    assert np.abs(corrupted(images, "contrast", severity) - expected).max() < 0.5 + 1e-6


def test_the_affine_map_moves_the_corners_by_the_jitter():
    jitter = (draws_of(4, 6).astype(float).reshape(4, 3, 2) / 65536 - 0.5) * 10
    y, x = np.mgrid[:48, :64].astype(float)
    reach = 16
    corners = np.array([32, 24]) + reach * np.array([[1, 1], [1, -1], [-1, -1]])
    for row in range(4):
        for corner, moved in zip(corners, corners + jitter[row], strict=True):
            found = affine_places(jitter[row : row + 1], x * 0 + moved[0], y * 0 + moved[1], 48, 64)
            assert [place[0, 0, 0] for place in found] == pytest.approx(corner, abs=1e-9)


def test_no_jitter_takes_every_pixel_from_its_place():
    y, x = np.mgrid[:33, :47].astype(float)
    found_x, found_y = affine_places(np.zeros((1, 3, 2)), x, y, 33, 47)
    assert np.allclose(found_x, x)
    assert np.allclose(found_y, y)


def test_displacements_are_smoothed_noise():
    noise = 2 * draws_of(1, 33 * 47).astype(np.int64).reshape(1, 33, 47) + 1 - 65536
    for sigma in (0.96, 6.4, 50.0):
        found = smoothed(noise, sigma, 3, mirror_edge) / 2.0**32
        expected = ndimage.gaussian_filter(noise.astype(float), (0, sigma, sigma), mode="reflect", truncate=3)
        # Up to 301 weights a side are rounded to 2**-16 of values up to 65,536, signs at random.
        assert np.abs(found - expected).max() < 100


def test_sums_of_the_smoothest_field_are_exact():
    # The largest sum, at all draws at the limit, must stay below 2**53, where float64 holds every whole number.
    assert smoothed(np.full((3, 3), 65535), 170, 3, mirror_edge).max() == 65535 * 2.0**32


def test_pixels_between_pixels_are_interpolated_and_mirrored_at_the_border():
    images = photographs(32)
    shifts = draws_of(2, 2 * 32 * 32).astype(float).reshape(2, 2, 32, 32) / 65536 * 12 - 6
    y, x = np.mgrid[:32, :32]
    made = interpolated(images, x + shifts[:, 0], y + shifts[:, 1])
    for row in range(2):
        for channel in range(3):
            places = np.rint((np.stack([y, x]) + shifts[row, ::-1]) * 1024) / 1024
            expected = ndimage.map_coordinates(images[row, channel].astype(float), places, order=1, mode="mirror")
            assert np.abs(made[row, channel] - expected).max() < 0.5 + 1e-6


@every_severity
@small_and_large
def test_elastic_deformation_is_of_the_published_size(severity, side):
    # A ramp of two levels a pixel shows how far its pixels moved.
    ramp = np.broadcast_to((np.arange(side) * 2).astype(np.uint8), (60, 3, side, side))
    moved = (corrupted(ramp, "elastic_transform", severity) - ramp)[:, 0, side // 3 : -side // 3, side // 3 : -side // 3] / 2
    alpha, sigma, jitter = (share * side for share in strength("elastic_transform", severity, side))
    field = np.var([ndimage.gaussian_filter(draws_of(side, side, seed) / 32768 - 1, sigma, truncate=3) for seed in range(60)]) * alpha**2
    # The map at the centre is about the mean of two opposite corners, uniform within the jitter; pixels aside move more.
    centre = jitter**2 / 3 / 2
    assert 0.5 * (field + centre) < (moved**2).mean() < 3 * (field + centre) + 0.2


@every_severity
@pytest.mark.parametrize(("height", "width"), [(32, 32), (48, 64), (96, 64)])
def test_pixelate_is_pillows_box_filter(severity, height, width):
    # At these sides no pixel's centre stands on the border of two large pixels: there Pillow goes by the last bit of a float.
    images = photographs(96)[:, :, :height, :width]
    percent = CORRUPTIONS["pixelate"].strength(severity, (height, width))
    made = corrupted(images, "pixelate", severity)
    for image, pixelated in zip(images, made, strict=True):
        picture = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
        small = picture.resize((width * percent // 100, height * percent // 100), Image.Resampling.BOX)
        expected = np.asarray(small.resize((width, height), Image.Resampling.BOX)).transpose(2, 0, 1).astype(float)
        assert np.abs(pixelated - expected).max() <= 1  # Pillow rounds after each direction


@every_severity
def test_jpeg_has_the_published_quality(severity):
    image = photographs(96, 1)
    file = io.BytesIO()
    quality = [25, 18, 15, 10, 7][severity - 1]
    Image.fromarray(np.ascontiguousarray(image[0].transpose(1, 2, 0))).save(file, "JPEG", quality=quality)
    assert np.array_equal(corrupted(image, "jpeg_compression", severity)[0], np.asarray(Image.open(file)).transpose(2, 0, 1))


# Against the package imagecorruptions-imaug, which knows the strengths of ImageNet-C only. All it covers is also covered above.


def by_the_package(images, kind, severity):
    package = pytest.importorskip("imagecorruptions")
    state = np.random.get_state()
    np.random.seed(0)
    try:
        made = [package.corrupt(np.ascontiguousarray(image.transpose(1, 2, 0)), severity, kind) for image in images]
    finally:
        np.random.set_state(state)
    return np.stack(made).transpose(0, 3, 1, 2).astype(float)


# Its discs of severities 4 and 5 make the image brighter by 1 %, see `disc`.
@pytest.mark.parametrize("severity", [1, 2, 3])
@pytest.mark.parametrize("kind", ["defocus_blur", "brightness", "contrast", "pixelate", "jpeg_compression"])
def test_kinds_without_chance_are_those_of_the_package(kind, severity):
    images = photographs(224, 1)
    difference = corrupted(images, kind, severity) - by_the_package(images, kind, severity)
    # The package cuts fractions off, or rounds them twice: one level at most, rarely two.
    assert np.abs(difference).max() <= 2
    assert (np.abs(difference) > 1).mean() < 0.01


@pytest.mark.parametrize("severity", [1, 3, 5])
@pytest.mark.parametrize(
    ("kind", "tolerance"),
    [
        # Noise of 150,528 values: the spread of a mean square is below 1 %; cut-off fractions move it by less.
        ("gaussian_noise", 0.03),
        ("shot_noise", 0.03),
        ("impulse_noise", 0.05),
        # The blurs copy or smear by chance; the package magnifies for zoom_blur from another corner.
        ("glass_blur", 0.15),
        ("motion_blur", 0.6),
        ("zoom_blur", 0.25),
        # One cloud, one blizzard and one photograph an image differ much from the next.
        ("snow", 0.4),
        ("frost", 0.6),
        ("fog", 0.6),
    ],
)
def test_kinds_with_chance_do_as_much_damage_as_those_of_the_package(kind, tolerance, severity):
    images = photographs(224, 4)
    theirs = squared_error(by_the_package(images, kind, severity), images)
    assert squared_error(corrupted(images, kind, severity), images) == pytest.approx(theirs, rel=tolerance)


# Settings


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (8, 8), (65, 3)])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "frost"])
def test_tiny_images_are_treated_too(kind, size):
    image = photographs(96, 1)[:, :, : size[0], : size[1]]
    for severity in (1, 5):
        assert corrupted(image, kind, severity).shape == image.shape


def test_levels_draw_apart_from_one_another():
    grey = np.full((1, 3, 32, 32), 128, np.uint8)
    mild, strong = (corrupted(grey, "gaussian_noise", severity) - 128 for severity in (1, 5))
    # Correlated noise would be mild times 2.5; 3,072 values leave a correlation of 0.018 by chance.
    assert abs(np.corrcoef(mild.ravel(), strong.ravel())[0, 1]) < 0.09


def test_weights_add_up_whatever_rounding_leaves():
    assert whole_weights(np.full(7, 1.0), 4).sum() == 16


@pytest.mark.parametrize(
    ("level", "error", "message"),
    [
        ({"kind": "defocus"}, UnknownNameError, "no corruption is called 'defocus'. Did you mean 'defocus_blur'"),
        ({"severity": 6}, SettingError, r"severity must be 0 \(none\) to 5, got 6"),
        ({"severity": 2.5}, SettingError, r"severity must be 0 \(none\) to 5, got 2.5"),
    ],
)
def test_other_kinds_and_severities_are_refused(level, error, message):
    with pytest.raises(error, match=message):
        corrupt(photographs(32, 1), np.zeros(1, np.int64), np.arange(1), 1, **level)
    with pytest.raises(SettingError, match=f"setting '{next(iter(level))}' of probe 'corrupt'"):
        registry.get("probe", "corrupt").parse(level)


def test_bytes_at_the_strengths_of_large_images_are_those_written_down(make_images):
    # Small images are covered by the committed hashes of all probes.
    images = make_images(2, 72, 80)
    found = hashlib.sha256()
    for kind in [kind for kind in KINDS if kind not in ("frost", "jpeg_compression")]:
        for severity in SEVERITIES:
            found.update(corrupted(images.images, kind, severity).astype(np.uint8).tobytes())
    assert found.hexdigest() == "57d941a29737d78aa29143bd27b2ce38b1772baa34fdd3bb535296c1f880877d"
