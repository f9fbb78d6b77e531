"""Parquet files with encoded images, as Hugging Face datasets lays them out (https://huggingface.co/docs/hub/datasets-image)."""

import contextlib
import glob
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from crossdistill.core.errors import ImageError, UnknownNameError, nearest
from crossdistill.core.registry import image_source
from crossdistill.core.store import file_sha256
from crossdistill.core.types import UNLABELLED
from crossdistill.images._files import Size, file_decoder
from crossdistill.images._labels import as_classes
from crossdistill.images._raw import BATCH, OnError, RawContents, RawImages, RawSplit, existing_path

TRAIN, TEST = ("train",), ("test", "val")  # beginnings of file names; the first that occurs is used
LABEL_TYPES = ("BIGINT", "INTEGER", "SMALLINT", "TINYINT", "UBIGINT", "UINTEGER", "USMALLINT", "UTINYINT", "VARCHAR", "BOOLEAN", "ENUM")
USUAL_LABELS = ("label", "labels", "class")


@dataclass(frozen=True)
class Table:
    """The columns of a file: their DuckDB types, and what the Hugging Face metadata says of them (empty without it)."""

    types: dict[str, str]
    features: dict[str, Any] = field(default_factory=dict)

    def of_feature(self, kind: str) -> list[str]:
        return [name for name, feature in self.features.items() if isinstance(feature, dict) and feature.get("_type") == kind]


@image_source(example="parquet:cifar10")
def parquet(
    *,
    path: Path,
    image_column: str | None = None,
    label_column: str | None = None,
    size: Size = None,
    on_error: OnError = "raise",
) -> RawImages:
    """Images of one Parquet file, or of a folder with train*.parquet and test*.parquet (or val*), at any depth.

    The image column holds encoded bytes, or a struct with a field `bytes`; the columns are guessed where only one fits. Class names
    come from the Hugging Face metadata, otherwise from the label values of the training images, sorted. The fingerprint hashes the files.
    """
    path = existing_path(path, "a Parquet file, or a folder with train*.parquet and test*.parquet")
    files = split_files(path)
    decode = file_decoder(size)
    root = path if path.is_dir() else path.parent

    def read() -> RawContents:
        table = _table(files["train"][0])
        image = _image_column(table, image_column)
        label = _label_column(table, label_column)
        values = {split: _labels_and_ids(paths, label, root) for split, paths in files.items()}
        names, labels = as_classes({split: column for split, (column, _) in values.items()}, _class_names(table, label))
        expression = _quoted(image) + (".bytes" if table.types[image].startswith("STRUCT") else "")
        splits = {split: RawSplit(labels[split], values[split][1], partial(_batches, files[split], expression), decode) for split in files}
        return RawContents(names, splits)

    hashes = {split: [file_sha256(file) for file in paths] for split, paths in files.items()}
    settings = {"image_column": image_column, "label_column": label_column, "size": size, "on_error": on_error}
    provenance = {"path": str(path), "files": {split: [str(file.relative_to(root)) for file in paths] for split, paths in files.items()}}
    names = provenance["files"]  # an image's id begins with its file's name, so the names belong to the content
    return RawImages({"files": hashes, "names": names, **settings}, read, provenance, on_error)


def split_files(path: Path) -> dict[str, list[Path]]:
    """The files of each split, by the beginnings of their names; where none begins with train or test, all are training files."""
    if path.is_file():
        return {"train": [path]}
    files = sorted(file for file in path.rglob("*.parquet") if not any(part.startswith(".") for part in file.relative_to(path).parts))
    if not files:
        raise ImageError(f"folder {path} holds no .parquet file: expected train*.parquet and test*.parquet")
    train, test = _first_beginning(files, TRAIN), _first_beginning(files, TEST)
    if test and not train:
        raise ImageError(
            f"folder {path} holds test files ({test[0].name}) but no train*.parquet: {', '.join(file.name for file in files[:10])}"
        )
    return {"train": train or files} | ({"test": test} if test else {})


