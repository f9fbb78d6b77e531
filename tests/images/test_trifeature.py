import numpy as np
import pytest

from crossdistill.core.errors import SettingError
from crossdistill.images._render import COLOURS, render, scenes
from crossdistill.images._shapes import SHAPES
from crossdistill.images._splits import load_splits
from crossdistill.images._textures import TEXTURES
from crossdistill.images.trifeature import object_coverage, object_masks

SMALL = {"n_train": 600, "n_test": 200, "n_conflict": 200}


def drawn(shape, texture, colour, n_images=40, side=32):
    """Images of one shape, texture and colour, by name."""
    values = [list(table).index(name) for table, name in ((SHAPES, shape), (TEXTURES, texture), (COLOURS, colour))]
    return render(scenes(0, "test", np.arange(n_images)), *(np.full(n_images, value) for value in values), side=side)


def test_label_is_the_factor_asked_for_and_classes_are_balanced():
    for label in ("shape", "texture", "colour"):
        test = load_splits("trifeature", {**SMALL, "label": label, "correlated": None}).test
        assert np.array_equal(test.labels, test.factors[label])
        assert np.bincount(test.labels).tolist() == [20] * 10


def test_the_correlated_feature_follows_the_label_as_often_as_asked():
    test = load_splits("trifeature", {**SMALL, "n_test": 3000, "correlation": 0.7, "side": 16}).test
    agree = (test.factors["texture"] == test.labels).mean()
    # Four standard errors of a share of 0.7 over 3,000 draws.
    assert agree == pytest.approx(0.7, abs=4 * np.sqrt(0.21 / 3000))
    others = (test.factors["texture"] - test.labels)[test.factors["texture"] != test.labels] % 10
    assert np.bincount(others)[1:].min() > 0.6 * len(others) / 9
    assert (test.factors["colour"] == test.labels).mean() == pytest.approx(0.1, abs=4 * np.sqrt(0.09 / 3000))


@pytest.mark.parametrize(("label", "correlated"), [("shape", "texture"), ("texture", "shape")])
def test_the_conflict_set_never_agrees(label, correlated):
    conflict = load_splits("trifeature", {**SMALL, "label": label, "correlated": correlated}).extra["conflict"]
    assert (conflict.factors[correlated] != conflict.labels).all()
    assert (conflict.factors["colour"] == conflict.labels).any()


def test_without_a_correlated_feature_there_is_no_conflict():
    assert not load_splits("trifeature", {**SMALL, "correlated": None}).extra


def test_image_i_is_the_same_however_many_are_drawn():
    few, many = (load_splits("trifeature", {**SMALL, "n_test": n}).test for n in (20, 300))
    assert np.array_equal(few.images, many.images[:20])
    assert all(np.array_equal(few.factors[name], many.factors[name][:20]) for name in few.factors)


def test_train_test_and_another_seed_show_different_images():
    splits = load_splits("trifeature", SMALL)
    other = load_splits("trifeature", {**SMALL, "seed": 1})
    assert not np.array_equal(splits.test.images[:20], splits.extra["conflict"].images[:20])
    assert not np.array_equal(splits.test.images[:20], other.test.images[:20])


def test_fewer_values_use_the_first_names():
    splits = load_splits("trifeature", {**SMALL, "n_values": 3})
    assert splits.test.class_names == ("circle", "triangle", "cross")
    assert max(values.max() for values in splits.test.factors.values()) == 2


def test_masks_are_where_the_object_was_drawn():
    # A plain object: inside the mask the colour, outside the lighter ground; only edge pixels are between.
    test = load_splits("trifeature", {**SMALL, "label": "texture", "correlated": None}).test
    plain = test.subset(np.flatnonzero(test.factors["texture"] == list(TEXTURES).index("plain"))[::-1])
    masks = object_masks(plain)
    grey = plain.images.mean(axis=1)
    for image, mask, colour in zip(grey, masks, plain.factors["colour"], strict=True):
        assert np.median(image[mask]) == pytest.approx(np.mean(list(COLOURS.values())[colour]), abs=1)  # rounding to uint8
        assert np.median(image[~mask]) >= 204


