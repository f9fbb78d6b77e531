import numpy as np
import pytest

from crossdistill.core.errors import ImageError, SettingError
from crossdistill.images._splits import load_splits
from crossdistill.images.trifeature import retextured
from crossdistill.metrics.cue_choice import cue_choice
from crossdistill.metrics.shape_bias import shape_bias
from crossdistill.probes._build import build_probe_set
from crossdistill.probes.texture_swap import mixed, other_textures, texture_swap

SMALL = {"n_train": 60, "n_test": 80, "n_conflict": 20}


def small_set(**settings):
    return load_splits("trifeature", {**SMALL, **settings}).test


def swapped(images, index=None, seed=3, **level):
    index = np.arange(len(images)) if index is None else index
    return texture_swap(images.images, images.labels, index, seed, images, **level)


def test_with_their_own_textures_images_are_the_clean_bytes():
    splits = load_splits("trifeature", SMALL)
    for images in (splits.test, splits.validation, splits.extra["conflict"].subset(np.array([7, 3]))):
        assert np.array_equal(retextured(images, images.factors["texture"]), images.images)


def test_another_texture_is_what_the_source_would_have_drawn():
    # Images of texture k in place of their own equal those of a source that drew texture k from the start: the scenes are the same.
    images = small_set(label="shape", correlated="texture", correlation=1.0)
    other = small_set(label="shape", correlated=None)
    same_else = (images.factors["shape"] == other.factors["shape"]) & (images.factors["colour"] == other.factors["colour"])
    assert same_else.sum() > 5
    drawn = retextured(images, other.factors["texture"])
    assert np.array_equal(drawn[same_else], other.images[same_else])


def test_the_new_texture_names_neither_the_old_one_nor_the_class():
    images = small_set()
    made = swapped(images)
    new = made.factors["texture"]
    assert (new != images.factors["texture"]).all()
    assert (new != images.labels).all()
    assert np.array_equal(made.factors["shape"], images.factors["shape"])
    assert len(np.unique(new)) == 10


def test_every_other_texture_is_drawn_equally_often():
    words = np.random.Philox(key=1).random_raw(8000)
    new = other_textures(np.full(8000, 4), np.full(8000, 7), words, 10)
    counts = np.bincount(new, minlength=10)
    assert counts[[4, 7]].tolist() == [0, 0]
    # Eight values, 1,000 each; five standard deviations of a binomial count are 148.
    assert np.abs(counts[[0, 1, 2, 3, 5, 6, 8, 9]] - 1000).max() < 148


def test_of_two_textures_the_other_one_is_taken_whatever_the_class():
    assert other_textures(np.array([0, 1, 0]), np.array([0, 0, 1]), np.zeros(3, np.uint64), 2).tolist() == [1, 0, 1]


def test_only_pixels_of_the_object_change():
    images = small_set()
    made = swapped(images)
    changed = (made.images != images.images).any(axis=1)
    from crossdistill.images.trifeature import object_coverage

    assert not changed[object_coverage(images) == 0].any()
    assert changed.any(axis=(1, 2)).mean() > 0.95  # two textures may coincide on a small object, rarely


def test_a_share_lies_between_the_clean_image_and_the_swapped_one():
    images = small_set()
    clean, whole = images.images.astype(int), swapped(images).images.astype(int)
    half = swapped(images, share=0.5).images
    assert np.array_equal(half, (clean + whole + 1) // 2)
    assert np.array_equal(swapped(images, share=0.0).images, images.images)
    assert np.array_equal(mixed(images.images, half, 0.0), images.images)


def test_every_level_shows_the_same_new_texture_and_another_draw_others():
    images = small_set()
    first = swapped(images, share=0.25).factors["swapped_in"]
    assert np.array_equal(first, swapped(images, share=1.0).factors["swapped_in"])
    assert np.array_equal(first, swapped(images, share=0.0).factors["swapped_in"])
    assert (first != swapped(images, seed=4).factors["swapped_in"]).mean() > 0.5


def test_the_metrics_read_the_swapped_texture(tmp_path):
    built = build_probe_set("texture_swap", small_set(), folder=tmp_path)
    shown = built.images(1, 0)
    shape, texture = shown.factors["shape"], shown.factors["texture"]
    assert shape_bias(shape, shape, texture).value == 1
    assert shape_bias(texture, shape, texture).value == 0
    assert {"shape", "texture", "colour"} <= shown.factors.keys()  # what `cue_choice` asks for


def test_half_swapped_images_are_no_conflict(tmp_path):
    built = build_probe_set("texture_swap", small_set(), levels=[{"share": 0.0}, {"share": 0.5}, {"share": 1.0}], folder=tmp_path)
    for level in (0, 1):
        shown = built.images(level, 0)
        shape, texture = shown.factors["shape"], shown.factors["texture"]
        assert shape_bias(shown.factors["swapped_in"], shape, texture).reason, "both textures show"
        assert cue_choice(shape, shape, texture, shown.factors["colour"])["shape"].reason
    whole = built.images(2, 0).factors
    assert np.array_equal(whole["texture"], whole["swapped_in"])


def test_images_of_other_sources_are_refused(make_images):
    with pytest.raises(ImageError, match="these come from ramps: choose another image source, or the probe stylized"):
        swapped(make_images(4))


def test_images_whose_class_is_the_texture_are_refused():
    with pytest.raises(ImageError, match="the class of these images is their texture"):
        swapped(small_set(label="texture", correlated="shape"))


def test_a_share_beyond_the_whole_is_refused():
    with pytest.raises(SettingError, match=r"share is the part of the other texture, 0 to 1, got 1\.5"):
        swapped(small_set(), share=1.5)
