"""Probe sets as other programs read them: zips of PNGs, folders of classes, Parquet. Pixels and labels come back as they are.

SET/FORMAT/levelLL-drawDD.zip, or levelLL-drawDD/CLASS/0000.png, or levelLL-drawDD.parquet
           levelLL-drawDD.csv    file, label, class, id, index in the clean images and factors of each image (not for Parquet)
SET/FORMAT.json                  level's name and SHA-256 of each file (of a folder: over names and bytes of all in it), checked on reuse
"""

import csv
import hashlib
import io
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from crossdistill.core.errors import ImageError, StudyError, unknown_name
from crossdistill.core.store import file_sha256, locked, read_json, write_json, write_text
from crossdistill.core.types import UNLABELLED, ImageSet
from crossdistill.probes._probe_set import ProbeSet

BATCH = 256  # images encoded at once
LONGEST_NAME = 200  # bytes; file systems take 255
EPOCH = (1980, 1, 1, 0, 0, 0)  # the time of every file in a zip, so that equal sets give equal bytes

Row = dict[str, str | int]


def write_format(built: ProbeSet, format: str) -> Path:
    """Write a probe set in a format, one file or folder for each level and draw; gives the folder that holds them.

    What exists and is what was written is not written again. Raises UnknownNameError for an unknown format, ImageError where folders
    stand for classes and an image has none or a class has no image, StudyError where another process writes the same files or they
    cannot be written.
    """
    if format not in FORMATS:
        raise unknown_name("format", format, FORMATS)
    final, aside = built.folder / format, built.folder / f".{format}.part"
    if _is_whole(built.folder, format):
        return final
    with locked(
        built.folder, f"formats of {built.folder} are being written by another process: wait for it, then give the same command again"
    ):
        try:
            if not _is_whole(built.folder, format):  # else another process finished between the look above and the lock
                _write_anew(built, format, aside)
        except OSError as error:
            raise _cannot_write(final, error.strerror or str(error)) from error
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return final


def _write_anew(built: ProbeSet, format: str, aside: Path) -> None:
    final = built.folder / format
    _remove(aside)  # left by a process that was killed
    aside.mkdir()
    levels = {}
    for file, level in _written(built, FORMATS[format], aside):
        levels |= {path.name: level for path in (file, _table_of(file)) if path.exists()}
    files = {name: {"level": level, "sha256": _sha256(aside / name)} for name, level in levels.items()}
    _remove(final)
    # Before the folder gets its name: whoever sees the folder may trust the record.
    write_json(built.folder / f"{format}.json", {"format": format, "files": files})
    aside.rename(final)


def _is_whole(folder: Path, format: str) -> bool:
    """Whether the files of a format are those that its record tells of."""
    try:
        files = read_json(folder / f"{format}.json")["files"]
        return bool(files) and all(_sha256(folder / format / name) == facts["sha256"] for name, facts in files.items())
    except (OSError, StudyError, ValueError, LookupError, TypeError, AttributeError):  # a record that is missing or damaged
        return False


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _cannot_write(path: Path, reason: str) -> StudyError:
    return StudyError(f"cannot write {path}: {reason}. Free some space, then give the same command again.")


def _written(built: ProbeSet, write: Callable[[ImageSet, np.ndarray, Path], Path], folder: Path) -> Iterator[tuple[Path, str]]:
    for level, level_name in enumerate(built.level_names):
        for draw in range(built.draws):
            yield write(built.images(level, draw), built.kept_index, folder / f"level{level:02d}-draw{draw:02d}"), level_name


def _table_of(file: Path) -> Path:
    return file.parent / f"{file.name.removesuffix('.zip')}.csv"


def _sha256(path: Path) -> str:
    """SHA-256 of a file's bytes; of a folder's, over the names and bytes of all files below it."""
    if not path.is_dir():
        return file_sha256(path)
    found = hashlib.sha256()
    for file in sorted(file for file in path.rglob("*") if not file.is_dir()):
        found.update(os.fsencode(file.relative_to(path).as_posix()) + b"\0" + file_sha256(file).encode() + b"\n")
    return found.hexdigest()


def _zip(images: ImageSet, index: np.ndarray, path: Path) -> Path:
    names = _file_names(len(images))
    with zipfile.ZipFile(path.with_suffix(".zip"), "w", zipfile.ZIP_STORED) as file:  # PNGs are compressed already
        for name, png in zip(names, _encoded(images.images), strict=True):
            file.writestr(zipfile.ZipInfo(name, EPOCH), png)
    _write_table(images, index, names, path.with_suffix(".csv"))
    return path.with_suffix(".zip")


def _folders(images: ImageSet, index: np.ndarray, path: Path) -> Path:
    unlabelled = int((images.labels == UNLABELLED).sum())
    if unlabelled:
        raise ImageError(f"{unlabelled} of {len(images)} images have no label, so no class folder: choose png-zip or parquet")
    _refuse_empty_classes(images)
    classes = class_folders(images.class_names)
    names = [f"{classes[label]}/{name}" for label, name in zip(images.labels, _file_names(len(images)), strict=True)]
    for label in np.unique(images.labels):
        (path / classes[label]).mkdir(parents=True)
    for name, png in zip(names, _encoded(images.images), strict=True):
        (path / name).write_bytes(png)
    _write_table(images, index, names, path.with_suffix(".csv"))
    return path


def _refuse_empty_classes(images: ImageSet) -> None:
    empty = [images.class_names[label] for label in np.setdiff1d(np.arange(images.n_classes), images.labels)]
    if empty:
        named = ", ".join(f"'{name}'" for name in empty[:3]) + (", ..." if len(empty) > 3 else "")
        raise ImageError(
            f"{len(empty)} of {images.n_classes} classes have no image here ({named}), and readers of class folders, which number those "
            "that they find, would give the others wrong labels: choose png-zip or parquet"
        )


