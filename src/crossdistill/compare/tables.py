"""The tables as Parquet, through duckdb: every column with its SQL type, also where all its values are missing."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from crossdistill.core.errors import StudyError
from crossdistill.core.records import Row
from crossdistill.core.store import write_atomically

R = TypeVar("R", bound=Row)

SQL_TYPES = {str: "VARCHAR", int: "BIGINT", float: "DOUBLE", bool: "BOOLEAN"}


def write_table(rows: Sequence[R], path: Path, row_type: type[R] | None = None) -> None:
    """Write rows as one Parquet file, atomically. An empty table needs its `row_type`, for its columns.

    Raises StudyError where the file cannot be written, ValueError for an empty table of unknown type.
    """
    if row_type is None and not rows:
        raise ValueError("an empty table has no columns: pass row_type")
    columns = _columns(row_type or type(rows[0]))
    query = ", ".join(f'unnest(${place}::{sql}[]) AS "{name}"' for place, (name, sql) in enumerate(columns.items(), 1))
    values = [[getattr(row, name) for row in rows] for name in columns]
    import duckdb

    with tempfile.TemporaryDirectory() as folder, duckdb.connect() as database:
        aside = Path(folder) / "table.parquet"
        database.sql(f"SELECT {query}", params=values).write_parquet(str(aside))
        write_atomically(path, lambda file: file.write(aside.read_bytes()))


def read_table(path: Path, row_type: type[R]) -> list[R]:
    """The rows of a table that `write_table` wrote. Raises StudyError where it is missing, damaged or of another kind."""
    import duckdb
    from pydantic import ValidationError

    if not Path(path).is_file():
        raise StudyError(f"there is no table {path}: run the study first")
    try:
        with duckdb.connect() as database:
            table = database.sql("SELECT * FROM read_parquet($1)", params=[str(path)])
            names = table.columns
            return [row_type(**dict(zip(names, values, strict=True))) for values in table.fetchall()]
    except (duckdb.Error, ValidationError) as error:
        first = str(error).split("\n", 1)[0]
        raise StudyError(f"{path} is damaged or of another version ({first}). Delete it, and the same command makes it again.") from error


def _columns(row_type: type[Row]) -> dict[str, str]:
    """{column: SQL type} of a row type. Raises TypeError for a field that no column can hold."""
    return {name: _sql_type(name, field.annotation) for name, field in row_type.model_fields.items()}


def _sql_type(name: str, annotation: Any) -> str:
    """The SQL type of `int`, `int | None`, `Literal["a", "b"]` and so on."""
    plain = get_origin(annotation) in (Literal, Union, UnionType)
    kinds = {part if isinstance(part, type) else type(part) for part in (get_args(annotation) if plain else (annotation,))} - {NoneType}
    if len(kinds) != 1 or not kinds <= SQL_TYPES.keys():
        raise TypeError(f"column '{name}' must hold one plain type, got {annotation}")
    return SQL_TYPES[kinds.pop()]
