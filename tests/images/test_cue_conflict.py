import numpy as np
import pytest
from PIL import Image

from crossdistill.core.errors import ImageError
from crossdistill.images._cue_conflict import published_cue_conflict

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
ANIMALS = ("bear", "bird", "cat", "dog", "elephant")
PUBLISHED = (*ANIMALS, "airplane", "bicycle", "boat", "bottle", "car", "chair", "clock", "keyboard", "knife", "oven", "truck")


@pytest.fixture
def stimuli(tmp_path):
    """A folder laid out as the published one: every shape with every texture, here once each, in its own grey."""
    for row, shape in enumerate(PUBLISHED):
        (tmp_path / "stimuli" / shape).mkdir(parents=True)
        for column, texture in enumerate(PUBLISHED):
            pixels = np.full((12, 12, 3), row * 16 + column, np.uint8)
            Image.fromarray(pixels).save(tmp_path / "stimuli" / shape / f"{shape}{column % 10 + 1}-{texture}{row % 3 + 1}.png")
    return tmp_path / "stimuli"


def test_of_cifar10_seven_classes_are_shared(stimuli):
    images = published_cue_conflict(stimuli, CIFAR10, (8, 8))
    assert len(images) == 49  # 245 with the five pairs of each combination that are published
    assert (images.factors["shape"] != images.factors["texture"]).sum() == 42
    assert set(images.provenance["shared_classes"].items()) >= {("car", "automobile"), ("boat", "ship"), ("cat", "cat")}
    assert images.class_names == CIFAR10
    assert images.size == (8, 8)


def test_labels_are_the_shape_and_factors_say_what_the_file_name_says(stimuli):
    images = published_cue_conflict(stimuli, CIFAR10, (12, 12))
    row = next(row for row, name in enumerate(images.ids) if name.startswith("car/car") and "-boat" in name)
    assert (images.labels[row], images.factors["shape"][row], images.factors["texture"][row]) == (1, 1, 8)
    assert images.images[row, 0, 0, 0] == PUBLISHED.index("car") * 16 + PUBLISHED.index("boat")


def test_names_are_matched_whatever_their_case(stimuli):
    images = published_cue_conflict(stimuli, ("Cat", "Elephant", "unicorn"), (8, 8))
    assert np.unique(images.labels).tolist() == [0, 1]
    assert len(images) == 4


def test_changed_pixels_change_the_fingerprint(stimuli):
    before = published_cue_conflict(stimuli, CIFAR10, (8, 8)).provenance["fingerprint"]
    Image.fromarray(np.zeros((12, 12, 3), np.uint8)).save(next((stimuli / "cat").glob("cat*-dog*.png")))
    assert published_cue_conflict(stimuli, CIFAR10, (8, 8)).provenance["fingerprint"] != before


def test_classes_that_nobody_published_are_refused(stimuli):
    with pytest.raises(ImageError, match=r"needs two classes.*these images share cat: leave the set out"):
        published_cue_conflict(stimuli, ("cat", "unicorn"), (8, 8))


def test_another_folder_says_what_was_expected(tmp_path):
    (tmp_path / "other").mkdir()
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "other/cat.png")
    with pytest.raises(ImageError, match="holds no cue-conflict image: expected SHAPE/SHAPE1-TEXTURE2.png"):
        published_cue_conflict(tmp_path / "other", CIFAR10, (8, 8))
    with pytest.raises(ImageError, match="there is no file or folder"):
        published_cue_conflict(tmp_path / "nowhere", CIFAR10, (8, 8))


def test_a_damaged_file_is_named(stimuli):
    damaged = next((stimuli / "cat").glob("cat*-dog*.png"))
    damaged.write_text("no picture")
    with pytest.raises(ImageError, match=rf"{damaged.name} cannot be read: not an image"):
        published_cue_conflict(stimuli, CIFAR10, (8, 8))
