import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossdistill.core.errors import ImageError, SettingError, UnknownNameError
from crossdistill.images._splits import load_splits, parse_source, stratified_rows

SMALL = {"n_train": 200, "n_test": 40, "n_conflict": 20}


def test_validation_is_a_stratified_tenth_cut_from_training():
    splits = load_splits("trifeature", SMALL)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (180, 20, 40)
    assert np.bincount(splits.validation.labels).tolist() == [2] * 10
    assert not set(splits.validation.ids) & set(splits.train.ids)
    assert splits.validation.provenance["cut"] == "20 images, stratified by label, seed 0"


def test_counts_limit_each_split_and_keep_the_classes_balanced():
    splits = load_splits("trifeature", SMALL, train_images=50, validation_images=30, test_images=10)
    assert [np.bincount(part.labels).tolist() for part in (splits.train, splits.validation, splits.test)] == [[5] * 10, [3] * 10, [1] * 10]


def test_a_default_validation_is_a_tenth_of_the_training_images_asked_for():
    assert len(load_splits("trifeature", SMALL, train_images=100).validation) == 10


def test_another_seed_cuts_another_validation_and_the_same_test():
    a, b = (load_splits("trifeature", SMALL, seed=seed) for seed in (0, 1))
    assert set(a.validation.ids) != set(b.validation.ids)
    assert np.array_equal(a.test.ids, b.test.ids)


def test_the_limit_on_training_does_not_move_validation():
    a = load_splits("trifeature", SMALL, validation_images=20)
    b = load_splits("trifeature", SMALL, validation_images=20, train_images=60)
    assert a.validation.ids.tolist() == b.validation.ids.tolist()
    assert set(b.train.ids) <= set(a.train.ids)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (
            {"train_images": 181, "validation_images": 20},
            r"train_images must be 1 to 180 \(what is there, less what validation took\), got 181",
        ),
        ({"test_images": 41}, "test_images must be 1 to 40"),
        ({"train_images": 0}, "train_images must be 1 to"),
        ({"validation_images": 200}, "200 images cannot be cut for validation: there are 200 training images"),
    ],
)
def test_counts_that_are_not_there_are_refused(counts, message):
    with pytest.raises(ImageError, match=message):
        load_splits("trifeature", SMALL, **counts)


def test_no_validation_at_all_is_refused():
    with pytest.raises(SettingError, match="validation_images must be at least 1, got 0"):
        load_splits("trifeature", SMALL, validation_images=0)


def test_an_unknown_source_offers_the_nearest():
    with pytest.raises(UnknownNameError, match="Did you mean 'trifeature'"):
        load_splits("trifeatures")


@pytest.mark.parametrize("text", ["", ":photos", "folder:"])
def test_a_source_without_name_or_path_is_refused(text):
    with pytest.raises(SettingError, match="NAME or NAME:PATH"):
        parse_source(text)


def test_a_path_may_hold_colons():
    assert parse_source("folder:/a:b") == ("folder", {"path": "/a:b"})


@given(st.lists(st.integers(-1, 4), min_size=1, max_size=60), st.data())
def test_a_stratified_draw_has_the_asked_size_and_each_share_to_within_one(labels, data):
    labels = np.array(labels)
    count = data.draw(st.integers(0, len(labels)))
    rows = stratified_rows(labels, count, "test")
    assert len(set(rows.tolist())) == count
    for value in set(labels.tolist()):
        assert abs((labels[rows] == value).sum() - count * (labels == value).mean()) < 1 + 1e-9  # rounding of the exact share
