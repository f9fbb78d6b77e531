"""Trackers: each epoch once, whatever happens, and no part in any result."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from crossdistill.core.errors import SettingError
from crossdistill.core.records import EpochRow, EstimateModel, RunRecord
from crossdistill.train import tracking
from crossdistill.train.tracking import Tracking, load_tracker, values

FACTS = {"label": "kd: vit -> cnn, seed 0"}


def rows(n: int) -> list[EpochRow]:
    made = {"learning_rate": 1e-3, "train_accuracy": None, "images_per_second": 100.0, "seconds": 2.0}
    return [
        EpochRow(epoch=k + 1, loss=1.0 / (k + 1), terms={"ce": 0.5, "kd": 2.0}, validation_accuracy=k / 10, **made)  # type: ignore[arg-type]
        for k in range(n)
    ]


def record(n: int) -> RunRecord:
    estimates = {"validation_accuracy": EstimateModel(value=0.75), "temperature": EstimateModel(value=None)}
    return RunRecord.model_construct(history=rows(n), estimates=estimates, timing={"seconds": 9.0})


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What the tracker python:spy was told."""
    calls: list[tuple[Any, ...]] = []
    spy = ModuleType("spy")
    spy.start = lambda run, facts, folder, first: calls.append(("start", run, first)) or folder  # type: ignore[attr-defined]
    spy.log = lambda handle, epoch, values: calls.append(("log", epoch))  # type: ignore[attr-defined]
    spy.finish = lambda handle, final: calls.append(("finish", final))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "spy", spy)
    monkeypatch.setattr(tracking, "_own", lambda name: spy)
    return calls


def a_process(folder: Path, tracker: str = "python:spy", say: Callable[[str], object] = print) -> Tracking:
    return Tracking(tracker, "kd-b", FACTS, folder, say)


END = ("finish", {"validation_accuracy": 0.75, "seconds": 9.0})


def test_each_epoch_is_told_once_however_often_it_was_interrupted(tmp_path: Path, told: list[Any]) -> None:
    first = a_process(tmp_path)
    first.rows(rows(1))
    first.rows(rows(2))
    second = a_process(tmp_path)
    second.rows(rows(2))  # an epoch that was told and not saved is trained again
    second.rows(rows(3))
    second.finish(record(3))
    a_process(tmp_path).finish(record(3))  # the same command once more
    assert told == [("start", "kd-b", 1), ("log", 1), ("log", 2), ("start", "kd-b", 3), ("log", 3), END]


def test_a_run_that_was_finished_elsewhere_is_told_from_its_record(tmp_path: Path, told: list[Any]) -> None:
    a_process(tmp_path).finish(record(2))
    assert told == [("start", "kd-b", 1), ("log", 1), ("log", 2), END]


def test_another_tracker_is_told_all(tmp_path: Path, told: list[Any]) -> None:
    a_process(tmp_path).rows(rows(2))
    a_process(tmp_path, "python:spy2").rows(rows(2))
    assert told == [("start", "kd-b", 1), ("log", 1), ("log", 2)] * 2


def test_values_are_those_of_the_log_without_what_is_not_known() -> None:
    (row,) = rows(1)
    known = {"learning_rate": 1e-3, "loss": 1.0, "validation_accuracy": 0.0, "seconds": 2.0, "images_per_second": 100.0}
    assert values(row) == {**known, "term/ce": 0.5, "term/kd": 2.0}


@pytest.mark.parametrize("function", ["start", "log", "finish"])
def test_a_tracker_that_raises_is_off_for_its_run_with_one_line(
    tmp_path: Path, told: list[Any], monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    def fail(*arguments: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(sys.modules["spy"], function, fail)
    said: list[str] = []
    process = a_process(tmp_path, say=said.append)
    process.rows(rows(1))
    process.rows(rows(2))
    process.finish(record(2))
    assert said == ["  kd: vit -> cnn, seed 0: the tracker failed and is off for this run: OSError: no route to host"]
    monkeypatch.undo()
    told.clear()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "tensorbord",
            r"no tracker is called 'tensorbord'. Did you mean 'tensorboard'\? There are: tensorboard. One of your own is python:",
        ),
        ("python:no_such_module", "no Python module is called 'no_such_module' where Python looks or in "),
        ("python:", "no Python module is called ''"),
        ("python:json", "a tracker has the functions start, log, finish, and this module lacks start, log, finish"),
    ],
)
def test_a_tracker_that_cannot_be_is_refused(name: str, words: str) -> None:
    with pytest.raises(SettingError, match=words):
        load_tracker(name)


