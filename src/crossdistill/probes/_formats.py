"""Probe sets as other programs read them: zips of PNGs, folders of classes, Parquet. Pixels and labels come back as they are.

SET/FORMAT/levelLL-drawDD.zip, or levelLL-drawDD/CLASS/0000.png, or levelLL-drawDD.parquet
           levelLL-drawDD.csv    file, label, class, id, index in the clean images and factors of each image (not for Parquet)
SET/FORMAT.json                  the level's name and the SHA-256 of each file (of a folder: of its table), written last
"""

import csv
import io
import json
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from crossdistill.core.errors import ImageError, StudyError, unknown_name
from crossdistill.core.store import file_sha256, read_json, write_json, write_text
from crossdistill.core.types import UNLABELLED, ImageSet
from crossdistill.probes._probe_set import ProbeSet

BATCH = 256  # images encoded at once
EPOCH = (1980, 1, 1, 0, 0, 0)  # the time of every file in a zip, so that equal sets give equal bytes

Row = dict[str, str | int]


def write_format(built: ProbeSet, format: str) -> Path:
    """Write a probe set in a format, one file or folder for each level and draw; gives the folder that holds them.

    What exists is not written again. Raises UnknownNameError for an unknown format, ImageError for unlabelled images where
    folders stand for classes, StudyError where the files cannot be written.
    """
    if format not in FORMATS:
        raise unknown_name("format", format, FORMATS)
    final, record = built.folder / format, built.folder / f"{format}.json"
    if record.exists() and all((final / name).exists() for name in read_json(record)["files"]):
        return final
    aside = built.folder / f".{format}.part"
    for path in (aside, final):
        shutil.rmtree(path, ignore_errors=True)
    try:
        aside.mkdir()
        files = {file.name: level for file, level in _written(built, FORMATS[format], aside)}
        facts = {name: {"level": level, "sha256": file_sha256(_hashed(aside / name))} for name, level in files.items()}
        aside.rename(final)
    except OSError as error:
        raise StudyError(f"cannot write {final}: {error.strerror or error}. Free some space, then give the same command again.") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    write_json(record, {"format": format, "files": facts})
    return final


def _written(built: ProbeSet, write: Callable[[ImageSet, np.ndarray, Path], Path], folder: Path) -> Iterator[tuple[Path, str]]:
    for level, level_name in enumerate(built.level_names):
        for draw in range(built.draws):
            yield write(built.images(level, draw), built.kept_index, folder / f"level{level:02d}-draw{draw:02d}"), level_name


def _hashed(path: Path) -> Path:
    return path.with_name(path.name + ".csv") if path.is_dir() else path


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
    classes = class_folders(images.class_names)
    names = [f"{classes[label]}/{name}" for label, name in zip(images.labels, _file_names(len(images)), strict=True)]
    for label in np.unique(images.labels):
        (path / classes[label]).mkdir(parents=True)
    for name, png in zip(names, _encoded(images.images), strict=True):
        (path / name).write_bytes(png)
    _write_table(images, index, names, path.with_suffix(".csv"))
    return path


def class_folders(class_names: Sequence[str]) -> list[str]:
    """A folder for each class: its name; with its number before it where readers, which sort, would number classes otherwise.

    >>> class_folders(("cat", "dog")), class_folders(("dog", "cat")), class_folders(("ant", "bat/owl"))
    (['cat', 'dog'], ['0-dog', '1-cat'], ['0-ant', '1-bat_owl'])
    """
    names = [name.replace("/", "_").replace("\\0", "_") for name in class_names]
    if names == sorted(set(class_names)) and not any(name.startswith(".") for name in names):
        return names
    digits = len(str(len(names) - 1))
    return [f"{number:0{digits}d}-{name}" for number, name in enumerate(names)]


def _parquet(images: ImageSet, index: np.ndarray, path: Path) -> Path:
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
