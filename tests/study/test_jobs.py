"""Trainings side by side: the same bytes as one after the other, whatever fails, is killed or is stopped on the way."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from crossdistill.core.errors import CrossdistillError, DivergedError, StudyError
from crossdistill.core.progress import Progress
from crossdistill.core.store import is_locked, locked
from crossdistill.core.study_file import parse_study
from crossdistill.core.workers import WorkerEnded
from crossdistill.study import jobs, workers
from crossdistill.study.execute import run_study
from crossdistill.study.jobs import one_after_the_other, side_by_side
from crossdistill.study.plan import Plan, Training, make_plan
from crossdistill.study.status import study_status
from crossdistill.study.trainings import TrainingSchedule
from crossdistill.study.workers import LabelledProgress

# One teacher diverges in its first step, so that students fail whose teacher it is, and such as are matched with it. A method
# and its controls share a warm-up. Answers of teachers are stored, by whichever worker comes first.
STUDY = """\
name: jobs
images: {source: trifeature, n_values: 2, n_train: 48, n_test: 24, n_conflict: 8, side: 16}
networks:
  vit: {model: small/vit, width: 16, depth: 1, heads: 2}
  cnn: {model: small/resnet8}
  bad: {model: small/resnet8, training: {learning_rate: 1e30, clip_norm: null, optimizer: sgd}}
teachers: {epochs: 3}
pairs:
  - {teacher: cnn, student: vit, control_teacher: vit, methods: [kd, {name: sskd, warm_up_epochs: 2}]}
  - {teacher: bad, student: vit, control_teacher: vit, methods: [{name: kd, label: misled}]}
