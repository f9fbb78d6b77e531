"""Images decoded once: memory-mapped arrays in the cache folder, under a name made of the source's fingerprint.

    CACHE/images/KEY/{SPLIT-images.npy, SPLIT-labels.npy, SPLIT-ids.npy, SPLIT-factor-NAME.npy}  and, last of all, meta.json

A folder without meta.json is unfinished and is filled again. One process fills it at a time; others wait for it, then read.
"""

import contextlib
import fcntl
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from crossdistill.core.errors import ImageError, StudyError
from crossdistill.core.store import cache_folder, digest, read_json, write_atomically, write_json
from crossdistill.core.types import UNLABELLED, ImageSet
from crossdistill.images._raw import Damaged, RawImages, RawSplit

FORMAT = 1  # of the folder, and of what decoding means: raise it when the same source gives other bytes
LISTED = 10  # damaged images that a message names
LARGEST_COPY = 2**31  # bytes; a larger subset is written to the cache and mapped instead

Progress = Callable[[str, int, int], None]


def decoded(source: str, version: int, raw: RawImages, progress: Progress | None = None) -> dict[str, ImageSet]:
    """Every split of a source, memory-mapped; decodes them first where the cache lacks them.

    Raises ImageError for damaged images (unless `on_error` is "skip"), mixed sizes and labels out of range, StudyError when the
    cache cannot be written.
    """
    folder = cache_folder() / "images" / digest([FORMAT, source, version, raw.fingerprint])
    if not (folder / "meta.json").exists():
        _fill(folder, raw, progress or (lambda step, done, total: None))
    return _opened(folder, {"source": source, **raw.provenance})


def taken(images: ImageSet, rows: np.ndarray) -> ImageSet:
    """The images at `rows` (sorted): the same object where that is all of them, copied to memory, or mapped where they are many."""
    if len(rows) == len(images):
        return images
    mapped = images.images
    if not isinstance(mapped, np.memmap) or len(rows) * mapped[0].nbytes <= LARGEST_COPY:
        return images.subset(rows)
    path = Path(str(mapped.filename)).parent / f"rows-{digest([str(mapped.filename), rows.tolist()])}.npy"
    if not path.exists():
        write_atomically(path, lambda file: _write_rows(file, mapped, rows))
    factors = {name: values[rows] for name, values in images.factors.items()}
    return ImageSet(np.load(path, mmap_mode="r"), images.labels[rows], images.ids[rows], images.class_names, images.provenance, factors)


def _write_rows(file: BinaryIO, images: np.ndarray, rows: np.ndarray) -> None:
    _write_header(file, (len(rows), *images.shape[1:]))
    for row in rows:
        file.write(images[row].tobytes())


def _fill(folder: Path, raw: RawImages, progress: Progress) -> None:
    with _held(folder):
        if (folder / "meta.json").exists():  # another process has filled it while we waited
            return
        try:
            write_json(folder / "meta.json", _written(folder, raw, progress))
        except BaseException:
            for file in folder.glob("*.npy"):  # half a decoded set may be large, and nobody can use it
                file.unlink()
            raise


def _written(folder: Path, raw: RawImages, progress: Progress) -> dict[str, Any]:
    """Write every split; returns what meta.json says of them."""
    contents = raw.read()
    first: _Kept | None = None
    splits = {}
    for name, split in contents.splits.items():
        _check_labels(name, split, len(contents.class_names))
        kept = _write_split(folder, name, split, raw.on_error, progress, first)
        first = first or kept
        splits[name] = {"images": len(kept.rows), "factors": list(split.factors), "skipped": kept.damaged}
    return {"format": FORMAT, "class_names": contents.class_names, "splits": splits}


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Wait for, then hold, the folder's lock; the lock ends with the process, also on kill -9."""
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / ".lock", "a+b")  # noqa: SIM115 (held for the whole block)
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StudyError(
            f"cannot keep decoded images in {folder}: {error.strerror or error}. "
            "Free some space there, or set CROSSDISTILL_CACHE to a folder that can be written."
        ) from error


@dataclass
class _Kept:
    """What was written of a split so far."""

    size: tuple[int, int, int] | None = None  # of the first image that could be read, and of all that follow
    example: str = ""  # its id
    rows: list[int] = field(default_factory=list)
    damaged: dict[str, str] = field(default_factory=dict)  # id -> reason


