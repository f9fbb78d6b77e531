"""A dataset of the Hugging Face hub, or of a local folder that `datasets` can read (extra `hf`)."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from crossdistill.core.errors import ImageError
from crossdistill.core.registry import image_source
from crossdistill.images._files import Size, file_decoder
from crossdistill.images._labels import as_classes
from crossdistill.images._raw import BATCH, OnError, RawContents, RawImages, RawSplit, ranges

TEST_SPLITS = ("test", "validation")


@image_source(example="huggingface:owner/name")
def huggingface(
    *,
    path: str,
    config: str | None = None,
    revision: str | None = None,
    train_split: str = "train",
    test_split: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    size: Size = None,
    on_error: OnError = "raise",
) -> RawImages:
    """The dataset `path` ("owner/name"), as `datasets.load_dataset(path, config, revision=revision)` gives it.

    `test_split` defaults to "test", then "validation"; columns are guessed where only one holds images or class labels. The
    fingerprint is the one that `datasets` keeps of each split. Raises ImageError without the extra, or when the hub is out of reach.
    """
    decode = file_decoder(size)
    dataset = _loaded(path, config, revision)
    chosen = {"train": train_split} | ({"test": test} if (test := _test_split(dataset, test_split)) else {})
    for split in chosen.values():
        if split not in dataset:
            raise ImageError(f"dataset '{path}' has no split '{split}': it has {', '.join(dataset)}. Set train_split and test_split.")
    image = _column(dataset[train_split], image_column, "Image", "image_column")
    label = _column(dataset[train_split], label_column, "ClassLabel", "label_column")

    def read() -> RawContents:
        columns = {split: dataset[name][label] for split, name in chosen.items()}
        names, labels = as_classes(columns, getattr(dataset[train_split].features[label], "names", None))
        splits = {split: _raw_split(dataset[name], split, image, labels[split], decode) for split, name in chosen.items()}
        return RawContents(names, splits)

    prints = {split: dataset[name]._fingerprint for split, name in chosen.items()}
    settings = {"image_column": image, "label_column": label, "size": size, "on_error": on_error}
    return RawImages({"datasets": prints, **settings}, read, {"path": path, "config": config, "revision": revision}, on_error)


def _loaded(path: str, config: str | None, revision: str | None) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise ImageError("images from the Hugging Face hub need the package 'datasets': pip install 'crossdistill[hf]'") from error
    try:
        return datasets.load_dataset(path, config, revision=revision)
    except (OSError, ValueError) as error:  # connection and hub errors are OSErrors; an unknown config is a ValueError
        raise ImageError(
            f"cannot load the dataset '{path}', from the hub or from the cache below HF_HOME: {(str(error).splitlines() or [error])[0]}. "
            "Check its name and the connection. Offline, use files that are here: parquet:DIR or folder:DIR."
        ) from error


def _test_split(dataset: Any, asked: str | None) -> str | None:
    return asked or next((name for name in TEST_SPLITS if name in dataset), None)


def _column(split: Any, asked: str | None, kind: str, setting: str) -> str:
    fitting = [name for name, feature in split.features.items() if type(feature).__name__ == kind]
    if asked is not None and asked in split.features:
        return asked
    if asked is None and len(fitting) == 1:
        return fitting[0]
    columns = ", ".join(f"{name} ({type(feature).__name__})" for name, feature in split.features.items())
    raise ImageError(f"set `{setting}` to one of the columns, got {asked!r}: {columns}")


def _raw_split(data: Any, split: str, image: str, labels: np.ndarray, decode: Any) -> RawSplit:
    import datasets

    encoded = data.select_columns([image]).cast_column(image, datasets.Image(decode=False))
    ids = np.array([f"{split}-{row}" for row in range(len(data))])
    return RawSplit(labels, ids, partial(_batches, encoded, image), decode)


def _batches(encoded: Any, image: str) -> Iterator[list[Any]]:
    for rows in ranges(len(encoded), BATCH):
        yield [_bytes_or_path(value) for value in encoded[rows][image]]


def _bytes_or_path(value: dict[str, Any] | None) -> bytes | Path | None:
    if value is None:
        return None
    return value["bytes"] if value["bytes"] is not None else Path(value["path"])