def test_a_tracker_that_cannot_be_imported_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    for name, text, words in (
        ("lacking", "import no_such_client", "ModuleNotFoundError: No module named 'no_such_client'"),
        ("misspelt", "def start(:", "SyntaxError: "),
    ):
        (tmp_path / f"{name}_tracker.py").write_text(text)
        with pytest.raises(SettingError, match=f"`tracker: python:{name}_tracker`: the module cannot be imported: {words}"):
            load_tracker(f"python:{name}_tracker")


@pytest.mark.parametrize("text", ["{}", "[]", "not JSON"])
def test_a_damaged_note_of_what_was_told_fails_no_training(tmp_path: Path, told: list[Any], text: str) -> None:
    (tmp_path / tracking.MARK).write_text(text)
    a_process(tmp_path).rows(rows(1))
    assert told == [("start", "kd-b", 1), ("log", 1)]


def test_without_tensorboard_the_pip_command_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "crossdistill.train.trackers.tensorboard", raising=False)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(SettingError, match=r"not installed: pip install 'crossdistill\[tensorboard\]'"):
        load_tracker("tensorboard")


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard itself reads of a run's folder."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    return {name: [(event.step, event.value) for event in events.Scalars(name)] for name in events.Tags()["scalars"]}


def test_tensorboards_curves_have_no_epoch_twice_even_where_a_kill_came_before_the_note(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    a_process(tmp_path, "tensorboard").rows(rows(1))
    a_process(tmp_path, "tensorboard").rows(rows(3))
    (tmp_path / tracking.MARK).write_text(json.dumps({"tracker": "tensorboard", "epochs": 2, "finished": False}))  # killed before the third
    last = a_process(tmp_path, "tensorboard")
    last.rows(rows(4))
    last.finish(record(4))
    found = curves(tmp_path)
    assert [step for step, _ in found["loss"]] == [1, 2, 3, 4]
    assert found["final/validation_accuracy"] == [(0, 0.75)]


STUDY = """\
name: tracked
images: {source: trifeature, n_values: 2, n_train: 96, n_test: 40, n_conflict: 40, side: 16}
networks:
  vit: {model: small/vit, width: 16, depth: 1, heads: 2}
  cnn: {model: small/resnet8}
pairs:
  - {teacher: vit, student: cnn, methods: [kd]}
seeds: [0]
training: {epochs: 3, batch_size: 16, threads: 1, precision: fp32}
probes: [{name: scramble, levels: [{grid: 4}]}]
signal_gate: off
observe: {instruments: []}
"""

OWN = '''\
"""Notes what it is told, and is interrupted once, before it notes the second epoch of a student."""

from pathlib import Path


def start(run, facts, folder, first_epoch):
    note(folder, f"start {first_epoch}")
    return folder


def log(folder, epoch, values):
    if epoch == 2 and folder.name.startswith("kd") and not Path("interrupted").exists():
        Path("interrupted").touch()
        raise KeyboardInterrupt
    note(folder, f"{epoch} {values['loss']}")


def finish(folder, final):
    note(folder, "finish")


def note(folder, text):
    with open(folder / "notes.txt", "a") as file:
        print(text, file=file)
'''


def test_a_study_is_the_same_with_a_tracker_and_its_files_are_the_log(
    command: Callable[..., int], tmp_path: Path, without_timing: Callable[[Path], dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    monkeypatch.chdir(tmp_path)
    Path("own_tracker.py").write_text(OWN)
    for name, tracker in (("plain", ""), ("board", "tracker: tensorboard\n"), ("own", "tracker: python:own_tracker\n")):
        Path("study.yaml").write_text(STUDY + tracker)
        run = ("study", "run", "study.yaml", "--out", name, "--store", f"store-{name}", "--quiet")
        if name == "own":
            assert command(*run) == 130
        assert command(*run) == 0
    kept = {name: without_timing(Path(name)) for name in ("plain", "board", "own")}
    for name in ("board", "own"):
        tracked = {path: content for path, content in kept[name].items() if not path.startswith("tracking/") and path != "study.yaml"}
        assert tracked == {path: content for path, content in kept["plain"].items() if path != "study.yaml"}
    runs = {path.parent.name: path for path in Path("board/runs").glob("*/log.jsonl")}
    assert len(runs) == 3
    for run, log in runs.items():
        logged = [EpochRow.model_validate_json(line) for line in log.read_text().splitlines()]
        found = curves(Path("board/tracking") / run)
        for name in values(logged[0]):
            assert found[name] == [(row.epoch, pytest.approx(values(row)[name])) for row in logged]
        losses = [f"{row.epoch} {row.loss}" for row in logged]
        again = ["start 2"] if run.startswith("kd") else []
        assert (Path("own/tracking") / run / "notes.txt").read_text().splitlines() == ["start 1", losses[0], *again, *losses[1:], "finish"]
