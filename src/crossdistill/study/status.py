"""How far a study is, from its folder alone: on this machine, or on another that sees the same folder."""

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from crossdistill.compare import read_table
from crossdistill.compare.observed import AVERAGE
from crossdistill.core.errors import StudyError
from crossdistill.core.published import published
from crossdistill.core.records import ResultRow
from crossdistill.core.store import cache_folder, is_locked, read_json
from crossdistill.study.folder import PLAN_FILE, WEIGHTS_FOLDER, read_driver, read_failures

SHARED = {"teacher": "teachers", "warm_up": "warm_ups"}
"""Kinds of task that work in the store, and in which folder of it."""

FRESH_S = 120.0
"""Where locks cannot tell, a task is at work as long as it wrote something within so many seconds, or within two of its epochs."""

State = Literal["done", "observing", "running", "started", "failed", "waiting", "not needed"]


@dataclass(frozen=True)
class TaskStatus:
    """One training of a study, with what is observed of its network."""

    kind: str  # teacher, warm_up, student or ceiling
    label: str
    run: str
    state: State
    epochs: int
    of_epochs: int | None  # None: the plan does not say, since an earlier version wrote it
    validation_accuracy: float | None
    seconds: float  # of its epochs so far, as its log has them
    seconds_left: float | None = None  # None: nothing like it is known yet
    reason: str | None = None  # of a failure, or what is still to be done

    @property
    def subject(self) -> str:
        """What the runs of all seeds have in common."""
        return self.label.rpartition(", seed ")[0]


def study_status(folder: Path, store: Path | None = None) -> list[TaskStatus]:
    """One row a task, in the order of the plan.

    running, observing: a process is at it now; started: it was stopped on the way. Ceilings wait until all networks are observed;
    those of levels that a network passes are not needed. `store` is by default the one of the process that ran the study last.
    """
    if not (folder / PLAN_FILE).exists():
        if (folder / WEIGHTS_FOLDER / PLAN_FILE).exists():
            raise StudyError(f"{folder} chooses weights first: `crossdistill study status {folder / WEIGHTS_FOLDER}` shows how far that is")
        raise StudyError(f"{folder} holds no study (no {PLAN_FILE}): give the folder that was --out of `crossdistill study run`")
    plan, looker = read_json(folder / PLAN_FILE), _Looker.at(folder, store)
    files = {} if _is_slim(folder) else plan.get("observations", {})
    rows = [looker.row(task, list(files.values())) for task in plan["tasks"]]
    ceilings = plan.get("ceilings", ())
    made = [(task, looker.row(task, [file for name, file in files.items() if name == task["probe"]])) for task in ceilings]
    gates = _signal_gates(folder) if ceilings else {}
    trained = {task["probe"] for task, row in made if row.state == "done"}
    return rows + [_ceiling_row(row, _is_decided(task, gates, task["probe"] in trained)) for task, row in made]


@dataclass(frozen=True)
class _Looker:
    """Looks at the tasks of one study."""

    folder: Path
    store: Path
    failures: dict[str, str]
    locks_tell: bool  # whether a lock that is free says that nobody is at work

    @classmethod
    def at(cls, folder: Path, store: Path | None) -> "_Looker":
        """Some shared file systems keep locks to one machine: a lock of the driver here says nothing of workers that Ray has elsewhere."""
        driver = read_driver(folder)
        own = store or (driver.store if driver and driver.store.is_dir() else cache_folder())
        here = driver is None or (driver.is_here and (driver.executor == "local" or not is_locked(folder)))
        return cls(folder, own, read_failures(folder), here)

    def row(self, task: dict[str, Any], observations: list[str]) -> TaskStatus:
        kind, run, label = task["kind"], task["run"], task["label"]
        work = self.store / SHARED[kind] / run if kind in SHARED else self.folder / "runs" / run
        own, seen = self.folder / ("warm_ups" if kind == "warm_up" else "runs") / run, self.folder / "observations" / run
        log = _log(work)
        last = log[-1] if log else {}
        row = TaskStatus(
            kind, label, run, "waiting", len(log), task.get("epochs"), last.get("validation_accuracy"), sum(row["seconds"] for row in log)
        )
        failed, patience = label in self.failures, max(FRESH_S, 2 * last.get("seconds", 0.0))
        if is_locked(work) or (not failed and self._wrote_lately(work, patience, "log.jsonl", "checkpoint", done="record.json")):
            return replace(row, state="running")
        if failed:  # noted where it ended, however lately it wrote
            return replace(row, state="failed", reason=self.failures[label].removeprefix(f"{label}: "), validation_accuracy=None)
        if not (work / "record.json").exists() and not (own / "record.json").exists():
            return replace(row, state="started" if log else "waiting")
        try:
            row = _recorded(row, read_json((own if (own / "record.json").exists() else work) / "record.json"))
        except StudyError as damage:
            return replace(row, state="failed", reason=str(damage), validation_accuracy=None)
        missing = [file for file in observations if not (seen / file).exists()] if kind != "warm_up" else []
        if missing and (told := published(self.folder, run)):
            missing = [file for file in missing if file not in told.files]
        if not (own / "record.json").exists() and kind == "teacher":
            return replace(row, state="waiting", reason="trained already, and still to be observed")
        if is_locked(seen) or self._wrote_lately(seen, FRESH_S, "", done=observations[-1] if observations else ""):
            return replace(row, state="observing")
        if missing:
            return replace(row, state="started", reason="trained, and still to be observed")
        return replace(row, state="done", seconds_left=0.0)

    def _wrote_lately(self, folder: Path, patience: float, *written: str, done: str) -> bool:
        """Whether a process may be at work in `folder` where locks cannot tell: it wrote something not long ago, and is not done."""
        if self.locks_tell or (folder / done).exists():
            return False
        times = [path.stat().st_mtime for name in written if (path := folder / name).exists()]
        return bool(times) and time.time() - max(times) < patience


def _recorded(row: TaskStatus, record: Any) -> TaskStatus:
    """The row of a task with its record: one of a teacher from another study's store has no log here."""
    if not isinstance(record, dict):
        raise StudyError("its record.json is damaged: delete it, and the same command makes it again")
    history = record.get("history", ())
    accuracy = record.get("estimates", {}).get("validation_accuracy", {}).get("value")
    seconds = sum(epoch["seconds"] for epoch in history) or row.seconds
    return replace(row, epochs=len(history) or row.epochs, validation_accuracy=accuracy, seconds=seconds)


def _log(work: Path) -> list[dict[str, Any]]:
    """The epochs of a training so far; what is not whole yet, as another machine may see it, is left for the next look."""
    try:
        return [json.loads(line) for line in (work / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError):
        return []


def _is_slim(folder: Path) -> bool:
    """Whether only records and tables were kept of a study that was finished."""
    return (folder / "results.parquet").exists() and not (folder / "observations").exists()


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


def _ceiling_row(row: TaskStatus, decided: bool) -> TaskStatus:
    if row.state != "waiting":
        return row
    return replace(row, state="not needed") if decided else replace(row, reason="trained only if no network passes the probe's signal gate")