def _first_beginning(files: list[Path], beginnings: tuple[str, ...]) -> list[Path]:
    groups = ([file for file in files if file.name.lower().startswith(beginning)] for beginning in beginnings)
    return next((group for group in groups if group), [])


def _query(files: list[Path], columns: str) -> duckdb.DuckDBPyConnection:
    """Run a query over the files in order; raises ImageError for what is not a Parquet file."""
    escaped = [glob.escape(str(file)) for file in files]  # DuckDB would read [ and * in a name as a pattern
    with _reading(files):
        return duckdb.connect().execute(f"SELECT {columns} FROM read_parquet(?, filename=true, file_row_number=true)", [escaped])


@contextlib.contextmanager
def _reading(files: list[Path]) -> Iterator[None]:
    try:
        yield
    except duckdb.Error as error:
        raise ImageError(f"cannot read {files[0]}{' and others' if len(files) > 1 else ''}: {str(error).splitlines()[0]}") from error


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _table(file: Path) -> Table:
    columns = {row[0]: str(row[1]) for row in _query([file], "* EXCLUDE (filename, file_row_number)").description or []}
    query = "SELECT decode(value) FROM parquet_kv_metadata(?) WHERE decode(key) = 'huggingface'"
    text = duckdb.connect().execute(query, [glob.escape(str(file))]).fetchone()
    features = json.loads(text[0]).get("info", {}).get("features", {}) if text else {}
    return Table(columns, features)


def _image_column(table: Table, asked: str | None) -> str:
    if asked is not None:
        return _existing(table, asked, "image_column")
    fitting = table.of_feature("Image") or [name for name, kind in table.types.items() if kind == "BLOB" or _is_image_struct(kind)]
    return _only(table, fitting, "image_column", "encoded images")


def _is_image_struct(kind: str) -> bool:
    return kind.startswith("STRUCT") and "bytes BLOB" in kind.replace('"', "")


def _label_column(table: Table, asked: str | None) -> str:
    if asked is not None:
        return _existing(table, asked, "label_column")
    fitting = table.of_feature("ClassLabel") or [name for name, kind in table.types.items() if kind.startswith(LABEL_TYPES)]
    usual = [name for name in USUAL_LABELS if name in fitting]
    return _only(table, usual[:1] or fitting, "label_column", "labels")


def _existing(table: Table, name: str, setting: str) -> str:
    if name not in table.types:
        raise UnknownNameError(f"{setting}: there is no column '{name}'.{nearest(name, table.types)} There are: {', '.join(table.types)}.")
    return name


def _only(table: Table, fitting: list[str], setting: str, what: str) -> str:
    if len(fitting) == 1:
        return fitting[0]
    columns = ", ".join(f"{name} ({kind})" for name, kind in table.types.items())
    found = f"several columns could hold {what} ({', '.join(fitting)})" if fitting else f"no column looks like {what}"
    raise ImageError(f"{found}: set `{setting}`. The columns are: {columns}.")


def _class_names(table: Table, label: str) -> list[str] | None:
    feature = table.features.get(label)
    return feature.get("names") if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" else None


def _labels_and_ids(files: list[Path], label: str, root: Path) -> tuple[list[Any], np.ndarray]:
    with _reading(files):
        rows = _query(files, f"{_quoted(label)}, filename, file_row_number").fetchall()
    ids = {str(file): str(file.relative_to(root)) for file in files}
    return [UNLABELLED if row[0] is None else row[0] for row in rows], np.array([f"{ids[row[1]]}:{row[2]}" for row in rows])


def _batches(files: list[Path], expression: str) -> Iterator[list[bytes | None]]:
    result = _query(files, expression)
    while rows := _next_rows(result, files):
        yield [row[0] for row in rows]


def _next_rows(result: duckdb.DuckDBPyConnection, files: list[Path]) -> list[Any]:
    with _reading(files):  # a damaged page is met only here
        return result.fetchmany(BATCH)
