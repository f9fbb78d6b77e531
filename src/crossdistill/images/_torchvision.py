"""Data sets that torchvision downloads and checks. It takes seconds to import, so a second start only hashes the files."""

from pathlib import Path
from typing import Any

import numpy as np

from crossdistill.core.errors import ImageError
from crossdistill.core.store import cache_folder, file_sha256
from crossdistill.images._raw import RawContents, RawImages, array_split


def torchvision_images(name: str, path: Path | None, files: list[str]) -> RawImages:
    """The data set `torchvision.datasets.NAME` below `path` (default: the cache folder), downloaded where it is not there yet.

    `files` are its files below `path`, whose hashes are the fingerprint. Raises ImageError, with what to do, when offline.
    """
    root = (path or cache_folder() / "downloads").expanduser()
    if not all((root / file).exists() for file in files):
        _dataset(name, root, train=True)

    def read() -> RawContents:
        parts = {"train": _dataset(name, root, train=True), "test": _dataset(name, root, train=False)}
        splits = {split: array_split(np.asarray(part.data), np.asarray(part.targets), split) for split, part in parts.items()}
        return RawContents(tuple(parts["train"].classes), splits)

    return RawImages({file: file_sha256(root / file) for file in files}, read, {"path": str(root), "dataset": f"torchvision {name}"})


def _dataset(name: str, root: Path, *, train: bool) -> Any:
    import torchvision

    try:
        return getattr(torchvision.datasets, name)(root, train=train, download=True)
    except (OSError, RuntimeError) as error:  # URLError is an OSError; torchvision turns some failures into RuntimeError
        raise ImageError(
            f"{name} is not in {root} and cannot be fetched: {str(error).splitlines()[0]}. Connect and start again, set `path` to a folder "
            "that holds it as torchvision lays it out, or use files that are here: parquet:DIR or folder:DIR work offline."
        ) from error
