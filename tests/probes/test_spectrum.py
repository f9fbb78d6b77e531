import numpy as np
import pytest
from scipy import fft

from crossdistill.probes import _spectrum
from crossdistill.probes._spectrum import filtered, frequencies, image_bytes, quantised, spectrum, usable_radii
from crossdistill.probes.amplitude_swap import swapped

SIZES = [(32, 32), (48, 64), (64, 48), (33, 47), (32, 33), (33, 32), (1, 5)]


def noise(n, height, width):
    words = np.random.Philox(key=3).random_raw(n * 3 * height * width)
    return (words >> np.uint64(56)).astype(np.uint8).reshape(n, 3, height, width)


@pytest.mark.parametrize("size", SIZES)
def test_images_return_from_their_spectrum_unchanged(size):
    images = noise(3, *size)
    assert np.array_equal(image_bytes(spectrum(images), size), images)


@pytest.mark.parametrize("size", SIZES)
def test_frequencies_are_those_of_gratings(size):
    height, width = size
    radius = frequencies(height, width)
    for down, right in [(0, 0), (0, width // 2), (height // 2, 0), (-(height // 2), width // 3)]:
        # A plane wave with `down` and `right` cycles over the image has its energy in one coefficient (and its mirror image).
        waves = np.arange(height)[:, None] * down / height + np.arange(width) * right / width
        energy = abs(np.fft.rfft2(np.cos(2 * np.pi * waves)))
        per_pixel = np.hypot(down / height, right / width)
        assert radius.ravel()[energy.argmax()] == pytest.approx(per_pixel * min(size))


def test_a_radius_on_a_whole_frequency_is_exact():
    radius = frequencies(32, 32)
    assert radius[3, 4] == radius[-3, 4] == radius[0, 5] == radius[5, 0] == 5
    assert radius[-16, 0] == radius[0, 16] == 16


def test_last_bits_of_a_transform_change_no_byte():
    # Checkerboards of 0 and 1 have a mean of exactly a half, where the smallest error would flip a byte.
    boards = np.indices((32, 32)).sum(axis=0) % 2
    images = np.concatenate([np.broadcast_to(boards, (4, 3, 32, 32)), noise(60, 32, 32)]).astype(np.uint8)
    coefficients = spectrum(images) * (frequencies(32, 32) <= 6)
    expected = image_bytes(coefficients, (32, 32))
    assert (expected[:4] == 1).all(), "a half is rounded up"
    for relative in (1e-14, -1e-14):  # a hundred times the error of a transform
        assert np.array_equal(image_bytes(coefficients * (1 + relative), (32, 32)), expected)


@pytest.mark.parametrize("size", [(32, 32), (33, 47)])
def test_a_transform_with_other_last_bits_gives_the_same_bytes(size, monkeypatch):
    coarse = noise(40, 4, 4)[:, :, np.arange(size[0])[:, None] // 9, np.arange(size[1]) // 12]  # blocks, with many zeros in their spectra
    images, kept = np.concatenate([noise(40, *size), coarse]), frequencies(*size) <= 6
    expected = filtered(images, kept), swapped(images, images[::-1], 1.0)

    usual = spectrum(images)
    monkeypatch.setattr(fft, "rfft2", np.fft.rfft2)
    monkeypatch.setattr(fft, "irfft2", np.fft.irfft2)
    if np.finfo(np.longdouble).nmant > 52:
        there = fft.rfftn  # what the shorthand of two axes stands for
        monkeypatch.setattr(fft, "rfft2", lambda x: there(x.astype(np.longdouble), axes=(-2, -1)).astype(np.complex128))
    assert (spectrum(images) != usual).any(), "the other transform does differ"
    assert np.array_equal(filtered(images, kept), expected[0])
    assert np.array_equal(swapped(images, images[::-1], 1.0), expected[1])


def test_zero_coefficients_are_exactly_zero():
    plain = np.full((1, 3, 33, 47), 77, np.uint8)
    found = quantised(spectrum(plain))
    assert np.count_nonzero(found) == 3
    assert (found[..., 0, 0] == 77 * 33 * 47).all()


def test_bytes_do_not_depend_on_the_chunk(monkeypatch):
    images, kept = noise(50, 32, 32), frequencies(32, 32) <= 6
    whole = filtered(images, kept)
    monkeypatch.setattr(_spectrum, "CHUNK_VALUES", 7 * images[0].size)
    assert np.array_equal(filtered(images, kept), whole)
    monkeypatch.setattr(_spectrum, "CHUNK_VALUES", 1)
    assert np.array_equal(filtered(images, kept), whole)


def test_radii_stay_below_the_highest_frequency():
    assert usable_radii((24, 48)) == [2, 4, 6, 8]
    assert usable_radii((48, 64)) == [2, 4, 6, 8, 12]
    assert usable_radii((64, 64)) == [2, 4, 6, 8, 12, 24]