def class_folders(class_names: Sequence[str]) -> list[str]:
    """A folder for each class: its name; with its number before it where readers, which sort, would number classes otherwise.

    Names that no folder can have, such as empty or very long ones, are numbered too, and what they cannot contain is replaced.

    >>> class_folders(("cat", "dog")), class_folders(("dog", "cat")), class_folders(("ant", "bat/owl"))
    (['cat', 'dog'], ['0-dog', '1-cat'], ['0-ant', '1-bat_owl'])
    >>> class_folders(("", "cat"))
    ['0-', '1-cat']
    """
    names = [_folder_name(name) for name in class_names]
    if names == sorted(set(class_names)) and not any(name == "" or name.startswith(".") for name in names):
        return names
    digits = len(str(len(names) - 1))
    return [f"{number:0{digits}d}-{name}" for number, name in enumerate(names)]


def _folder_name(name: str) -> str:
    return name.replace("/", "_").replace("\0", "_").encode()[:LONGEST_NAME].decode(errors="ignore")


def _parquet(images: ImageSet, index: np.ndarray, path: Path) -> Path:
    """See `_fill_parquet`; an error of the disk is told like those of the other formats."""
    import duckdb

    try:
        return _fill_parquet(images, index, path)
    except (duckdb.OperationalError, duckdb.FatalException) as error:
        raise _cannot_write(path, str(error)) from error


def _fill_parquet(images: ImageSet, index: np.ndarray, path: Path) -> Path:
    """As Hugging Face datasets lays images out: `img` with bytes and path, `label`, and what else there is of each image."""
    import duckdb

    names = _file_names(len(images))
    rows = _rows(images, index, names)
    columns = [name for name in rows[0] if name not in ("file", "label", "class")]
    kinds = {name: "VARCHAR" if name == "id" else "BIGINT" for name in columns}
    with tempfile.TemporaryDirectory(dir=path.parent) as folder, duckdb.connect(f"{folder}/rows.duckdb") as database:
        database.execute("SET memory_limit = '512MB'")
        others = "".join(f', "{name}" {kind}' for name, kind in kinds.items())
        database.execute(f"CREATE TABLE rows (img STRUCT(bytes BLOB, path VARCHAR), label BIGINT{others})")
        others = "".join(f", unnest(${place}::{kind}[])" for place, kind in enumerate(kinds.values(), 4))
        insert = f"INSERT INTO rows SELECT {{'bytes': unnest($1::BLOB[]), 'path': unnest($2::VARCHAR[])}}, unnest($3::BIGINT[]){others}"
        encoded = _encoded(images.images)
        for start in range(0, len(images), BATCH):
            part = rows[start : start + BATCH]
            given = [[next(encoded) for _ in part], *([row[name] for row in part] for name in ("file", "label", *columns))]
            database.execute(insert, given)
        described = json.dumps({"info": {"features": _features(images, kinds)}}).replace("'", "''")
        target = str(path.with_suffix(".parquet")).replace("'", "''")
        # DuckDB marks columns without missing values as "required", which datasets takes for other columns than were described: a
        # condition that always holds, and that DuckDB cannot see through, leaves them as they are.
        nullable = ", ".join(f'CASE WHEN random() < 2 THEN "{name}" END AS "{name}"' for name in ("img", "label", *kinds))
        database.execute(f"COPY (SELECT {nullable} FROM rows) TO '{target}' (FORMAT parquet, KV_METADATA {{huggingface: '{described}'}})")
    return path.with_suffix(".parquet")


def _features(images: ImageSet, kinds: dict[str, str]) -> dict[str, Any]:
    """What Hugging Face datasets must know of the columns: which holds images, which class numbers with which names."""
    plain = {name: {"dtype": "string" if kind == "VARCHAR" else "int64", "_type": "Value"} for name, kind in kinds.items()}
    return {"img": {"_type": "Image"}, "label": {"names": list(images.class_names), "_type": "ClassLabel"}} | plain


FORMATS: dict[str, Callable[[ImageSet, np.ndarray, Path], Path]] = {"png-zip": _zip, "imagefolder": _folders, "parquet": _parquet}


def _file_names(n: int) -> list[str]:
    """Names padded so that their order as text is their order as numbers."""
    digits = len(str(max(n - 1, 0)))
    return [f"{row:0{digits}d}.png" for row in range(n)]


def _encoded(images: np.ndarray) -> Iterator[bytes]:
    """Each image as PNG, encoded in threads (Pillow releases the GIL), a batch ahead and no more."""
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(images), BATCH):
            yield from pool.map(_png, images[start : start + BATCH])


def _png(image: np.ndarray) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).save(file, format="PNG")
    return file.getvalue()


def _rows(images: ImageSet, index: np.ndarray, names: Sequence[str]) -> list[Row]:
    labels = [int(label) for label in images.labels]
    classes = ["" if label == UNLABELLED else images.class_names[label] for label in labels]
    ids = np.asarray(images.ids).astype(str).tolist()
    columns: dict[str, Sequence[str | int]] = {"file": names, "label": labels, "class": classes, "id": ids, "index": index.tolist()}
    # A factor may be called like one of these columns; theirs is the name that readers expect.
    columns |= {name if name not in columns else f"factor {name}": values.tolist() for name, values in images.factors.items()}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _write_table(images: ImageSet, index: np.ndarray, names: Sequence[str], path: Path) -> None:
    rows = _rows(images, index, names)
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, file.getvalue())