arms: [control_teacher]
seeds: [0]
training: {epochs: 3, batch_size: 16, threads: 1, precision: fp32, views: {crops: 1, flip: false}}
probes: [{name: scramble, levels: [{grid: 2}], draws: 1}]
signal_gate: off
"""
FAILING = 4
N_STEPS = 9
TWO_SEEDS = STUDY.replace("seeds: [0]", "seeds: [0, 1]").replace("[control_", "[shuffled_teacher, control_")
Command = Callable[..., int]


def run(out: Path, store: Path, **options: Any) -> dict[str, str]:
    about = {"device": torch.device("cpu"), "progress": Progress(quiet=True), **options}
    return dict(run_study(parse_study(STUDY), out, store=store, **about).failures)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The study, one training after the other."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CROSSDISTILL_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        assert len(run(folder / "out", folder / "store")) == FAILING
    return folder


def crossdistill(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-m", "crossdistill", *map(str, arguments)], stderr=subprocess.PIPE, text=True)


def until(found: Callable[[], Any], process: subprocess.Popen[str], seconds: float = 120) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    return value


def holder(folder: Path) -> int | None:
    """The process that holds a folder."""
    inode = str((folder / ".lock").stat().st_ino) if (folder / ".lock").exists() else ""
    for line in Path("/proc/locks").read_text().splitlines():
        fields = line.split()
        if "FLOCK" in fields and fields[5].split(":")[-1] == inode:
            return int(fields[4])
    return None


def half_trained(folder: Path) -> list[Path]:
    """Trainings at work that have saved their state."""
    saved = {path.parent.parent for path in folder.glob("*/checkpoint/step-*")}
    return [path for path in sorted(saved) if is_locked(path) and not (path / "record.json").exists()]


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="finds the worker that holds a lock where Linux tells it")
def test_workers_that_are_killed_and_stopped_leave_the_same_bytes(
    undisturbed: Path, command: Command, tmp_path: Path, capsys: Any, without_timing: Any
) -> None:
    file, out, store = tmp_path / "study.yaml", tmp_path / "out", tmp_path / "store"
    file.write_text(STUDY)
    driver = crossdistill("study", "run", file, "--out", out, "--store", store, "--jobs", 2)

    def killed_in_mid_training() -> Path | None:
        found = {folder: pid for folder in half_trained(store / "teachers") if (pid := holder(folder))}
        for folder, pid in found.items():
            os.kill(pid, signal.SIGKILL)
            return folder
        return None

    def held_still() -> tuple[Path, int] | None:
        """A student with steps before it, and its worker, stopped while another is at work."""
        running = [row.run for row in study_status(out, store) if row.state == "running"]
        workers = {holder(folder / name) for folder in (out / "runs", store / "teachers", store / "warm_ups") for name in running}
        if len(workers - {None}) < 2 or not (killed / "record.json").exists():
            return None
        for folder in half_trained(out / "runs"):
            if pid := holder(folder):
                os.kill(pid, signal.SIGSTOP)
                if folder in half_trained(out / "runs") and not list(folder.glob(f"checkpoint/step-*{N_STEPS}")):
                    return folder, pid
                os.kill(pid, signal.SIGCONT)
        return None

    killed = until(killed_in_mid_training, driver)
    stopped, worker = until(held_still, driver)
    began = time.monotonic()
    driver.send_signal(signal.SIGTERM)
    time.sleep(1)  # in which it tells its workers to stop
    os.kill(worker, signal.SIGCONT)
    _, errors = driver.communicate(timeout=60)
    assert time.monotonic() - began < 20  # workers have ten seconds
    assert driver.returncode == 130
    assert "its process has ended (exit code -9) and is started once more" in errors
    assert "stopping: what is being trained is saved" in errors
    assert "the same command goes on from there" in errors
    assert "Traceback" not in errors
    assert "going on from step" in errors  # the training whose worker was killed
    assert (stopped / "checkpoint").exists()  # what was stopped has saved its state
    assert not (stopped / "record.json").exists()
    assert not any(is_locked(path.parent) for path in tmp_path.rglob(".lock"))
    assert not [row for row in study_status(out, store) if row.state == "running"]

    def networks() -> dict[Path, int]:
        files = [*out.glob("runs/*/network.safetensors"), *store.glob("*/*/network.safetensors")]
        return {file: file.stat().st_mtime_ns for file in files}

    done = networks()
    assert killed in {file.parent for file in done}  # made by workers
    assert command("study", "run", file, "--out", out, "--store", store, "--quiet") == 1
    assert done.items() <= networks().items()
    assert "failed: misled: bad -> vit, seed 0: teacher: bad, seed 0 failed, from which it learns" in capsys.readouterr().err
    assert without_timing(out) == without_timing(undisturbed / "out")
    assert without_timing(store) == without_timing(undisturbed / "store")


def test_what_is_done_starts_no_worker(undisturbed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def submit(self: Any, training: Training) -> "Future[None]":
        asked.append(training.label)
        future: Future[None] = Future()
        future.set_exception(DivergedError("again"))
        return future

    monkeypatch.setattr(jobs.Workers, "submit", submit)
    before = {path: path.stat().st_mtime_ns for path in undisturbed.rglob("*.safetensors")}
    failures = run(undisturbed / "out", undisturbed / "store", jobs=2)
    assert asked == ["teacher: bad, seed 0"]  # what failed is tried again
    assert len(failures) == FAILING
    assert before == {path: path.stat().st_mtime_ns for path in undisturbed.rglob("*.safetensors")}


def test_two_studies_at_once_share_their_teachers(
    undisturbed: Path, command: Command, tmp_path: Path, capsys: Any, without_timing: Any
) -> None:
    first, second, store = tmp_path / "first.yaml", tmp_path / "second.yaml", tmp_path / "store"
    lines = [line for line in STUDY.splitlines() if not line.startswith("arms:") and "bad" not in line]
    small = "\n".join(lines).replace(", {name: sskd, warm_up_epochs: 2}", "")
    first.write_text(small)
    second.write_text(small.replace("name: jobs", "name: other"))
    other = crossdistill("study", "run", first, "--out", tmp_path / "first", "--store", store)
    until(lambda: any(is_locked(path) for path in (store / "teachers").glob("teacher-*")), other)
    assert command("study", "run", second, "--out", tmp_path / "second", "--store", store) == 0
    here = capsys.readouterr().err
    _, there = other.communicate(timeout=120)
    assert other.returncode == 0
    assert "waiting: another process is training teacher: cnn, seed 0" in here
    ours, theirs = without_timing(tmp_path / "second"), without_timing(tmp_path / "first")
    differing = {name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)}
    assert differing == {"study.yaml", "plan.json"}  # which have the name
    taught = {path.parent.name for path in (tmp_path / "first").glob("runs/teacher-*/record.json")}
    assert taught
    assert taught <= {path.parent.name for path in (undisturbed / "out").glob("runs/teacher-*/record.json")}
    assert (here + there).count("teacher: cnn, seed 0: epoch 1/3") == 1


class FakeWorkers:
    """Does a job when it is asked for the `wait` that follows, in an order of the test's own."""

    def __init__(self, work: Callable[[Training], None]) -> None:
        self.work, self.given = work, []

    def submit(self, training: Training) -> "Future[None]":
        future: Future[None] = Future()
        self.given.append(training.label)
        try:
            self.work(training)
        except CrossdistillError as error:
            future.set_exception(error)
        else:
            future.set_result(None)
        return future


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(jobs, "nothing_left", lambda shop, training: False)
    monkeypatch.setattr(jobs, "_result", lambda shop, training: "")
    return SimpleNamespace(
        progress=Progress(),
        out=tmp_path,
        store=tmp_path,
        finished=lambda training: False,
        outdated=lambda training: False,
        device=torch.device("cpu"),
    )


