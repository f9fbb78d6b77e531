"""How far a study is, from its folder alone."""

import json
from pathlib import Path
from typing import Any

from crossdistill.compare import read_table
from crossdistill.compare.observed import AVERAGE
from crossdistill.core.errors import StudyError
from crossdistill.core.records import ResultRow
from crossdistill.core.store import cache_folder, is_locked, read_json
from crossdistill.study.folder import PLAN_FILE, read_failures

SHARED = {"teacher": "teachers", "warm_up": "warm_ups"}
"""Kinds of task that work in the store, and in which folder of it."""


def study_status(folder: Path, store: Path | None = None) -> list[dict[str, Any]]:
    """One row a task: label, state, epochs done, and the reason of a failure.

    States: done, failed, running (a process is at it now), started (stopped on the way), waiting, not needed.
    Ceilings wait until all networks are observed; those of levels that a network passes are not needed.
    """
    if not (folder / PLAN_FILE).exists():
        raise StudyError(f"{folder} holds no study (no {PLAN_FILE}): give the folder that was --out of `crossdistill study run`")
    failures = read_failures(folder)
    plan, store = read_json(folder / PLAN_FILE), store or cache_folder()
    rows = [_row(folder, store, task, failures) for task in plan["tasks"]]
    ceilings = plan.get("ceilings", ())
    made = [(task, _row(folder, store, task, failures)) for task in ceilings]
    gates = _signal_gates(folder) if ceilings else {}
    trained = {task["probe"] for task, row in made if row["state"] == "done"}
    return rows + [_ceiling_row(row, _is_decided(task, gates, task["probe"] in trained)) for task, row in made]


def _signal_gates(folder: Path) -> dict[tuple[str, str], str]:
    """{(probe, level): what became of its signal gate}, single levels only, as far as results have been written."""
    path = folder / "results.parquet"
    rows = read_table(path, ResultRow) if path.exists() else []
    return {(row.probe, row.level): row.signal_gate for row in rows if row.signal_gate and row.level != AVERAGE}


def _is_decided(ceiling: dict[str, Any], gates: dict[tuple[str, str], str], trained: bool) -> bool:
    """Whether no network need be trained: the levels have passed, or failed without a training, since no network could pass.

    Where a training failed to pass a level (`trained`), that of the next student may still do so.
    """
    level = ceiling.get("level")
    found = [gate for (probe, name), gate in gates.items() if probe == ceiling["probe"] and level in (None, name)]
    return bool(found) and all(gate == "passed" or (gate == "failed" and not trained) for gate in found)


def _ceiling_row(row: dict[str, Any], decided: bool) -> dict[str, Any]:
    if row["state"] != "waiting":
        return row
    return {**row, "state": "not needed"} if decided else {**row, "reason": "trained only if no network passes the probe's signal gate"}


def _row(folder: Path, store: Path, task: dict[str, Any], failures: dict[str, str]) -> dict[str, Any]:
    run = folder / "runs" / task["run"]
    work = store / SHARED[task["kind"]] / task["run"] if task["kind"] in SHARED else run
    epochs = len((work / "log.jsonl").read_text().splitlines()) if (work / "log.jsonl").exists() else 0
    row = {"label": task["label"], "run": task["run"], "epochs": epochs, "validation_accuracy": None, "reason": None}
    record_file = (folder / "warm_ups" / task["run"] if task["kind"] == "warm_up" else run) / "record.json"
    if record_file.exists():
        estimates = read_json(record_file).get("estimates", {})
        return {**row, "state": "done", "validation_accuracy": estimates.get("validation_accuracy", {}).get("value")}
    if epochs:
        row["validation_accuracy"] = json.loads((work / "log.jsonl").read_text().splitlines()[-1])["validation_accuracy"]
    if is_locked(work):
        return {**row, "state": "running"}
    if task["label"] in failures:
        return {**row, "state": "failed", "reason": failures[task["label"]], "validation_accuracy": None}
    return {**row, "state": "started" if epochs else "waiting"}
