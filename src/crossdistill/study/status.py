"""How far a study is, from its folder alone."""

import json
from pathlib import Path
from typing import Any

from crossdistill.core.errors import StudyError
from crossdistill.core.store import cache_folder, read_json
from crossdistill.study.folder import PLAN_FILE, read_failures

SHARED = {"teacher": "teachers", "warm_up": "warm_ups"}
"""Kinds of task that work in the store, and in which folder of it."""


def study_status(folder: Path, store: Path | None = None) -> list[dict[str, Any]]:
    """One row a task: label, state (done, failed, started, waiting), epochs done, and the reason of a failure."""
    if not (folder / PLAN_FILE).exists():
        raise StudyError(f"{folder} holds no study (no {PLAN_FILE}): give the folder that was --out of `crossdistill study run`")
    failures = read_failures(folder)
    return [_row(folder, store or cache_folder(), task, failures) for task in read_json(folder / PLAN_FILE)["tasks"]]


def _row(folder: Path, store: Path, task: dict[str, Any], failures: dict[str, str]) -> dict[str, Any]:
    run = folder / "runs" / task["run"]
    work = store / SHARED[task["kind"]] / task["run"] if task["kind"] in SHARED else run
    epochs = len((work / "log.jsonl").read_text().splitlines()) if (work / "log.jsonl").exists() else 0
    row = {"label": task["label"], "run": task["run"], "epochs": epochs, "validation_accuracy": None, "reason": None}
    record_file = (folder / "warm_ups" / task["run"] if task["kind"] == "warm_up" else run) / "record.json"
    if record_file.exists():
        estimates = read_json(record_file).get("estimates", {})
        return {**row, "state": "done", "validation_accuracy": estimates.get("validation_accuracy", {}).get("value")}
    if task["label"] in failures:
        return {**row, "state": "failed", "reason": failures[task["label"]]}
    if epochs:
        last = json.loads((work / "log.jsonl").read_text().splitlines()[-1])
        return {**row, "state": "started", "validation_accuracy": last["validation_accuracy"]}
    return {**row, "state": "waiting"}
