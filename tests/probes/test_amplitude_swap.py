import numpy as np
import pytest

from crossdistill.core.errors import ImageError, SettingError
from crossdistill.core.types import ImageSet
from crossdistill.metrics.shape_bias import shape_bias
from crossdistill.probes import _treatment
from crossdistill.probes._build import build_probe_set
from crossdistill.probes.amplitude_swap import amplitude_swap, drawn_partners, swapped


def noise(n, height=32, width=32, contrast=64):
    words = np.random.Philox(key=8).random_raw(n * 3 * height * width)
    grey = (words >> np.uint64(56)).astype(int).reshape(n, 3, height, width)
    return (128 + (grey - 128) * contrast // 256).astype(np.uint8)


def pool_of(labels, images=None):
    labels = np.array(labels)
    names = tuple("abcdefghij"[: max(labels.max() + 1, 1)])
    return ImageSet(noise(len(labels)) if images is None else images, labels, np.arange(len(labels)).astype(str), names)


def swap(pool, rows, seed=1, **level):
    return amplitude_swap(pool.images[rows], pool.labels[rows], rows, seed, pool, **level)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (48, 64), (33, 47)])
@pytest.mark.parametrize("share", [0.3, 1.0])
def test_equals_phase_and_amplitude_put_together_through_the_full_spectrum(height, width, share):
    images = noise(4, height, width)
    own, others = np.fft.fft2(images), np.fft.fft2(images[::-1])
    amplitude = (1 - share) * abs(own) + share * abs(others)
    expected = np.fft.ifft2(amplitude * np.exp(1j * np.angle(own))).real
    found = swapped(images, images[::-1], share)
    assert 0 < expected.min() < expected.max() < 255, "nothing is clipped here"
    # One rounding; before it, coefficients are rounded to 2**-20 and phases so to about that.
    assert abs(found - expected).max() <= 0.5 + 1e-5


def test_an_image_swapped_with_itself_stays():
    images = noise(3, contrast=256)
    assert np.array_equal(swapped(images, images, 1.0), images)


def test_the_mean_colour_is_the_partners():
    images = noise(2)
    images[1] //= 2
    found = swapped(images, images[::-1], 1.0)
    # Rounding errors of up to a half average out over 1,024 pixels.
    assert abs(found.mean(axis=(2, 3)) - images[::-1].mean(axis=(2, 3))).max() < 0.1


def test_coefficients_without_a_phase_get_phase_0():
    # A plain image has no phase but its mean's; phase 0 everywhere is an image that mirrors itself through the origin.
    plain = np.full((1, 3, 32, 32), 90, np.uint8)
    found = swapped(plain, noise(1), 1.0)
    assert np.ptp(found) > 20
    assert np.array_equal(found, np.roll(found[:, :, ::-1, ::-1], 1, axis=(2, 3)))


def test_what_reads_amplitude_finds_the_partners_class_and_what_reads_phase_the_images():
    # Class k: a strong grating of 3 + 4 k cycles, anywhere, in weak noise. Which frequency is strongest tells the amplitude's class.
    labels = np.arange(30) % 3
    offset = (np.random.Philox(key=2).random_raw(30) % np.uint64(7))[:, None]
    waves = np.sin(2 * np.pi * (3 + 4 * labels[:, None]) * np.arange(32) / 32 + offset)
    images = noise(30) // 4 + 90 + np.rint(50 * waves).astype(int)[:, None, None, :]
    pool = pool_of(labels, images.astype(np.uint8))
    made = swap(pool, np.arange(30), share=1.0)
    energy = abs(np.fft.rfft(made.images.astype(float).sum(axis=2))).sum(axis=1)  # of the channels, whose phases differ
    strongest = energy[:, 1:].argmax(axis=1) + 1
    assert np.array_equal((strongest - 3) / 4, made.factors["texture"])
    assert shape_bias(labels, made.factors["shape"], made.factors["texture"]).value == 1
    assert shape_bias(made.factors["texture"], made.factors["shape"], made.factors["texture"]).value == 0
    phase = np.angle(np.fft.rfft2(pool.images)) - np.angle(np.fft.rfft2(made.images))
    # Rounding to bytes and clipping blur the phase of weak coefficients.
    assert np.cos(phase).mean() > 0.9


def test_partners_are_of_another_class_and_equally_likely():
    labels = np.array([0, 0, 0, 1, 1, 2])
    counts = np.zeros((6, 6))
    for seed in range(3000):
        counts[np.arange(6), drawn_partners(np.arange(6), labels, seed)] += 1
    possible = labels[:, None] != labels
    assert (counts[~possible] == 0).all()
    expected = 3000 / possible.sum(axis=1, keepdims=True) * possible
    # Counts are binomial with a sd below 28; six of these are left by chance once in 10**8.
    assert abs(counts - expected).max() < 168


