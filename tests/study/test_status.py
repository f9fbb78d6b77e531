"""States and times of a study, read from folders that hold what trainings leave."""

import json
import os
import pty
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crossdistill.core.store import locked, write_json
from crossdistill.study.folder import DRIVER_FILE, write_driver, write_failures
from crossdistill.study.remaining import about_left, seconds_left, summary, with_times
from crossdistill.study.status import FRESH_S, TaskStatus, study_status

TEACHER, FIRST, SECOND = "teacher: vit, seed 0", "kd: vit -> cnn, seed 0", "kd: vit -> cnn, seed 1"
RUNS = {TEACHER: "teacher-a", FIRST: "kd-b", SECOND: "kd-c"}
FILES = {"clean": "clean.npz", "scramble": "scramble-1.npz"}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A study of one teacher and two students of three epochs, of which nothing is done, run on this machine."""
    tasks = [{"kind": run.split("-")[0].replace("kd", "student"), "label": label, "run": run, "epochs": 3} for label, run in RUNS.items()]
    write_json(tmp_path / "out" / "plan.json", {"tasks": tasks, "ceilings": [], "observations": FILES})
    (tmp_path / "out" / "observations").mkdir()
    write_driver(tmp_path / "out", tmp_path / "store", "local")
    (tmp_path / "store").mkdir()
    return tmp_path / "out"


def work(out: Path, label: str) -> Path:
    return (out.parent / "store" / "teachers" if label == TEACHER else out / "runs") / RUNS[label]


def log(out: Path, label: str, epochs: int, seconds: float = 10.0) -> None:
    work(out, label).mkdir(parents=True, exist_ok=True)
    rows = [{"epoch": epoch + 1, "validation_accuracy": 0.5 + epoch / 10, "seconds": seconds} for epoch in range(epochs)]
    (work(out, label) / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def record(out: Path, label: str, epochs: int = 3, seconds: float = 10.0) -> None:
    log(out, label, epochs, seconds)
    history = [{"seconds": seconds}] * epochs
    write_json(out / "runs" / RUNS[label] / "record.json", {"estimates": {"validation_accuracy": {"value": 0.9}}, "history": history})


def observed(out: Path, label: str, *sets: str) -> None:
    folder = out / "observations" / RUNS[label]
    folder.mkdir(exist_ok=True)
    for name in sets or FILES:
        (folder / FILES[name]).write_bytes(b"")


def of(out: Path, label: str) -> TaskStatus:
    return next(row for row in with_times(study_status(out), out) if row.label == label)


def elsewhere(out: Path) -> None:
    """As if the study had been run on another machine, whose locks are not seen here."""
    write_json(out / DRIVER_FILE, {"host": "another", "store": str(out.parent / "store"), "executor": "ray"})


def aged(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_nothing_is_done_at_first(out: Path) -> None:
    assert [(row.state, row.epochs, row.of_epochs) for row in study_status(out)] == [("waiting", 0, 3)] * 3


def test_a_stopped_training_has_started_and_a_held_one_runs(out: Path) -> None:
    log(out, FIRST, 2)
    assert (of(out, FIRST).state, of(out, FIRST).epochs, of(out, FIRST).validation_accuracy) == ("started", 2, 0.6)
    with locked(work(out, FIRST), "held"):
        assert of(out, FIRST).state == "running"


def test_a_teacher_is_looked_at_in_the_store_that_the_study_was_run_with(out: Path, tmp_path: Path) -> None:
    log(out, TEACHER, 1)
    with locked(work(out, TEACHER), "held"):
        assert of(out, TEACHER).state == "running"
        assert study_status(out, tmp_path / "another")[0].state == "waiting"
    write_json(work(out, TEACHER) / "record.json", {"estimates": {}, "history": []})
    assert (of(out, TEACHER).state, of(out, TEACHER).reason) == ("waiting", "trained already, and still to be observed")


def test_nothing_is_done_before_it_is_observed(out: Path) -> None:
    record(out, FIRST)
    assert (of(out, FIRST).state, of(out, FIRST).reason) == ("started", "trained, and still to be observed")
    observed(out, FIRST, "clean")
    assert of(out, FIRST).state == "started"
    with locked(out / "observations" / RUNS[FIRST], "held"):
        assert of(out, FIRST).state == "observing"
    observed(out, FIRST)
    assert (of(out, FIRST).state, of(out, FIRST).validation_accuracy, of(out, FIRST).seconds) == ("done", 0.9, 30.0)


def test_a_study_of_which_records_and_tables_were_kept_is_done(out: Path) -> None:
    record(out, FIRST)
    (out / "observations").rmdir()
    (out / "results.parquet").write_bytes(b"")
    assert of(out, FIRST).state == "done"


def test_a_failure_has_its_reason_without_the_label_again(out: Path) -> None:
    write_failures(out, {FIRST: f"{FIRST}: the loss was not finite"})
    assert (of(out, FIRST).state, of(out, FIRST).reason) == ("failed", "the loss was not finite")
    with locked(work(out, FIRST), "held"):  # tried again
        assert of(out, FIRST).state == "running"


@pytest.mark.parametrize("text", ["[]", "not JSON", '"text"'])
def test_a_damaged_record_is_a_failure_with_its_reason(out: Path, text: str) -> None:
    record(out, FIRST)
    (out / "runs" / RUNS[FIRST] / "record.json").write_text(text)
    assert of(out, FIRST).state == "failed"
    assert "damaged" in (of(out, FIRST).reason or "")


def test_from_another_machine_a_training_runs_as_long_as_it_writes(out: Path) -> None:
    log(out, FIRST, 1)
    assert of(out, FIRST).state == "started"  # here, the lock tells
    elsewhere(out)
    assert of(out, FIRST).state == "running"
    aged(work(out, FIRST) / "log.jsonl", FRESH_S + 1)
    assert of(out, FIRST).state == "started"
    (work(out, FIRST) / "checkpoint").mkdir()
    assert of(out, FIRST).state == "running"
    log(out, SECOND, 1, seconds=1000)
    aged(work(out, SECOND) / "log.jsonl", FRESH_S + 1)
    assert of(out, SECOND).state == "running"  # its epochs take longer


def test_workers_elsewhere_run_while_the_driver_here_is_at_work(out: Path) -> None:
    log(out, FIRST, 1)
    with locked(out, "held"):
        assert of(out, FIRST).state == "started"  # stopped a moment ago, and the driver is at another one
        write_driver(out, out.parent / "store", "ray")
        assert of(out, FIRST).state == "running"


def test_what_has_just_failed_has_failed_while_the_others_go_on(out: Path) -> None:
    write_driver(out, out.parent / "store", "ray")
    log(out, FIRST, 1)
    write_failures(out, {FIRST: f"{FIRST}: the loss was not finite"})
    with locked(out, "held"):
        assert (of(out, FIRST).state, of(out, FIRST).reason) == ("failed", "the loss was not finite")


def test_from_another_machine_a_network_is_observed_as_long_as_files_come(out: Path) -> None:
    record(out, FIRST)
    elsewhere(out)
    observed(out, FIRST, "clean")
    assert of(out, FIRST).state == "observing"
    aged(out / "observations" / RUNS[FIRST], FRESH_S + 1)
    assert of(out, FIRST).state == "started"


def test_half_a_line_of_a_log_is_left_for_the_next_look(out: Path) -> None:
    log(out, FIRST, 1)
    (work(out, FIRST) / "log.jsonl").write_text('{"epoch": 1, "sec')
    assert of(out, FIRST).epochs == 0


def test_what_is_left_is_told_by_its_own_epochs_else_by_its_like(out: Path) -> None:
    assert seconds_left(with_times(study_status(out), out)) is None
    log(out, FIRST, 2, seconds=10)
    assert of(out, FIRST).seconds_left == 10
    assert of(out, SECOND).seconds_left is None
    record(out, FIRST, seconds=20)
    observed(out, FIRST)
    assert of(out, SECOND).seconds_left == 60
    record(out, TEACHER, seconds=1)
    observed(out, TEACHER)
    rows = with_times(study_status(out), out)
    assert seconds_left(rows) == 60
    assert summary(rows) == "2 of 3 done, 1 waiting, about 1 min left"
    assert about_left(out, out.parent / "store", {SECOND}) == ", about 1 min left"
    assert about_left(out, out.parent / "store", {FIRST}) == ""


def test_observing_takes_as_long_as_it_took(out: Path) -> None:
    record(out, FIRST, seconds=20)
    observed(out, FIRST)
    (out / "predictions").mkdir()
    (out / "predictions" / f"{RUNS[FIRST]}.parquet").write_bytes(b"")
    aged(out / "runs" / RUNS[FIRST] / "record.json", 30)
    assert of(out, SECOND).seconds_left == pytest.approx(90, abs=1)


def test_several_at_once_share_what_is_left(out: Path) -> None:
    for label in RUNS:
        log(out, label, 2, seconds=30)
    with locked(work(out, FIRST), "held"), locked(work(out, SECOND), "held"):
        rows = with_times(study_status(out), out)
        assert seconds_left(rows) == 45  # 3 x 30 s, by two
        assert summary(rows) == "0 of 3 done, 2 running, 1 started, about 45 s left"


def test_the_command_tells_people_and_programs(out: Path, command: Callable[..., int], capsys: Any) -> None:
    log(out, FIRST, 2)
    write_failures(out, {SECOND: "out of memory"})
    assert command("study", "status", out, "--json") == 0
    rows = {row["label"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows[FIRST] == {
        "kind": "student", "label": FIRST, "run": RUNS[FIRST], "state": "started", "epochs": 2, "of_epochs": 3,
        "validation_accuracy": 0.6, "seconds": 20.0, "seconds_left": 10.0, "reason": None,
    }  # fmt: skip
    assert command("study", "status", out) == 0  # no terminal: once
    text = capsys.readouterr().out
    assert "2/3" in text
    assert f"failed: {SECOND}: out of memory" in text
    assert "0 of 3 done, 1 failed, 1 started, 1 waiting" in text


def test_on_a_terminal_the_table_follows_until_all_is_done(out: Path) -> None:
    for label in (TEACHER, FIRST):
        record(out, label)
        observed(out, label)
    log(out, SECOND, 1)
    terminal, side = pty.openpty()
    with locked(work(out, SECOND), "held"):
        following = subprocess.Popen([sys.executable, "-m", "crossdistill", "study", "status", str(out)], stdout=side, stderr=side)
        os.close(side)
        text = until(terminal, "1/3")
    assert "running" in text
    record(out, SECOND)
    observed(out, SECOND)
    assert "3 of 3 done" in until(terminal, "3 of 3 done")
    assert following.wait(timeout=20) == 0


def until(terminal: int, word: str) -> str:
    text = ""
    while word not in text:
        text += os.read(terminal, 4096).decode(errors="replace")
    return text
