"""From what is on disk to the tables: results, inheritance, transfer, similarity, predictions. Nothing here runs a network."""

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np

from crossdistill.compare import (
    Contrast,
    Gates,
    ObservedRun,
    Pair,
    gain_table,
    inheritance_table,
    results_table,
    similarity_table,
    transfer_table,
    write_table,
)
from crossdistill.core.config import ContrastConfig
from crossdistill.core.errors import StudyError
from crossdistill.core.observations import Measurement, Stored, stored_answers
from crossdistill.core.records import GainRow, InheritanceRow, ResultRow, RunRecord, SimilarityRow, TransferRow, subject
from crossdistill.core.store import write_atomically
from crossdistill.core.types import Observations
from crossdistill.study.inherited_images import write_gains
from crossdistill.study.instruments import instrument_files, measured
from crossdistill.study.plan import Plan
from crossdistill.study.workshop import Workshop


def observed_run(out: Path, run: str, files: Mapping[str, str], probed: np.ndarray | None = None) -> ObservedRun | None:
    """A finished run with what was observed of it, from `files` ({test set: file name}) alone; None where it is not finished.

    Answers are read whenever they are asked for: those of a study may not fit in memory together.
    """
    folder = out / "runs" / run
    if not (folder / "record.json").exists():
        return None
    paths = {probe: out / "observations" / run / file for probe, file in files.items()}
    return ObservedRun(RunRecord.load(folder), stored_answers({probe: path for probe, path in paths.items() if path.exists()}), probed)


def write_tables(shop: Workshop, plan: Plan, contrasts: Iterable[ContrastConfig], runs: Iterable[str]) -> None:
    """Write results, inheritance, transfer, similarity and gains of the finished runs, as .parquet files in the study's folder; and
    the pictures of what students got from their teachers.

    The reason why the plan leaves a method out stands beside its declared contrasts.
    """
    out, instruments = shop.out, instrument_files(shop.config, shop.splits.test)
    seen = (observed_run(out, name, shop.observation_files, shop.probed_rows) for name in runs)
    observed = [replace(run, measured=whole(measured(out, run.record.run, instruments), out)) for run in seen if run is not None]
    pairs, gates = compared_pairs(plan), Gates.of(observed)
    results = results_table(observed, pairs, gates)
    write_table(results, out / "results.parquet", ResultRow)
    inheritance = inheritance_table(results, observed, pairs, [_contrast(declared) for declared in contrasts], gates)
    write_table(_with_what_is_left_out(inheritance, plan.left_out), out / "inheritance.parquet", InheritanceRow)
    write_table(transfer_table(results, observed, _kept(pairs, plan), gates), out / "transfer.parquet", TransferRow)
    write_table(similarity_table(observed, pairs), out / "similarity.parquet", SimilarityRow)
    write_table(gain_table(observed, pairs), out / "gains.parquet", GainRow)
    write_gains(shop, observed, pairs)


def whole(stored: Stored[str, Measurement], out: Path) -> Stored[str, Measurement]:
    """What instruments gave; of a damaged file the tables say that it is, where its figures would stand, and do without it."""

    def read(name: str) -> Measurement:
        try:
            return stored[name]
        except StudyError as error:
            return str(error).replace(f"{out}/", "")  # the page may be read elsewhere

    return Stored(stored, read)


def compared_pairs(plan: Plan) -> list[Pair]:
    """The pairs of a study as the tables need them: their methods, and which of these change the student or admit no control teacher."""
    pairs = []
    for index, pair in enumerate(plan.config.pairs):
        subjects = {method.arm: subject(method.arm, pair.teacher, pair.student) for method in pair.methods}
        changed = frozenset(method.arm for method in pair.methods if method.changes_student)
        no_control = {arm: plan.no_control[subject] for arm, subject in subjects.items() if subject in plan.no_control}
        pairs.append(Pair(index, pair.teacher, pair.student, tuple(subjects), pair.control_teacher, changed, no_control))
    return pairs


def _kept(pairs: Iterable[Pair], plan: Plan) -> list[Pair]:
    """The pairs without the methods that the plan leaves out: nothing was promised of their transfer."""
    return [
        replace(pair, methods=tuple(arm for arm in pair.methods if subject(arm, pair.teacher, pair.student) not in plan.left_out))
        for pair in pairs
    ]


def _contrast(declared: ContrastConfig) -> Contrast:
    assert declared.against is not None  # resolved where it was stamped
    return Contrast(declared.pair, declared.method, declared.probe, declared.against)


def _with_what_is_left_out(rows: Iterable[InheritanceRow], left_out: Mapping[str, str]) -> list[InheritanceRow]:
    """The rows, those of arms that were left out with the reason: declared contrasts stay, since they were promised, others go."""
    found = []
    for row in rows:
        reason = left_out.get(subject(row.method, row.teacher, row.student))
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
