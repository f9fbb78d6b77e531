"""From what is on disk to the tables: results, inheritance, predictions. Nothing here trains or runs a network."""

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import duckdb
import numpy as np

from crossdistill.compare import Contrast, ObservedRun, Pair, inheritance_table, results_table, write_table
from crossdistill.core.config import ContrastConfig, StudyConfig
from crossdistill.core.observations import load_observations
from crossdistill.core.records import InheritanceRow, ResultRow, RunRecord
from crossdistill.core.store import write_atomically
from crossdistill.core.types import Observations

Answers = dict[tuple[str, str, int], Observations]


def observed_run(out: Path, run: str, files: Mapping[str, str], probed: np.ndarray | None = None) -> ObservedRun | None:
    """A finished run with what was observed of it, from `files` ({test set: file name}) alone; None where it is not finished."""
    folder = out / "runs" / run
    if not (folder / "record.json").exists():
        return None
    answers: Answers = {}
    for probe, file in files.items():
        if (path := out / "observations" / run / file).exists():
            answers |= {(probe, level, draw): seen for (level, draw), seen in load_observations(path).items()}
    return ObservedRun(RunRecord.load(folder), answers, probed)


def write_tables(
    out: Path, config: StudyConfig, contrasts: Iterable[ContrastConfig], runs: Iterable[str], files: Mapping[str, str], probed: np.ndarray,
    left_out: Mapping[str, str] = {},
) -> None:  # fmt: skip
    """Write results.parquet and inheritance.parquet of the finished runs; `probed` are the rows of the test split that probes show.

    `left_out` are the arms that the plan leaves out, with the reason, which stands beside their declared contrasts.
    """
    observed = [run for name in runs if (run := observed_run(out, name, files, probed)) is not None]
    pairs = [Pair(i, pair.teacher, pair.student, tuple(m.arm for m in pair.methods)) for i, pair in enumerate(config.pairs)]
    primary = [Contrast(contrast.pair, contrast.method, contrast.probe) for contrast in contrasts]
    results = results_table(observed, pairs)
    write_table(results, out / "results.parquet", ResultRow)
    inheritance = _with_what_is_left_out(inheritance_table(results, observed, pairs, primary), left_out)
    write_table(inheritance, out / "inheritance.parquet", InheritanceRow)


def _with_what_is_left_out(rows: Iterable[InheritanceRow], left_out: Mapping[str, str]) -> list[InheritanceRow]:
    """The rows, those of arms that were left out with the reason: declared contrasts stay, since they were promised, others go."""
    found = []
    for row in rows:
        reason = left_out.get(f"{row.method}: {row.teacher} -> {row.student}")
        if reason is None:
            found.append(row)
        elif row.role == "primary":
            found.append(row.model_copy(update={"verdict": "not_measurable", "reason": f"the method was left out: {reason}"}))
    return found


def predictions_file(out: Path, run: str) -> Path:
    return out / "predictions" / f"{run}.parquet"


def write_predictions(out: Path, run: str, files: Mapping[str, str]) -> None:
    """Write predictions/RUN.parquet: one row for each image of each test set, for anyone's SQL."""
    observed = observed_run(out, run, files)
    assert observed is not None
    parts = [_predictions(place, seen) for place, seen in observed.observations.items()]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    with tempfile.TemporaryDirectory() as aside, duckdb.connect() as connection:
        path = Path(aside) / "predictions.parquet"
        connection.register("columns", columns)
        connection.sql("SELECT * FROM columns").write_parquet(str(path))
        write_atomically(predictions_file(out, run), lambda file: file.write(path.read_bytes()))


def _predictions(place: tuple[str, str, int], seen: Observations) -> dict[str, np.ndarray]:
    probe, level, draw = place
    n = len(seen.labels)
    confidence = 1 / np.exp(seen.logits - seen.logits.max(axis=1, keepdims=True)).sum(axis=1)
    return {
        "probe": np.full(n, probe),
        "level": np.full(n, level),
        "draw": np.full(n, draw),
        "index": seen.index,
        "label": seen.labels,
        "decision": seen.decisions,
        "confidence": confidence,
    }
