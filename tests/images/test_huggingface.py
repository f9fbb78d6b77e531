import sys

import pytest

from crossdistill.core.errors import ImageError
from crossdistill.images._splits import load_splits


@pytest.fixture
def datasets(tmp_path, monkeypatch):
    library = pytest.importorskip("datasets", reason="needs the extra hf")
    monkeypatch.setattr(library.config, "HF_DATASETS_CACHE", tmp_path / "hub")
    library.disable_progress_bars()
    return library


@pytest.fixture
def hub_folder(photos):
    return photos({"train/cat": 10, "train/dog": 10, "test/cat": 2, "test/dog": 2})


def test_reads_a_local_dataset_as_the_library_lays_it_out(datasets, hub_folder):
    splits = load_splits("huggingface", {"path": str(hub_folder)})
    assert splits.test.class_names == ("cat", "dog")
    assert splits.test.labels.tolist() == [0, 0, 1, 1]
    assert splits.test.images[:, 0, 0, 0].tolist() == [21, 22, 23, 24]
    assert (len(splits.train), len(splits.validation)) == (18, 2)


def test_reads_encoded_bytes_and_names_the_missing_ones(datasets, png, tmp_path, monkeypatch):
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["cat", "dog"]))
    rows = {"image": [{"bytes": png(level), "path": None} for level in range(20)], "label": [0, 1] * 10}
    rows["image"][3] = None
    whole = datasets.DatasetDict(train=datasets.Dataset.from_dict(rows, features=features))
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: whole)
    with pytest.raises(ImageError, match=r"1 of 20 images cannot be read:\n  train-3: no bytes"):
        load_splits("huggingface", {"path": "owner/name"})


def test_a_second_start_finds_the_same_entry(datasets, hub_folder, cache):
    for _ in range(2):
        load_splits("huggingface", {"path": str(hub_folder)})
    assert len(list((cache / "images").iterdir())) == 1


def test_an_unknown_column_or_split_lists_what_there_is(datasets, hub_folder):
    with pytest.raises(ImageError, match=r"set `label_column` to one of the columns, got 'kind': image \(Image\), label \(ClassLabel\)"):
        load_splits("huggingface", {"path": str(hub_folder), "label_column": "kind"})
    with pytest.raises(ImageError, match="has no split 'dev': it has train, test"):
        load_splits("huggingface", {"path": str(hub_folder), "test_split": "dev"})


def test_a_hub_that_cannot_be_reached_says_what_works_offline(datasets, monkeypatch):
    def unreachable(*_, **__):
        raise ConnectionError("Couldn't reach the Hub")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(ImageError, match=r"cannot load the dataset 'owner/name'.*parquet:DIR or folder:DIR"):
        load_splits("huggingface", {"path": "owner/name"})


def test_without_the_extra_the_command_is_given(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImageError, match=r"pip install 'crossdistill\[hf\]'"):
        load_splits("huggingface", {"path": "owner/name"})