def test_coverage_is_the_share_that_the_object_was_painted_with():
    # Of a plain object each pixel is ground (1 - covered) + paint covered, so the pixel tells the share.
    test = load_splits("trifeature", {**SMALL, "label": "texture", "correlated": None}).test
    plain = test.subset(np.flatnonzero(test.factors["texture"] == list(TEXTURES).index("plain"))[::-1])
    covered = object_coverage(plain)
    for image, mask, colour in zip(plain.images[:, 1].astype(float), covered, plain.factors["colour"], strict=True):
        ground, paint = image[0, 0], list(COLOURS.values())[colour][1]
        # Half a grey level of the image, of at least 15 between ground and paint.
        assert np.abs((ground - image) / (ground - paint) - mask / 255).max() < 1.5 / abs(ground - paint)
    assert len(np.unique(covered)) == 17  # sixteenths
    assert np.array_equal(covered >= 128, object_masks(plain))


def test_masks_of_other_images_are_refused(photos):
    images = load_splits("folder", {"path": photos({"cat": 9, "dog": 9})}).train
    with pytest.raises(ValueError, match="these come from folder"):
        object_masks(images)


def test_a_circle_covers_the_area_it_should():
    test = load_splits("trifeature", {**SMALL, "correlated": None, "n_test": 400}).test
    area = object_masks(test.subset(np.flatnonzero(test.labels == 0))).mean(axis=(1, 2))
    # radius 0.88 of 0.29 to 0.40 sides; 6 % for pixels cut by the edge.
    assert area.min() > 0.94 * np.pi * (0.88 * 0.29) ** 2
    assert area.max() < 1.06 * np.pi * (0.88 * 0.40) ** 2


def test_objects_lie_wholly_inside_the_image():
    masks = object_masks(load_splits("trifeature", SMALL).test)
    # Corner pixels are out of reach of every shape: each lies within its circle, and the circle within the image.
    assert not masks[:, [0, 0, -1, -1], [0, -1, 0, -1]].any()
    assert (masks.sum(axis=(1, 2)) > 40).all()


def test_edges_are_anti_aliased():
    image = drawn("circle", "plain", "blue", 1)[0, 0]
    assert len(np.unique(image)) > 10


def test_a_larger_side_shows_the_same_picture():
    small, large = drawn("star", "checks", "red", 10, side=32), drawn("star", "checks", "red", 10, side=128)
    averaged = large.reshape(10, 3, 32, 4, 32, 4).mean(axis=(3, 5))
    # Both sample the same scene, one at 4, one at 16 points a pixel and axis: only edge pixels differ.
    assert np.abs(averaged - small).mean() < 3


def test_colours_have_one_luma_so_that_a_grey_copy_does_not_tell_them():
    lumas = np.array(list(COLOURS.values())) @ [0.299, 0.587, 0.114]
    assert lumas.std() < 8


def test_textures_are_recoverable_from_their_spectrum():
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    splits = load_splits("trifeature", {"n_train": 2200, "n_test": 500, "label": "texture", "correlated": None})

    def spectrum(images):
        grey, inside = images.images.mean(axis=1), object_masks(images)
        dark = np.where(inside, grey, np.nan)
        filled = np.where(inside, grey - np.nanmean(dark, axis=(1, 2), keepdims=True), 0)
        return np.log1p(np.abs(np.fft.rfft2(filled))).reshape(len(images), -1)

    reader = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300)).fit(spectrum(splits.train), splits.train.labels)
    # Chance is 0.1; a linear reader that knows neither position nor shape must do far better.
    assert reader.score(spectrum(splits.test), splits.test.labels) > 0.75


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"label": "texture"}, "correlated must be another feature than the label, both are 'texture'"),
        ({"correlation": 1.5}, "correlation is a probability, 0 to 1, got 1.5"),
        ({"n_values": 11}, "n_values must be 2 to 10, got 11"),
        ({"side": 8}, "side must be at least 16 pixels"),
        ({"n_test": 0}, "n_test must be at least 1, got 0"),
        ({"label": "size"}, "setting 'label' of images 'trifeature'"),
    ],
)
def test_settings_without_sense_are_refused(settings, message):
    with pytest.raises(SettingError, match=message):
        load_splits("trifeature", settings)