@pytest.fixture
def plan() -> Plan:
    return make_plan(parse_study(TWO_SEEDS), "images", torch.device("cpu"))


def test_what_fails_is_noted_alike_in_both_ways(shop: Any, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    def work(training: Training) -> None:
        if training.network == "bad" or training.label == "sskd: cnn -> vit, seed 0":
            raise DivergedError("the loss was not finite")

    monkeypatch.setattr(workers, "train_and_observe", lambda shop, training: work(training))
    one: dict[str, str] = {}
    one_after_the_other(shop, TrainingSchedule(shop, plan, plan.trainings, one))
    written = (shop.out / "failures.json").read_bytes()
    several: dict[str, str] = {}
    side_by_side(shop, FakeWorkers(work), 3, TrainingSchedule(shop, plan, plan.trainings, several))  # type: ignore[arg-type]
    assert list(one.items()) == list(several.items())
    assert (shop.out / "failures.json").read_bytes() == written
    assert len(one) == 2 + 8 + 1


def test_a_training_starts_once_what_it_reads_is_settled_and_none_twice(shop: Any, plan: Plan) -> None:
    schedule, running, started = TrainingSchedule(shop, plan, plan.trainings, {}), [], []
    while len(started) < len(plan.trainings):
        while (training := schedule.next()) is not None:
            busy = {other.label for other in running}
            assert not {read.label for read in (training.teacher, training.rival) if read} & busy
            assert training.control != "matched_teacher" or training.own.label not in busy
            running.append(training)
            started.append(training.label)
        assert schedule.settle(running.pop(), None) == f"{len(started) - len(running)}/{len(plan.trainings)}"  # the last one given
    assert sorted(started) == sorted(training.label for training in plan.trainings)
    assert any("matched_teacher" in label for label in started)


def test_a_training_whose_process_ends_is_tried_once_more_and_then_failed(shop: Any, plan: Plan, capsys: Any) -> None:
    ended: list[str] = []

    def work(training: Training) -> None:
        if training.label == "kd: cnn -> vit, seed 1" or (training.label == "kd: cnn -> vit, seed 0" and not ended):
            ended.append(training.label)
            raise WorkerEnded("a worker process has ended", -9)

    failures: dict[str, str] = {}
    side_by_side(shop, FakeWorkers(work), 2, TrainingSchedule(shop, plan, plan.trainings, failures))  # type: ignore[arg-type]
    assert ended == ["kd: cnn -> vit, seed 0", "kd: cnn -> vit, seed 1", "kd: cnn -> vit, seed 1"]
    assert list(failures) == ["kd: cnn -> vit, seed 1"]
    assert "ended twice (exit code -9), perhaps because the memory was full: give fewer --jobs" in failures["kd: cnn -> vit, seed 1"]
    lines = capsys.readouterr().err.splitlines()
    assert "kd: cnn -> vit, seed 0: its process has ended (exit code -9) and is started once more" in lines
    assert f"[{len(plan.trainings)}/{len(plan.trainings)}] done" in lines[-1]


def test_a_folder_that_cannot_be_written_ends_all(shop: Any, plan: Plan) -> None:
    def work(training: Training) -> None:
        raise StudyError("cannot write: no space left on device")

    with pytest.raises(StudyError, match="no space left"):
        side_by_side(shop, FakeWorkers(work), 2, TrainingSchedule(shop, plan, plan.trainings, {}))  # type: ignore[arg-type]


def test_a_stop_breaks_off_the_tables_of_the_study_so_far(shop: Any, plan: Plan, capsys: Any) -> None:
    def write(failures: dict[str, str]) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)
        pytest.fail("the tables were finished first")

    pool = FakeWorkers(lambda training: None)
    with pytest.raises(KeyboardInterrupt):
        side_by_side(shop, pool, 2, TrainingSchedule(shop, plan, plan.trainings, {}, after_each=write))  # type: ignore[arg-type]
    assert len(pool.given) == 2
    assert "stopping: what is being trained is saved" in capsys.readouterr().err