def test_unlabelled_images_take_any_other_and_are_nobodys_partner_else():
    labels = np.array([-1, 0, -1, 1, 0])
    drawn = np.array([drawn_partners(np.arange(5), labels, seed) for seed in range(300)])
    seen = [set(column.tolist()) for column in drawn.T]
    # Of 300 draws from at most four rows every row turns up, but for once in 10**36.
    assert seen == [{1, 2, 3, 4}, {3}, {0, 1, 3, 4}, {1, 4}, {3}]


def test_partners_hang_on_index_and_seed_alone():
    pool = pool_of(np.arange(40) % 4)
    whole = swap(pool, np.arange(40), share=0.5)
    some = np.array([31, 2, 17])
    part = swap(pool, some, share=1.0)
    assert np.array_equal(part.factors["partner"], whole.factors["partner"][some]), "all shares have the same partners"
    assert np.array_equal(swap(pool, some, share=0.5).images, whole.images[some])
    other = swap(pool, np.arange(40), seed=2).factors["partner"]
    assert (other != whole.factors["partner"]).mean() > 0.7


def test_partners_come_from_the_whole_set_whatever_the_block(tmp_path, monkeypatch):
    pool = pool_of(np.arange(24) % 3)
    whole = build_probe_set("amplitude_swap", pool, folder=tmp_path / "whole")
    monkeypatch.setattr(_treatment, "BLOCK_BYTES", 5 * pool.images[0].size)
    blocks = build_probe_set("amplitude_swap", pool, folder=tmp_path / "blocks")
    assert whole.manifest["sha256"] == blocks.manifest["sha256"]
    partner = whole.factor("partner", 1, 0)
    assert partner.max() > 4
    assert np.array_equal(whole.images(1, 0).factors["texture"], pool.labels[partner])


def test_without_a_pool_partners_are_among_the_images_given():
    pool = pool_of(np.arange(12) % 3)
    alone = amplitude_swap(pool.images, pool.labels, np.arange(12), 1)
    assert np.array_equal(alone.images, swap(pool, np.arange(12)).images)


def test_without_a_pool_draws_hang_on_the_index_too():
    pool, copies = pool_of(np.arange(40) % 2), np.arange(40)
    first, again, other = (amplitude_swap(pool.images, pool.labels, copies + start, 1).factors["partner"] for start in (0, 0, 1000))
    assert np.array_equal(first, again)
    # Of 20 partners the same one is drawn again with a chance of 1/20: for more than half of 40 images less often than once in 10**15.
    assert (first != other).mean() > 0.5


def test_half_swapped_and_unlabelled_images_are_no_conflict():
    pool = pool_of([0, 1, -1, 1, 0, -1])
    whole, half = swap(pool, np.arange(6)).factors, swap(pool, np.arange(6), share=0.5).factors
    assert np.array_equal(half["texture"], half["shape"]), "both amplitudes show"
    assert np.array_equal(whole["shape"], pool.labels)
    assert np.array_equal(whole["texture"] != whole["shape"], pool.labels >= 0)


def test_what_the_source_knows_of_its_objects_holds_of_both_cues():
    labels = np.arange(12) % 3
    factors = {"shape": np.arange(12) % 4, "texture": np.arange(12) + 100, "colour": np.arange(12)}
    pool = ImageSet(noise(12), labels, np.arange(12).astype(str), tuple("abc"), factors=factors)
    made = swap(pool, np.array([7, 2])).factors
    assert made["shape"].tolist() == [3, 2]
    assert np.array_equal(made["texture"], made["partner"] + 100)


@pytest.mark.parametrize("n_classes", [2, 1000])
def test_classes_of_one_image_each_will_do(n_classes):
    partner = drawn_partners(np.arange(n_classes), np.arange(n_classes), 5)
    assert (partner != np.arange(n_classes)).all()


@pytest.mark.parametrize("labels", [[0, 0, 0], [-1], [0, -1, -1]])
def test_images_without_a_partner_are_refused(labels):
    with pytest.raises(ImageError, match="amplitude_swap needs images of two classes or more.*leave this probe out"):
        swap(pool_of(labels), np.arange(len(labels)))


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_shares_out_of_range_are_refused(share):
    with pytest.raises(SettingError, match=f"share must be 0 to 1, got {share}"):
        swap(pool_of([0, 1]), np.arange(2), share=share)
