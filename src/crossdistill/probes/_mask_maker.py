"""Masks that are computed from pixels: kept in the cache, so that a mask is made once however often it is asked for.

CACHE/masks/KEY/masks.npy   uint8 [images, height, width], memory-mapped
                marks.npy   uint64 [images], 0 where there is no mask yet, else its checksum
"""

import contextlib
import os
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from crossdistill.core.errors import StudyError
from crossdistill.core.store import cache_folder, digest
from crossdistill.core.types import ImageSet
from crossdistill.probes._recipe import fingerprint
from crossdistill.probes._supplies import Supply

FORMAT = 1
AT_ONCE = 64  # images between two looks at the disk: what is lost when a build is stopped


@dataclass(frozen=True)
class MaskMaker:
    """A way to find objects: `of(images uint8 [n, 3, height, width])` gives uint8 [n, height, width], each image on its own."""

    of: Callable[[np.ndarray], np.ndarray]
    identity: Any  # plain JSON that names all that the masks depend on beside the pixels
    about: Mapping[str, Any]


def made_masks(maker: MaskMaker, images: ImageSet) -> Supply:
    """Masks of any of these images, made when they are first asked for. Raises StudyError where the cache cannot be written."""
    folder = cache_folder() / "masks" / digest([FORMAT, maker.identity, fingerprint(images)])
    shapes = {"masks": (np.dtype(np.uint8), (len(images), *images.size)), "marks": (np.dtype(np.uint64), (len(images),))}
    with _writing(folder):
        for name, (kind, shape) in shapes.items():
            _ensure(folder / f"{name}.npy", kind, shape)
    rows = {str(name): row for row, name in enumerate(images.ids)}
    return Supply(_Kept(folder, rows, maker.of).of, maker.identity, maker.about)


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StudyError(
            f"cannot keep masks in {folder}: {error.strerror or error}. "
            "Free some space there, or set CROSSDISTILL_CACHE to a folder that can be written."
        ) from error


@dataclass(frozen=True)
class _Kept:
    """Holds no open file, so that it may travel to another process."""

    folder: Path
    rows: Mapping[str, int]  # id -> row
    make: Callable[[np.ndarray], np.ndarray]

    def of(self, block: ImageSet) -> np.ndarray:
        with _writing(self.folder):
            masks, marks = (np.load(self.folder / f"{name}.npy", mmap_mode="r") for name in ("masks", "marks"))
        rows = np.array([self.rows[str(name)] for name in block.ids], np.int64)
        found = masks[rows]
        missing = np.array([n for n, row in enumerate(rows) if marks[row] != _mark(block.images[n], found[n])], np.int64)
        for start in range(0, len(missing), AT_ONCE):
            part = missing[start : start + AT_ONCE]
            made = self.make(block.images[part])
            found[part] = made
            marked = np.array([_mark(image, mask) for image, mask in zip(block.images[part], made, strict=True)], np.uint64)
            with _writing(self.folder):
                _write_rows(masks, rows[part], made)
                _write_rows(marks, rows[part], marked)  # after the masks, since a mark vouches for one
        return found


def _write_rows(mapped: np.ndarray, rows: np.ndarray, values: np.ndarray) -> None:
    """Write rows into the file from which an array is mapped; through the mapping a full disk would kill the process (SIGBUS)."""
    assert isinstance(mapped, np.memmap)
    with open(str(mapped.filename), "r+b") as file:
        for row, value in zip(rows, values, strict=True):
            file.seek(mapped.offset + int(row) * mapped[:1].nbytes)
            file.write(value.tobytes())


def _mark(image: np.ndarray, mask: np.ndarray) -> int:
    return 2**32 + zlib.crc32(mask.tobytes(), zlib.crc32(image.tobytes()))


def _ensure(path: Path, kind: np.dtype, shape: tuple[int, ...]) -> None:
    """Make an array file of zeros unless there is one. Of two processes that do so at once the later one wins: work is lost, no truth.

    The file is sparse: what is not written yet costs nothing.
    """
    if path.exists() and _is_array(path, kind, shape):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, aside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(descriptor)
    np.lib.format.open_memmap(aside, mode="w+", dtype=kind, shape=shape).flush()
    os.replace(aside, path)


def _is_array(path: Path, kind: np.dtype, shape: tuple[int, ...]) -> bool:
    try:
        found = np.load(path, mmap_mode="r")
    except ValueError:  # cut short, or no array file at all
        return False
    return (found.dtype, found.shape) == (kind, shape)
