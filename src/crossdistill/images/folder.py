"""A folder of image files, one sub-folder a class, optionally below train/ and test/ (or val/)."""

import os
from functools import partial
from pathlib import Path

import numpy as np

from crossdistill.core.errors import ImageError
from crossdistill.core.registry import image_source
from crossdistill.images._files import Size, file_decoder
from crossdistill.images._raw import BATCH, OnError, RawContents, RawImages, RawSplit, existing_path, ranges

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
TRAIN, TEST = ("train",), ("test", "val", "validation")  # the first that exists is used
LAYOUT = "FOLDER/CLASS/*.png, or FOLDER/train/CLASS/*.png and FOLDER/test/CLASS/*.png"

Files = dict[str, list[os.DirEntry[str]]]  # class -> its files, sorted


@image_source(example="folder:photos")
def folder(*, path: Path, size: Size = None, on_error: OnError = "raise") -> RawImages:
    """Image files below one folder a class (searched to any depth); an image's id is its path below `path`.

    The fingerprint is each file's name, size and time of change, not its bytes: reading those would cost as much as decoding. A
    file changed in place with its size and time put back goes unnoticed.
    Raises ImageError for a missing folder, a folder without classes, a class without images, a test class unknown in training.
    """
    path = existing_path(path, f"a folder of images ({LAYOUT})")
    decode = file_decoder(size)
    roots = _split_folders(path)
    found = {split: _classes(root) for split, root in roots.items()}
    classes = tuple(found["train"])
    if unknown := sorted(set(found.get("test", {})) - set(classes)):
        raise ImageError(f"{roots['test']} has classes that training lacks: {', '.join(unknown)}. Training has: {', '.join(classes)}.")

    def read() -> RawContents:
        return RawContents(classes, {split: _raw_split(path, files, classes, decode) for split, files in found.items()})

    states = {split: [_state(path, entry) for files in of_class.values() for entry in files] for split, of_class in found.items()}
    provenance = {"path": str(path), "folders": {split: str(root) for split, root in roots.items()}}
    return RawImages({"files": states, "size": size, "on_error": on_error}, read, provenance, on_error)


def _split_folders(path: Path) -> dict[str, Path]:
    train = next((path / name for name in TRAIN if (path / name).is_dir()), None)
    if train is None:
        return {"train": path}
    test = next((path / name for name in TEST if (path / name).is_dir()), None)
    return {"train": train} | ({"test": test} if test else {})


def _classes(root: Path) -> Files:
    """Every class below `root` with its image files, both sorted by name."""
    if not root.is_dir():
        raise ImageError(f"{root} is a file: expected a folder of images ({LAYOUT})")
    names = sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise ImageError(f"{root} has no class folders: expected {LAYOUT}")
    classes = {name: sorted(_image_files(root / name), key=lambda entry: entry.path) for name in names}
    if empty := [name for name, files in classes.items() if not files]:
        raise ImageError(
            f"{len(empty)} class folders of {root} hold no image ({', '.join(empty[:10])}): remove them, or fill them "
            f"(files ending in {', '.join(sorted(SUFFIXES))} count)"
        )
    return classes


def _image_files(folder: Path) -> list[os.DirEntry[str]]:
    files: list[os.DirEntry[str]] = []
    for entry in os.scandir(folder):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            files += _image_files(Path(entry.path))
        elif os.path.splitext(entry.name)[1].lower() in SUFFIXES:
            files.append(entry)
    return files


def _state(path: Path, entry: os.DirEntry[str]) -> list[str | int]:
    status = entry.stat()
    return [os.path.relpath(entry.path, path), status.st_size, status.st_mtime_ns]


def _raw_split(path: Path, classes_found: Files, classes: tuple[str, ...], decode) -> RawSplit:
    files = [Path(entry.path) for of_class in classes_found.values() for entry in of_class]
    labels = np.repeat([classes.index(name) for name in classes_found], [len(of_class) for of_class in classes_found.values()])
    ids = np.array([file.relative_to(path).as_posix() for file in files])
    return RawSplit(labels.astype(np.int64), ids, partial(_batches, files), decode)


def _batches(files: list[Path]):
    # Smaller batches than elsewhere: photographs are large, and a few hundred of them in flight would fill the memory.
    return (files[rows] for rows in ranges(len(files), BATCH // 8))
