"""What every source of images promises, tried on each one that works offline: a new file in images/ is tested without its author's help."""

import socket
from pathlib import Path

import duckdb
import numpy as np
import pytest
from PIL import Image

from crossdistill.core.errors import ImageError, UnknownNameError
from crossdistill.core.registry import get, names
from crossdistill.images._splits import load_splits

ALWAYS = {"trifeature", "folder", "parquet"}  # sources that must not be skipped here


@pytest.fixture(scope="module")
def everything(tmp_path_factory) -> Path:
    """One folder that any source of local files can read: class folders and Parquet files side by side."""
    root = tmp_path_factory.mktemp("everything")
    random = np.random.default_rng(0)
    for split, count in (("train", 30), ("test", 6)):
        for name in ("cat", "dog"):
            (root / split / name).mkdir(parents=True)
            for row in range(count // 2):
                Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8)).save(root / split / name / f"{row}.png")
        query = "SELECT content AS image, CASE WHEN contains(filename, '/cat/') THEN 'cat' ELSE 'dog' END AS label FROM read_blob(?)"
        files = [str(file) for file in sorted((root / split).rglob("*.png"))]
        duckdb.connect().execute(f"COPY ({query}) TO '{root / split}.parquet' (FORMAT parquet)", [files])
    return root


@pytest.fixture(scope="module", params=names("images"))
def source(request, everything, tmp_path_factory):
    """Name, settings and a function that loads; skipped where a source cannot do without the network."""
    settings = {"path": everything} if get("images", request.param).settings.model_fields.keys() & {"path"} else {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CROSSDISTILL_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(socket, "getaddrinfo", _no_network)
        if any(field.annotation is str and name == "path" for name, field in get("images", request.param).settings.model_fields.items()):
            pytest.skip(f"{request.param} reads from a hub")
        try:
            load_splits(request.param, settings)
        except ImageError as error:
            if request.param in ALWAYS:
                raise
            pytest.skip(f"{request.param} needs the network: {error}")
        yield request.param, settings


def _no_network(*_, **__):
    raise OSError("no network in tests")


def parts(splits):
    return [splits.train, splits.validation, splits.test, *splits.extra.values()]


def test_images_are_bytes_of_one_size_with_labels_in_range_and_unique_ids(source):
    splits = load_splits(*source)
    for part in parts(splits):
        assert part.images.dtype == np.uint8
        assert part.size == splits.train.size
        assert part.labels.dtype == np.int64
        assert part.labels.min() >= -1
        assert part.labels.max() < part.n_classes
        assert len(set(part.ids)) == len(part)
        assert part.class_names == splits.train.class_names


def test_splits_share_no_image(source):
    splits = load_splits(*source)
    ids = [id for part in parts(splits) for id in part.ids]
    assert len(set(ids)) == len(ids)


def test_a_second_load_is_mapped_and_identical(source):
    first, second = load_splits(*source), load_splits(*source)
    assert isinstance(second.test.images, np.memmap)
    for a, b in zip(parts(first), parts(second), strict=True):
        assert np.array_equal(a.images, b.images)
        assert np.array_equal(a.labels, b.labels)
        assert np.array_equal(a.ids, b.ids)


def test_decoding_afresh_gives_the_same_bytes(source, tmp_path, monkeypatch):
    first = load_splits(*source)
    monkeypatch.setenv("CROSSDISTILL_CACHE", str(tmp_path))
    for a, b in zip(parts(first), parts(load_splits(*source)), strict=True):
        assert np.array_equal(a.images, b.images)


def test_provenance_names_the_source(source):
    assert all(part.provenance["source"] == source[0] for part in parts(load_splits(*source)))


def test_factors_are_whole_numbers_for_each_image(source):
    for part in parts(load_splits(*source)):
        assert all(values.dtype == np.int64 and len(values) == len(part) for values in part.factors.values())


@pytest.mark.parametrize("name", names("images"))
def test_an_unknown_setting_offers_the_nearest(name):
    setting = next(iter(get("images", name).settings.model_fields))
    with pytest.raises(UnknownNameError, match=f"Did you mean '{setting}'"):
        load_splits(name, {setting + "x": 1})
