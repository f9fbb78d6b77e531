"""Transfer images: unlabelled images of another source behind the training images."""

import numpy as np
import pytest

from crossdistill.core.errors import ImageError, SettingError, UnknownNameError
from crossdistill.core.study_file import parse_study
from crossdistill.core.types import UNLABELLED
from crossdistill.images import _transfer
from crossdistill.images._splits import load_splits
from crossdistill.images._transfer import labelled, with_transfer
from crossdistill.study.splits import fingerprint

SMALL = {"n_train": 60, "n_test": 20, "n_conflict": 10}


@pytest.fixture
def others(photos):
    """Six photographs of 8 x 8 pixels, in two folders."""
    return photos({"anything": 4, "else": 2}, name="others")


def test_they_stand_behind_the_training_images_without_labels_and_at_their_size(others):
    plain = load_splits("trifeature", SMALL)
    splits = load_splits("trifeature", SMALL, transfer=f"folder:{others}")
    assert len(splits.train) == len(plain.train) + 6
    assert np.array_equal(splits.train.images[:-6], plain.train.images)
    assert splits.train.labels[-6:].tolist() == [UNLABELLED] * 6
    names = [f"anything/{row:03}.png" for row in range(4)] + ["else/000.png", "else/001.png"]
    assert splits.train.ids[-6:].tolist() == [f"transfer/{name}" for name in names]
    assert len(set(splits.train.ids)) == len(splits.train)
    assert splits.train.images.shape[1:] == (3, 32, 32)
    assert [int(image.max()) for image in splits.train.images[-6:]] == [1, 2, 3, 4, 5, 6]  # each of its own grey level
    assert splits.train.class_names == plain.train.class_names
    assert {name: values[-1] for name, values in splits.train.factors.items()} == dict.fromkeys(plain.train.factors, UNLABELLED)


def test_validation_and_test_stay_as_they_are(others):
    plain, splits = load_splits("trifeature", SMALL), load_splits("trifeature", SMALL, transfer=f"folder:{others}")
    for name in ("validation", "test"):
        assert np.array_equal(getattr(plain, name).images, getattr(splits, name).images)


def test_a_count_takes_some_of_them_by_key(others):
    few = [load_splits("trifeature", SMALL, transfer=f"folder:{others}", transfer_images=3, seed=seed) for seed in (0, 0, 1, 2)]
    ids = [tuple(labelless.train.ids[-3:]) for labelless in few]
    assert ids[0] == ids[1]
    assert len(set(ids)) > 1
    with pytest.raises(ImageError, match=r"transfer_images must be 1 to 6 \(what 'folder:.*' has, less .*\), got 7"):
        load_splits("trifeature", SMALL, transfer=f"folder:{others}", transfer_images=7)


def test_what_is_read_changes_with_them(others):
    plain = fingerprint(load_splits("trifeature", SMALL))
    with_them = fingerprint(load_splits("trifeature", SMALL, transfer=f"folder:{others}"))
    fewer = fingerprint(load_splits("trifeature", SMALL, transfer=f"folder:{others}", transfer_images=3))
    (others / "else" / "000.png").write_bytes((others / "anything" / "000.png").read_bytes())
    changed = fingerprint(load_splits("trifeature", SMALL, transfer=f"folder:{others}"))
    assert len({plain, with_them, fewer, changed}) == 4


def test_the_rest_of_a_source_can_be_its_own_transfer_images(photos):
    path = photos({"train/cat": 30, "train/dog": 30, "test/cat": 5, "test/dog": 5})
    settings = {"path": str(path)}
    splits = load_splits("folder", settings, train_images=20, validation_images=10, transfer=f"folder:{path}")
    own = set(splits.train.ids[:20]) | set(splits.validation.ids)
    everything = {f"train/{name}/{row:03}.png" for name in ("cat", "dog") for row in range(30)}
    assert {name.removeprefix("transfer/") for name in splits.train.ids[20:]} == everything - own
    assert len(splits.train) == 50


def test_no_image_of_another_split_is_among_them(photos, png):
    main = photos({"train/cat": 20, "train/dog": 20, "test/cat": 4, "test/dog": 4})
    others = photos({"any": 3}, name="others")  # grey levels 1 to 3, as the first three of the main source
    (others / "any" / "again.png").write_bytes((main / "test" / "cat" / "000.png").read_bytes())
    (others / "any" / "new.png").write_bytes(png(250))
    found = load_splits("folder", {"path": str(main)}, transfer=f"folder:{others}").train
    assert found.ids[found.labels == UNLABELLED].tolist() == ["transfer/any/new.png"]


def test_images_that_share_a_line_only_are_others(photos, png):
    main = photos({"train/cat": 20, "train/dog": 20, "test/cat": 4, "test/dog": 4})
    found = load_splits("folder", {"path": str(main)}).train
    half = found.images[:1].copy()
    half[:, :, 0] = 255  # the first line only
    other = type(found)(half, found.labels[:1], found.ids[:1], found.class_names, found.provenance)
    assert _transfer._seen(other, [found]).tolist() == [False]
    assert _transfer._seen(found, [found]).all()


def test_images_of_another_size_are_refused(photos):
    splits = load_splits("folder", {"path": str(photos({"train/cat": 20, "train/dog": 20, "test/cat": 4, "test/dog": 4}))})
    found = load_splits("trifeature", SMALL).train
    with pytest.raises(ImageError, match=r"'drawn' are 32 x 32 pixels and the training images 8 x 8 pixels \(height x width\)"):
        with_transfer(splits, found, name="drawn", count=None, seed=0)


def test_a_source_that_does_not_exist_is_refused_before_anything_is_decoded(cache):
    with pytest.raises(UnknownNameError, match="no images is called 'folders'. Did you mean 'folder'"):
        load_splits("trifeature", SMALL, transfer="folders:photos")
    assert not cache.exists()


def test_many_images_are_joined_in_a_file_and_equal_those_in_memory(others, monkeypatch):
    in_memory = load_splits("trifeature", SMALL, transfer=f"folder:{others}").train
    monkeypatch.setattr(_transfer, "LARGEST_COPY", 1000)
    for _ in range(2):  # written, then found
        mapped = load_splits("trifeature", SMALL, transfer=f"folder:{others}").train
        assert isinstance(mapped.images, np.memmap)
        assert np.array_equal(mapped.images, in_memory.images)


def test_labelled_images_are_those_with_a_label(others):
    plain = load_splits("trifeature", SMALL).train
    assert labelled(plain) is plain
    found = labelled(load_splits("trifeature", SMALL, transfer=f"folder:{others}").train)
    assert np.array_equal(found.images, plain.images)
    assert np.array_equal(found.labels, plain.labels)


def test_a_count_without_a_source_is_refused_in_the_study_file():
    text = "images: {source: trifeature, transfer_images: 5}\nnetworks: {a: {model: small/resnet8}}\npairs: []"
    with pytest.raises(SettingError, match="line 1: images.transfer_images: `transfer_images` belongs to `transfer: SOURCE`"):
        parse_study(text)
