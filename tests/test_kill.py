"""A study that is killed again and again ends with the bytes of one that was left alone, apart from what is timing."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

SEED = int(os.environ.get("KILL_SEED", "0"))  # of the moments; any other should do as well
N_KILLS = 10
N_LAST = 6  # files that come last of all: the tables, the phases and the page, made in a second

# A warm-up, an adversary, an average of the weights, answers of the teacher that are stored, checkpoints in mid-epoch.
STUDY = """\
name: killed
images: {source: trifeature, n_values: 2, n_train: 160, n_test: 60, n_conflict: 40, side: 16}
networks:
  vit: {model: small/vit, width: 16, depth: 1, heads: 2}
  cnn: {model: small/resnet8}
teachers: {runs: 1}
pairs:
  - {teacher: vit, student: cnn, methods: [{name: sskd, warm_up_epochs: 2}, capd]}
seeds: [0]
training: {epochs: 2, batch_size: 16, threads: 1, precision: fp32, ema: 0.9, views: {crops: 1, flip: false}, checkpoint_every: 3 steps}
probes: [{name: scramble, levels: [{grid: 2}, {grid: 4}]}]
signal_gate: off
"""

# Starts the command in processes of their own. They have the libraries imported already; nothing else of one start reaches the next.
LAUNCHER = """
import json, os, sys

import altair, duckdb, timm, vl_convert  # each start would import them anew, which takes longer than all that it then does

import crossdistill.study.execute
from crossdistill.cli import main

for line in sys.stdin:
    errors, *arguments = json.loads(line)
    child = os.fork()
    if child == 0:
        os.setsid()
        with open(errors, "ab") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        sys.argv = ["crossdistill", *arguments]
        main()
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Starts:
    """Starts the command line in process groups of their own, one after the other."""

    def __init__(self, process: subprocess.Popen[str], errors: Path) -> None:
        self.process, self.errors = process, errors

    def start(self, *arguments: object) -> int:
        """Start the command; returns its process id, which is also its group's."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([str(self.errors), *map(str, arguments)]) + "\n")
        self.process.stdin.flush()
        return self._number()

    def wait(self) -> int:
        """Wait for the end of what was started; returns its exit code."""
        return self._number()

    def _number(self) -> int:
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())


@pytest.fixture
def starts(tmp_path: Path) -> Iterator[Starts]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    arguments = [sys.executable, "-c", LAUNCHER]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as process:
        yield Starts(process, tmp_path / "errors")
        assert process.stdin is not None
        process.stdin.close()


def progress(out: Path, store: Path) -> int:
    """How many files and folders that stay are there, of trainings, warm-ups, stored answers and observations."""
    return sum(not any(part.startswith(".") or part == "checkpoint" for part in path.parts) for path in _on_disk(out, store))


def in_training(out: Path, store: Path) -> bool:
    """Whether a checkpoint is there."""
    return any(path.name.startswith("step-") for path in _on_disk(out, store))


def _on_disk(out: Path, store: Path) -> Iterator[Path]:
    for place in (out, *(store / name for name in ("teachers", "warm_ups", "answers"))):
        for at, folders, files in os.walk(place):  # which bears with what vanishes
            yield from ((Path(at) / name).relative_to(place) for name in (*folders, *files))


def wait_until(reached: Callable[[], bool], pid: int, seconds: float = 300) -> None:
    """Wait until the study has come so far, has ended, or that time is over."""
    deadline = time.monotonic() + seconds
    while not reached() and not _ended(pid) and time.monotonic() < deadline:
        time.sleep(0.01)


def _ended(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
@pytest.mark.timeout(600)
def test_a_study_killed_at_ten_random_moments_ends_with_the_same_bytes(starts: Starts, tmp_path: Path, without_timing: Any) -> None:
    (tmp_path / "study.yaml").write_text(STUDY)
    moments = random.Random(SEED)
    print(f"KILL_SEED={SEED}")
    undisturbed, out, stores = tmp_path / "undisturbed", tmp_path / "out", (tmp_path / "store-1", tmp_path / "store-2")

    def command(folder: Path, store: Path) -> tuple[object, ...]:
        return "study", "run", tmp_path / "study.yaml", "--out", folder, "--store", store

    starts.start(*command(undisturbed, stores[0]))
    assert starts.wait() == 0, starts.errors.read_text()
    n_files = progress(undisturbed, stores[0]) - N_LAST
    targets = sorted(moments.randrange(n_files) for _ in range(N_KILLS + 1))
    gentle = moments.randrange(2, N_KILLS + 1)  # one is a scheduler, which asks first; not before it is listened to
    for i, target in enumerate(targets):
        number, delay = signal.SIGTERM if i == gentle else signal.SIGKILL, moments.uniform(0, 0.3)
        said = starts.errors.stat().st_size if starts.errors.exists() else 0
        pid = starts.start(*command(out, stores[1]))
        if number == signal.SIGTERM:
            wait_until(lambda said=said: starts.errors.stat().st_size > said, pid)
        wait_until(lambda target=target: progress(out, stores[1]) >= target, pid)
        if i % 2:
            wait_until(lambda: in_training(out, stores[1]), pid, seconds=2)
        time.sleep(delay)
        assert not _ended(pid), f"the study ended before it was killed: {starts.errors.read_text()}"
        print(f"{number.name} {delay:.2f} s after {target} of {n_files} files: {starts.errors.read_text().splitlines()[-1]}")
        stopped = time.monotonic()
        os.killpg(pid, number)
        assert starts.wait() == (-number if number == signal.SIGKILL else 130), starts.errors.read_text()
        assert time.monotonic() - stopped < 10
    starts.start(*command(out, stores[1]))
    assert starts.wait() == 0, starts.errors.read_text()
    told = starts.errors.read_text()
    assert "Traceback" not in told
    assert told.count("the same command goes on from there") == 1
    assert "going on from step" in told
    assert without_timing(out) == without_timing(undisturbed)
    assert without_timing(stores[1]) == without_timing(stores[0])
