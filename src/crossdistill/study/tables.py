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
from crossdistill.compare.kept import changed_runs, with_kept_results, with_kept_similarity
from crossdistill.compare.similarity import FEATURES
from crossdistill.core.config import ContrastConfig
from crossdistill.core.errors import StudyError
from crossdistill.core.observations import Measurement, Stored
from crossdistill.core.published import known_answers, without_logits
from crossdistill.core.records import GainRow, InheritanceRow, ResultRow, RunRecord, SimilarityRow, TransferRow, subject
from crossdistill.core.store import write_atomically
from crossdistill.core.types import Observations
from crossdistill.study.earlier import earlier_tables, set_tables_aside
from crossdistill.study.inherited_images import write_gains
from crossdistill.study.instruments import instrument_files, measured
from crossdistill.study.plan import Plan
from crossdistill.study.workshop import Workshop


def observed_run(out: Path, run: str, files: Mapping[str, str], probed: np.ndarray | None = None) -> ObservedRun | None:
    """A finished run with what was observed of it, from `files` ({test set: file name}) alone; None where it is not finished.

    Answers are read whenever they are asked for: those of a study may not fit in memory together. Where decisions alone were
    published of a test set, these are read.
    """
    folder = out / "runs" / run
    if not (folder / "record.json").exists():
        return None
    return ObservedRun(RunRecord.load(folder), known_answers(out, run, files), probed)


def write_tables(shop: Workshop, plan: Plan, contrasts: Iterable[ContrastConfig], runs: Iterable[str]) -> None:
    """Write results, inheritance, transfer, similarity and gains of the finished runs, as .parquet files in the study's folder; and
    the pictures of what students got from their teachers.

    The reason why the plan leaves a method out stands beside its declared contrasts. Of runs whose decisions alone are here, figures
    of their logits and of what instruments gave are taken from the tables that stood in the folder before.
    """
    out, instruments = shop.out, instrument_files(shop.config, shop.splits.test)
    seen = (observed_run(out, name, shop.observation_files, shop.probed_rows) for name in runs)
    observed = [replace(run, measured=whole(measured(out, run.record.run, instruments), out)) for run in seen if run is not None]
    pairs, gates = compared_pairs(plan), Gates.of(observed)
    results, similarity = results_table(observed, pairs, gates), similarity_table(observed, pairs)
    set_tables_aside(out)
    if earlier := earlier_tables(out):
        bare = {run.record.run for run in observed if without_logits(out, run.record.run, shop.observation_files.values())}
        changed = changed_runs(results, earlier.results)
        results = with_kept_results(results, earlier.results, observed, bare=bare, instruments=instruments)
        if FEATURES in instruments:
            similarity = with_kept_similarity(similarity, earlier.similarity, observed, pairs, changed)
    write_table(results, out / "results.parquet", ResultRow)
    inheritance = inheritance_table(results, observed, pairs, [_contrast(declared) for declared in contrasts], gates)
    write_table(_with_what_is_left_out(inheritance, plan.left_out), out / "inheritance.parquet", InheritanceRow)
    write_table(transfer_table(results, observed, _kept(pairs, plan), gates), out / "transfer.parquet", TransferRow)
    write_table(similarity, out / "similarity.parquet", SimilarityRow)
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
        # Of decisions alone there is no confidence, of which NumPy says NaN.
        connection.sql("SELECT * REPLACE (nullif(confidence, 'nan'::FLOAT) AS confidence) FROM columns").write_parquet(str(path))
        write_atomically(predictions_file(out, run), lambda file: file.write(path.read_bytes()))


def _predictions(place: tuple[str, str, int], seen: Observations) -> dict[str, np.ndarray]:
    probe, level, draw = place
    n = len(seen.labels)
    if seen.decided is None:
        confidence = 1 / np.exp(seen.logits - seen.logits.max(axis=1, keepdims=True)).sum(axis=1)
    else:
        confidence = np.full(n, np.nan, np.float32)
    return {
        "probe": np.full(n, probe),
        "level": np.full(n, level),
        "draw": np.full(n, draw),
        "index": seen.index,
        "label": seen.labels,
        "decision": seen.decisions,
        "confidence": confidence,
    }
