"""Worker processes: answers in order or as they come, errors that arrive, processes that end, are replaced, or are told to stop."""

import functools
import os
import signal
import subprocess
import sys
import time
import types
from concurrent.futures import Future
from pathlib import Path

import pytest

from crossdistill.core.errors import StudyError
from crossdistill.core.workers import CannotWork, WorkerEnded, Workers

# Worker processes cannot import the modules of tests: these are executed there.
TIDY = """
def work(path):
    import pathlib, time
    started = pathlib.Path(path)
    started.write_text("at work")
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        started.write_text("saved")
        raise
work(path)
"""
STUBBORN = """
import pathlib, time
pathlib.Path(path).write_text("at work")
while True:
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        pass
"""


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.exists() or not path.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_answers_come_in_the_order_of_the_jobs() -> None:
    with Workers(2, functools.partial, pow, 2) as workers:
        assert list(workers.map((n,) for n in range(9))) == [2**n for n in range(9)]


def test_a_file_in_the_current_directory_does_not_take_the_place_of_a_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pickle.py").write_text("raise RuntimeError('the wrong pickle')")
    monkeypatch.chdir(tmp_path)
    with Workers(1, functools.partial, pow, 2) as workers:
        assert list(workers.map([(3,)])) == [8]


def test_a_worker_that_ends_is_told() -> None:
    with Workers(1, functools.partial, os._exit) as workers, pytest.raises(StudyError, match=r"ended \(exit code 9\).*fewer --workers"):
        list(workers.map([(9,)]))


def test_what_cannot_be_sent_or_made_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CannotWork):
        Workers(1, lambda: None)  # type: ignore[arg-type, return-value]
    here = types.ModuleType("only_here")
    exec("def make():\n    return len", here.__dict__)
    monkeypatch.setitem(sys.modules, "only_here", here)
    with pytest.raises(CannotWork, match="No module named 'only_here'"):
        Workers(1, here.make)


def test_threads_are_those_that_were_asked_for_or_as_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    for asked, found in ((1, "1"), (3, "3"), (None, "5")):
        with Workers(1, functools.partial, os.getenv, threads=asked) as workers:
            assert workers.submit("OMP_NUM_THREADS").result() == found


def test_a_process_starts_when_it_is_needed_and_another_takes_its_place_once_it_has_ended() -> None:
    with Workers(3, functools.partial, eval, on_demand=True) as workers:
        assert workers._processes == []
        first = workers.submit("__import__('os').getpid()").result()
        assert workers.submit("__import__('os').getpid()").result() == first  # the one that runs already is asked first
        with pytest.raises(WorkerEnded) as ended:
            workers.submit("__import__('os').kill(__import__('os').getpid(), 9)").result()
        assert ended.value.code == -signal.SIGKILL
        assert workers.submit("1 + 1").result() == 2
        assert len(workers._processes) == 2


def test_an_error_of_what_is_made_on_demand_is_the_error_of_the_job() -> None:
    with Workers(1, functools.partial, on_demand=True) as workers:
        for _ in range(2):
            with pytest.raises(TypeError, match="at least one argument"):
                workers.submit(1).result()


def test_workers_save_their_state_after_an_error_or_are_killed_in_time(tmp_path: Path) -> None:
    futures: list[Future[None]] = []

    def leave(workers: Workers) -> None:
        with workers:
            futures.extend(workers.submit(code, {"path": str(tmp_path / name)}) for code, name in ((TIDY, "tidy"), (STUBBORN, "stubborn")))
            wait_for(tmp_path / "tidy")
            wait_for(tmp_path / "stubborn")
            for process in workers._processes:  # as Ctrl-C and schedulers send them to all processes at once: the parent decides
                process.send_signal(signal.SIGINT)
                process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            assert (tmp_path / "tidy").read_text() == "at work"
            raise ZeroDivisionError

    workers = Workers(2, functools.partial, exec, on_demand=True, patience_s=1.0)
    with pytest.raises(ZeroDivisionError):
        leave(workers)
    assert (tmp_path / "tidy").read_text() == "saved"
    assert [type(future.exception()) for future in futures] == [WorkerEnded, WorkerEnded]
    assert {process.returncode for process in workers._processes} == {128 + signal.SIGTERM, -signal.SIGKILL}


def test_a_worker_that_is_still_importing_ends_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = tmp_path / "begun"
    script = f"import pathlib, time\npathlib.Path({str(begun)!r}).write_text('x')\ntime.sleep(60)\n"
    (tmp_path / "slow_to_import.py").write_text(script)
    module = types.ModuleType("slow_to_import")
    exec("def make():\n    return len", module.__dict__)
    monkeypatch.setitem(sys.modules, "slow_to_import", module)
    monkeypatch.syspath_prepend(tmp_path)
    workers = Workers(1, module.make, on_demand=True)
    future = workers.submit("")
    wait_for(begun)
    began = time.monotonic()
    workers.end(patience_s=30)
    assert time.monotonic() - began < 15
    assert isinstance(future.exception(), WorkerEnded)


def test_workers_save_their_state_when_their_parent_is_killed(tmp_path: Path) -> None:
    script = (
        "import functools, sys; from crossdistill.core.workers import Workers\n"
        "workers = Workers(1, functools.partial, exec); workers.submit(sys.argv[1], {'path': sys.argv[2]}).result()"
    )
    parent = subprocess.Popen([sys.executable, "-c", script, TIDY, str(tmp_path / "tidy")])
    wait_for(tmp_path / "tidy")
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 10
    while (tmp_path / "tidy").read_text() != "saved":
        assert time.monotonic() < deadline
        time.sleep(0.02)
