"""The tables that were published with decisions: they hold figures that cannot be made again from decisions, and are kept beside them."""

from collections.abc import Hashable
from pathlib import Path
from typing import NamedTuple, TypeVar

import duckdb

from crossdistill.compare import read_table
from crossdistill.core.published import DECISIONS
from crossdistill.core.records import ResultRow, Row, SimilarityRow
from crossdistill.core.store import write_atomically

RESULTS, SIMILARITY = "results.parquet", "similarity.parquet"

R = TypeVar("R", bound=Row)


class Earlier(NamedTuple):
    """The rows of the tables as they were published, and those that a study which went on from there added to them."""

    results: list[ResultRow]
    similarity: list[SimilarityRow]


def earlier_tables(out: Path) -> Earlier | None:
    """The earlier tables of a study's folder; None where no decisions were published there, so that nothing is lost with them."""
    if not (out / DECISIONS).is_dir():
        return None
    return Earlier(
        _rows(out, RESULTS, ResultRow, ("run", "probe", "level", "metric", "teacher_run")),
        _rows(out, SIMILARITY, SimilarityRow, ("a", "b", "layer_a", "layer_b")),
    )


def set_tables_aside(out: Path) -> None:
    """Keep the published tables, once, before others are written: those do not hold the rows of a run that is just being made again."""
    if not (out / DECISIONS).is_dir():
        return
    for name in (RESULTS, SIMILARITY):
        if (out / name).exists() and not (_folder(out) / name).exists():
            content = (out / name).read_bytes()
            write_atomically(_folder(out) / name, lambda file, content=content: file.write(content))


def known_runs(out: Path) -> set[str]:
    """The runs of which there are earlier figures."""
    if not (out / DECISIONS).is_dir():
        return set()
    with duckdb.connect() as database:
        found = [database.execute("SELECT DISTINCT run FROM read_parquet(?)", [str(path)]).fetchall() for path in _files(out, RESULTS)]
    return {run for rows in found for (run,) in rows}


def _rows(out: Path, name: str, row_type: type[R], key: tuple[str, ...]) -> list[R]:
    """Those that were published first, then those of other runs: a later publication may have come into the same folder."""
    rows: dict[tuple[Hashable, ...], R] = {}
    for path in _files(out, name):
        for row in read_table(path, row_type):
            rows.setdefault(tuple(getattr(row, field) for field in key), row)
    return list(rows.values())


def _files(out: Path, name: str) -> list[Path]:
    return [path for path in (_folder(out) / name, out / name) if path.exists()]


def _folder(out: Path) -> Path:
    return out / DECISIONS / "tables"
