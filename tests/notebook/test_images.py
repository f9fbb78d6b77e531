"""Images as a notebook has them: what is taken, what becomes of it, and what is refused with which words."""

import numpy as np
import pytest
import torch
from PIL import Image

from crossdistill.core.errors import ImageError
from crossdistill.core.progress import Progress
from crossdistill.core.types import ImageSet, Splits
from crossdistill.images._splits import load_splits
from crossdistill.notebook.images import source_of, training_images

QUIET = Progress(quiet=True)


def splits_of(given, class_names=None) -> Splits:
    with source_of(given, class_names, QUIET) as entry:
        return load_splits(entry["source"], {name: value for name, value in entry.items() if name != "source"})


def content_of(given) -> str:
    with source_of(given, None, QUIET) as entry:
        return entry["content"]


@pytest.fixture
def some(pair):
    return pair[0][:40], pair[1][:40]


class DataSet:
    """As torch's: items by number."""

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, row):
        return self.items[row]


def test_arrays_tensors_pictures_and_other_layouts_are_the_same_images(some):
    images, labels = some
    last = images.transpose(0, 2, 3, 1)
    forms = [
        (images, labels),
        [torch.tensor(images), torch.tensor(labels, dtype=torch.int32)],
        (last, labels.astype(np.uint8)),
        DataSet([(Image.fromarray(image), int(label)) for image, label in zip(last, labels, strict=True)]),
        DataSet([(image, label) for image, label in zip(last, labels, strict=True)]),
        torch.utils.data.TensorDataset(torch.tensor(images), torch.tensor(labels)),
        {"train": (images, labels)},
    ]
    assert len({content_of(form) for form in forms}) == 1
    assert content_of((images, 1 - labels)) != content_of(some)
    other = images.copy()
    other[3, 1, 2, 2] ^= 1
    assert content_of((other, labels)) != content_of(some)


def test_grey_images_become_three_equal_channels(some):
    grey = some[0][:, 0]
    train = splits_of((grey, some[1])).train
    assert train.images.shape[1:] == (3, 16, 16)
    assert (train.images == train.images[:, :1]).all()
    assert content_of((grey[:, None], some[1])) == content_of((grey, some[1]))


def test_without_test_images_some_are_cut_always_the_same_and_it_is_said(some, capsys):
    with source_of(some, None, Progress()) as entry:
        assert training_images(entry, QUIET).size == (16, 16)
    assert "no test images were given" in capsys.readouterr().err
    first, again = splits_of(some), splits_of(some)
    assert len(first.test) == 8
    assert first.test.ids.tolist() == again.test.ids.tolist()
    assert not set(first.test.ids) & set(first.train.ids)


def test_parts_that_are_given_are_kept_as_they_are(some, capsys):
    images, labels = some
    parts = {"train": (images[:20], labels[:20]), "validation": (images[20:30], labels[20:30]), "test": (images[30:], labels[30:])}
    with source_of(parts, ["blue", "red"], Progress()) as entry:
        assert entry["source"] == "arrays"
    assert "no test images" not in capsys.readouterr().err
    splits = splits_of(parts, ["blue", "red"])
    for name, (pixels, numbers) in parts.items():
        part = getattr(splits, name)
        assert np.array_equal(part.images, pixels)
        assert np.array_equal(part.labels, numbers)
        assert part.class_names == ("blue", "red")
    same = splits_of(splits)
    assert all(np.array_equal(getattr(same, name).ids, getattr(splits, name).ids) for name in parts)


def test_an_image_set_keeps_its_ids_factors_and_classes(some):
    ids, factors = np.array([f"photo-{row}" for row in range(40)]), {"shape": some[1] * 2}
    given = ImageSet(*some, ids, ("blue", "red"), factors=factors)
    splits = splits_of({"train": given, "test": given.subset(np.arange(4))})
    assert set(splits.test.ids) == set(ids[:4])
    assert splits.test.factors["shape"].tolist() == factors["shape"][:4].tolist()
    assert splits.train.class_names == ("blue", "red")


def test_class_names_come_from_a_data_set_that_has_them(some):
    given = DataSet([(image, label) for image, label in zip(some[0].transpose(0, 2, 3, 1), some[1], strict=True)])
    assert splits_of(given).train.class_names == ("0", "1")
    given.classes = ["blue", "red"]
    assert splits_of(given).train.class_names == ("blue", "red")
    assert splits_of(given, ["b", "r"]).train.class_names == ("b", "r")