def test_jobs_that_cannot_be_are_refused_before_anything_starts(command: Command, tmp_path: Path, capsys: Any) -> None:
    assert command("study", "run", tmp_path / "study.yaml", "--out", tmp_path / "out", "--jobs", 0) == 2
    assert "--jobs" in capsys.readouterr().err
    for devices, options in ((", devices: 2", ()), ("", ("--devices", 2))):
        (tmp_path / "study.yaml").write_text(STUDY.replace("threads: 1", f"threads: 1{devices}"))
        assert command("study", "run", tmp_path / "study.yaml", "--out", tmp_path / "out", "--jobs", 2, *options) == 2
        assert "--jobs 2 is for trainings on one device each" in capsys.readouterr().err
        assert not (tmp_path / "out").exists()


def test_lines_of_several_processes_say_whose_they_are(capsys: Any) -> None:
    progress = LabelledProgress(quiet=False)
    progress.label = "kd: cnn -> vit, seed 0"
    progress.line("  kd: cnn -> vit, seed 0: epoch 1/2")
    progress.line("  kd adds 12 trained parameters")
    assert capsys.readouterr().err == "kd: cnn -> vit, seed 0: epoch 1/2\nkd: cnn -> vit, seed 0: kd adds 12 trained parameters\n"


def test_a_line_is_written_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    pieces: list[str] = []
    monkeypatch.setattr(sys, "stderr", SimpleNamespace(write=pieces.append, flush=lambda: None, isatty=lambda: False))
    Progress().line("of one process")
    assert [piece for piece in pieces if piece] == ["of one process\n"]


def test_a_held_training_is_running(undisturbed: Path) -> None:
    out, store = undisturbed / "out", undisturbed / "store"
    states = {row.run: row.state for row in study_status(out, store)}
    unfinished = next(run for run, state in states.items() if state == "failed" and run.startswith("teacher"))
    with locked(store / "teachers" / unfinished, "held"):
        assert {row.run: row.state for row in study_status(out, store)} == states | {unfinished: "running"}
