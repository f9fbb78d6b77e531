import numpy as np
import pytest
from scipy import ndimage
from skimage import data, feature, transform

from crossdistill.core.errors import SettingError
from crossdistill.probes.edges import edge_maps, edges, full_levels, quick_levels, slopes, smoothing_kernel


def drawn(images, **level):
    return edges(images, np.zeros(len(images), np.int64), **level)


def grey(plane):
    return np.broadcast_to(plane, (1, 3, *plane.shape)).astype(np.uint8)


def photograph(side=128):
    picture = transform.resize(data.camera(), (side, side), anti_aliasing=True)
    return np.rint(picture * 255).astype(np.uint8)


def disc(side=64, radius=20.0):
    rows, columns = np.indices((side, side)) - side / 2
    return np.where(np.hypot(rows, columns) < radius, 200, 60)


def has_square(lines):
    """Whether four pixels of lines touch in a square: then a line is not thin."""
    return bool((lines[1:, 1:] & lines[:-1, 1:] & lines[1:, :-1] & lines[:-1, :-1]).any())


def test_a_disc_becomes_a_thin_circle():
    lines = edge_maps(grey(disc()), 1.0)[0]
    rows, columns = np.nonzero(lines)
    distance = np.hypot(rows - 32, columns - 32)
    assert abs(distance - 20).max() <= 1.5
    angles = np.sort(np.arctan2(rows - 32, columns - 32))
    assert np.diff(angles).max() < 3 / 20, "no gap is wider than two pixels"
    assert not has_square(lines), "the line is one pixel wide"


@pytest.mark.parametrize("sigma", [1.0, 2.0])
def test_lines_are_where_scikit_image_finds_them(sigma):
    picture = photograph()
    blurred = ndimage.gaussian_filter(picture.astype(float), sigma, mode="nearest")
    strength = np.hypot(*(ndimage.sobel(blurred, axis=axis, mode="nearest") for axis in (0, 1)))
    high = np.quantile(strength, 0.7)
    theirs = feature.canny(picture.astype(float), sigma, max(0.4 * high, 16), high, mode="nearest")  # 2 grey levels per pixel, times 8
    ours = edge_maps(grey(picture), sigma)[0]
    inner = (slice(2, -2), slice(2, -2))  # theirs has no lines at the border
    near = [ndimage.binary_dilation(lines, np.ones((3, 3)))[inner] for lines in (theirs, ours)]
    # They interpolate where we take the nearest of four directions, so a line may run one pixel aside.
    assert near[0][ours[inner]].mean() > 0.95
    assert near[1][theirs[inner]].mean() > 0.95
    assert ours[inner].sum() == pytest.approx(theirs[inner].sum(), rel=0.1)


def test_slopes_are_sobels_of_the_smoothed_image():
    picture = photograph(33)
    kernel = smoothing_kernel(1.0)
    blurred = picture.astype(float)
    for axis in (0, 1):
        blurred = ndimage.correlate1d(blurred, kernel.astype(float), axis=axis, mode="nearest")
    down, right = slopes(grey(picture), 1.0)
    # Sums of integers far below 2**53: exact in both.
    assert np.array_equal(down[0], ndimage.sobel(blurred, axis=0, mode="nearest"))
    assert np.array_equal(right[0], ndimage.sobel(blurred, axis=1, mode="nearest"))


@pytest.mark.parametrize("sigma", [0, 0.5, 1.0, 2.6, 16])
def test_the_kernel_is_a_gaussian_in_integers(sigma):
    kernel = smoothing_kernel(sigma)
    assert len(kernel) % 2 == 1
    assert np.array_equal(kernel, kernel[::-1])
    spread = np.sqrt((kernel * (np.arange(len(kernel)) - len(kernel) // 2) ** 2).sum() / kernel.sum())
    assert spread == pytest.approx(sigma, rel=0.1)  # cut off at 3 sigma and rounded
    assert kernel.sum() == pytest.approx(256, rel=0.03)


def test_a_contour_between_colours_of_one_lightness_is_found():
    image = np.zeros((1, 3, 32, 32), np.uint8)
    image[0, 0, :, :16], image[0, 1, :, 16:] = 196, 100  # 0.299 * 196 = 0.587 * 100: both are 58.6 in grey
    lines = edge_maps(image, 1.0)[0]
    assert lines.sum(axis=1).tolist() == [1] * 32
    assert set(np.nonzero(lines)[1].tolist()) <= {15, 16}


def test_brightness_changes_no_line_and_more_contrast_removes_none():
    picture = photograph(64) // 3
    lines = edge_maps(grey(picture), 1.0)
    assert lines.sum() > 100
    assert np.array_equal(edge_maps(grey(picture + 90), 1.0), lines)
    more = edge_maps(grey(picture * 3), 1.0)
    assert more[lines].all()
    assert (more & ~lines).mean() < 0.03, "new are only those that were flatter than the smallest slope"


def test_every_direction_gives_a_thin_line():
    rows, columns = np.indices((48, 48)) - 23.5
    for angle in np.arange(0, 180, 15):
        across = rows * np.sin(np.radians(angle)) + columns * np.cos(np.radians(angle))
        lines = edge_maps(grey(128 + 60 * np.tanh(across)), 1.0)[0]
        assert abs(across[lines]).max() < 1.5
        assert lines.any(axis=0).sum() >= 44 or lines.any(axis=1).sum() >= 44, "it crosses the image"
        assert not has_square(lines)


def test_a_plain_image_and_a_gentle_slope_are_blank():
    gentle = np.broadcast_to(np.arange(32), (32, 32))  # 1 grey level per pixel
    for plane in (np.full((32, 32), 9), gentle):
        made = drawn(grey(plane))
        assert (made.images == 255).all()
        assert made.factors["edge_pixels"].tolist() == [0]


def test_only_two_values_are_left_and_the_polarities_are_inverse():
    images = np.concatenate([grey(photograph(32)), grey(disc(32, 9))])
    black, white = drawn(images, polarity="black"), drawn(images, polarity="white")
    assert np.array_equal(black.images, 255 - white.images)
    assert np.unique(black.images).tolist() == [0, 255]
    assert np.array_equal((white.images == 255).sum(axis=(1, 2, 3)), 3 * white.factors["edge_pixels"])


def test_levels_smooth_more_in_larger_images():
    assert quick_levels((32, 32)) == [{"sigma": 1.0, "polarity": "black"}, {"sigma": 1.0, "polarity": "white"}]
    assert len(full_levels((32, 32))) == 6
    assert quick_levels((224, 224))[0]["sigma"] == 2.6


def test_wrong_settings_are_refused():
    images = np.zeros((1, 3, 32, 32), np.uint8)
    with pytest.raises(SettingError, match="sigma must be 0 to 16 pixels, got 17"):
        drawn(images, sigma=17)
    with pytest.raises(SettingError, match="'black' or 'white', got 'grey'"):
        drawn(images, polarity="grey")