def test_data_sets_that_number_other_classes_are_refused(some):
    """As torchvision's ImageFolder does for a test folder without a picture of one class."""
    train, test = (
        DataSet([(image, int(label)) for image, label in zip(some[0].transpose(0, 2, 3, 1), some[1], strict=True)]) for _ in "ab"
    )
    train.classes, test.classes = ["blue", "red"], ["blue", "red"]
    assert splits_of({"train": train, "test": test}).test.class_names == ("blue", "red")
    test.classes = ["red", "white"]
    with pytest.raises(ImageError, match="classes of the test images are red, white, those of the training images blue, red: one number"):
        splits_of({"train": train, "test": test})


def test_a_source_by_name_is_left_to_it():
    with source_of("folder:photos", None, QUIET) as entry:
        assert entry == {"source": "folder", "path": "photos"}
    with source_of({"source": "trifeature", "n_values": 3}, None, QUIET) as entry:
        assert entry == {"source": "trifeature", "n_values": 3}


def test_outside_of_the_call_only_the_cache_knows_them(some):
    with source_of((some[0][:30], some[1][:30]), None, QUIET) as entry:
        content = entry["content"]
    with pytest.raises(ImageError, match="handed over in Python"):
        load_splits("arrays", {"content": content})
    splits_of((some[0][:30], some[1][:30]))
    assert len(load_splits("arrays", {"content": content}).test) == 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (x / 255, y), "must be uint8, 0 to 255, got float64 from 0 to 1: .*ToTensor"),
        (lambda x, y: (x.astype(np.int64), y), "must be uint8"),
        (lambda x, y: (x[:, :2], y), r"got \[40, 2, 16, 16\]"),
        (lambda x, y: (x[0, 0], y), "height, width"),
        (lambda x, y: (x[:0], y[:0]), r"got \[0, 3, 16, 16\]"),
        (lambda x, y: (x, y[:-1]), "40 images need 40 labels"),
        (lambda x, y: (x, np.eye(2)[y]), r"shape \[40, 2\]"),
        (lambda x, y: (x, y.astype(float)), "whole numbers from 0 on"),
        (lambda x, y: (x, y - 2), "20 of 40 train labels are out of range: the first is -2, expected 0 to"),
        (lambda x, y: (x, 0 * y), "the images have 1 class: at least two"),
        (lambda x, y: (x, y + 1), r"no training image has the label of 1 of the 3 classes \(0\)"),
        (lambda x, y: x, "which cannot be read"),
        (lambda x, y: 3, "type int, which cannot be read"),
        (lambda x, y: iter([(x, y)]), "cannot be read"),
        (lambda x, y: torch.utils.data.DataLoader(DataSet([(x[0], 0)])), "type DataLoader, which cannot be read"),
        (lambda x, y: {"training": (x, y)}, "splits are called train, validation, test"),
        (lambda x, y: {"train": (x, y), "val": (x, y)}, "got train, val"),
        (lambda x, y: {"train": (x, y), "test": (x, y * 0 - 1)}, "40 test images have no label"),
        (lambda x, y: {"train": (x, y), "test": (x, y * 2)}, "no training image has the label"),
        (lambda x, y: {"train": (x, y), "test": ImageSet(x, y, np.arange(40).astype(str), ("a", "b"))}, None),
        (
            lambda x, y: {"train": ImageSet(x, y, y.astype(str), ("c", "d")), "test": ImageSet(x, y, y.astype(str), ("a", "b"))},
            "other classes",
        ),
        (lambda x, y: DataSet([]), "the data set is empty"),
        (lambda x, y: DataSet([x[0]]), r"item 0 of the data set is \(?ndarray"),
        (lambda x, y: DataSet([(x[0].transpose(1, 2, 0), "cat")]), r"item 0 of the data set is \(ndarray, str\), expected \(image, class"),
        (lambda x, y: DataSet([("cat.png", 0)]), "a PIL picture, a tensor"),
        (lambda x, y: DataSet([(torch.rand(3, 8, 8), row % 2) for row in range(4)]), "must be uint8.*got float32"),
        (lambda x, y: DataSet([(Image.new("L", (8, 8 + row)), row) for row in range(2)]), "item 1 .* bring all to one size"),
    ],
)
def test_what_is_no_images_is_refused_with_what_to_do(change, message, some):
    if message is None:
        assert splits_of(change(*some)).test.class_names == ("a", "b")
        return
    with pytest.raises(ImageError, match=message):
        splits_of(change(*some))


def test_two_classes_of_one_name_are_refused(some):
    with pytest.raises(ImageError, match="two classes have one name: a, a"):
        splits_of(some, ["a", "a"])
    with pytest.raises(ImageError, match="expected 0 to 0"):
        splits_of(some, ["a"])