def _write_split(folder: Path, name: str, split: RawSplit, on_error: str, progress: Progress, first: _Kept | None) -> _Kept:
    kept = _Kept(first.size, first.example) if first else _Kept()
    # `_writing` stands outside, since a full disk may show only when the file is closed.
    with _writing(folder), open(folder / f"{name}-images.npy", "wb") as file:
        # Written in order through the file, not through a mapping: a full disk is then an error and not a dead process.
        for row, image in enumerate(_decoded_in_order(split)):
            _keep(kept, file, row, str(split.ids[row]), image, len(split.ids))
            if (row + 1) % 256 == 0 or row + 1 == len(split.ids):
                progress(f"decoding {name}", row + 1, len(split.ids))
        if kept.damaged and on_error == "raise":
            raise ImageError(_damage_report(kept.damaged, len(split.ids)))
        if not kept.rows or kept.size is None:
            raise ImageError(f"none of the {len(split.ids)} {name} images can be read" + _listed(kept.damaged))
        _write_header(file, (len(kept.rows), *kept.size))
        file.flush()
        os.fsync(file.fileno())
    arrays = {"labels": split.labels, "ids": split.ids} | {f"factor-{key}": values for key, values in split.factors.items()}
    for key, values in arrays.items():
        path, column = folder / f"{name}-{key}.npy", values[kept.rows]
        write_atomically(path, lambda file, column=column: np.save(file, column, allow_pickle=False))
    return kept


def _keep(kept: _Kept, file: BinaryIO, row: int, id: str, image: np.ndarray | Damaged, total: int) -> None:
    if isinstance(image, Damaged):
        kept.damaged[id] = image.reason
        return
    if kept.size is None:
        kept.size, kept.example = (3, image.shape[1], image.shape[2]), id
    if image.shape != kept.size:
        raise ImageError(
            f"images have different sizes: {kept.example} is {kept.size[1]} x {kept.size[2]}, "
            f"{id} is {image.shape[1]} x {image.shape[2]} (height x width). Set `size` to bring all to one."
        )
    if not kept.rows:
        _write_header(file, (total, *kept.size))
    file.write(image.tobytes())
    kept.rows.append(row)


def _write_header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    """The .npy header, at the start of the file; called again at the end when fewer images than expected were written."""
    file.seek(0)
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
    # NumPy pads the header so that the first axis may take any count: rewriting it never touches the pixels.
    assert file.tell() % 64 == 0


def _decoded_in_order(split: RawSplit) -> Iterator[np.ndarray | Damaged]:
    """Each image of the split, decoded in threads (Pillow and NumPy release the GIL), a few batches ahead and no more."""
    workers = os.cpu_count() or 1
    ahead: deque[Future[Any]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for batch in split.batches():
            ahead.append(pool.submit(split.decode, batch))
            if len(ahead) > 2 * workers:
                yield from ahead.popleft().result()
        while ahead:
            yield from ahead.popleft().result()


def _check_labels(name: str, split: RawSplit, n_classes: int) -> None:
    wrong = np.flatnonzero((split.labels < UNLABELLED) | (split.labels >= n_classes))
    if len(wrong):
        raise ImageError(
            f"{len(wrong)} of {len(split.labels)} {name} images have a label out of range: the first, {split.ids[wrong[0]]}, has "
            f"{split.labels[wrong[0]]}, expected 0 to {n_classes - 1} (or -1 for none)"
        )


def _damage_report(damaged: dict[str, str], total: int) -> str:
    return f"{len(damaged)} of {total} images cannot be read{_listed(damaged)}\nMend or remove them, or set `on_error: skip`."


def _listed(damaged: dict[str, str]) -> str:
    lines = [f"\n  {id}: {reason}" for id, reason in list(damaged.items())[:LISTED]]
    return "".join([":", *lines, f"\n  and {len(damaged) - LISTED} more" if len(damaged) > LISTED else ""])


def _opened(folder: Path, provenance: dict[str, Any]) -> dict[str, ImageSet]:
    try:
        meta = read_json(folder / "meta.json")
        return {name: _opened_split(folder, name, facts, meta["class_names"], provenance) for name, facts in meta["splits"].items()}
    except (OSError, ValueError, KeyError, StudyError) as error:
        raise ImageError(f"the decoded images in {folder} are damaged ({error}). Delete that folder; they are decoded again.") from error


def _opened_split(folder: Path, name: str, facts: dict[str, Any], class_names: list[str], provenance: dict[str, Any]) -> ImageSet:
    def load(key: str) -> np.ndarray:
        return np.load(folder / f"{name}-{key}.npy")

    skipped = facts["skipped"]
    about = {**provenance, "key": folder.name, "split": name, "n_skipped": len(skipped), "skipped": dict(list(skipped.items())[:LISTED])}
    factors = {factor: load(f"factor-{factor}") for factor in facts["factors"]}
    pixels = np.load(folder / f"{name}-images.npy", mmap_mode="r")
    return ImageSet(pixels, load("labels"), load("ids"), tuple(class_names), about, factors)
