"""Watching a study: rebuilt when something changed, not ended by a damaged file, ended when the study is done."""

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Thread

import pytest

from crossdistill.core.store import locked
from crossdistill.report import watch as watching
from crossdistill.report.watch import signature, watch


@pytest.fixture
def folder(study_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An unfinished study, whose page is quickly drawn: these tests are about when, not about what."""
    monkeypatch.setattr(watching, "render", lambda study, reload_seconds=None: f"{reload_seconds} {len(study.records)}")
    copy = Path(shutil.copytree(study_folder, tmp_path / "study"))
    (copy / "runs" / "kd-cnn-0").rename(tmp_path / "kd-cnn-0")
    return copy


@contextmanager
def watched(folder: Path) -> Iterator[tuple[list[str], Thread]]:
    """A watch in a thread of its own, and what it says."""
    said: list[str] = []
    thread = Thread(target=watch, args=(folder, said.append), kwargs={"look_seconds": 0.02}, daemon=True)
    thread.start()
    yield said, thread
    thread.join(10)
    assert not thread.is_alive(), said


def until(found: Callable[[], bool]) -> None:
    for _ in range(1000):
        if found():
            return
        time.sleep(0.01)
    pytest.fail("it never came")


def test_the_page_is_rebuilt_when_something_changed_and_left_still_when_the_study_is_done(folder: Path, tmp_path: Path):
    page = folder / "report.html"
    with watched(folder) as (said, _):
        until(lambda: len(said) == 1)
        assert "1 of 10 networks are not finished; nobody works on it" in said[0]
        assert page.read_text() == f"{watching.RELOAD_SECONDS} 9"
        time.sleep(0.2)
        assert len(said) == 1  # nothing has changed
        (tmp_path / "kd-cnn-0").rename(folder / "runs" / "kd-cnn-0")
    assert "nothing is missing" in said[-1]
    assert page.read_text() == "None 10"


def test_a_damaged_file_is_named_once_and_looked_at_again(folder: Path, tmp_path: Path):
    whole = (folder / "plan.json").read_text()
    (folder / "plan.json").write_text(whole[:100])
    with watched(folder) as (said, _):
        until(lambda: bool(said))
        time.sleep(0.2)
        assert len(said) == 1
        assert "not rebuilt, looking again" in said[0]
        assert "plan.json is damaged" in said[0]
        (folder / "plan.json").write_text(whole)
        until(lambda: "rebuilt in" in said[-1])
        (tmp_path / "kd-cnn-0").rename(folder / "runs" / "kd-cnn-0")


def test_a_folder_that_holds_no_study_yet_is_waited_for(folder: Path, tmp_path: Path):
    (tmp_path / "kd-cnn-0").rename(folder / "runs" / "kd-cnn-0")
    empty = tmp_path / "empty"
    empty.mkdir()
    with watched(empty) as (said, _):
        until(lambda: bool(said))
        assert "holds no study" in said[0]
        shutil.copytree(folder, empty, dirs_exist_ok=True)


def test_while_somebody_works_on_it_a_study_is_never_done(folder: Path, tmp_path: Path):
    (tmp_path / "kd-cnn-0").rename(folder / "runs" / "kd-cnn-0")
    driver = ExitStack()
    driver.enter_context(locked(folder, "busy"))
    with watched(folder) as (said, thread):
        until(lambda: bool(said))
        assert "nothing is missing; the study is running" in said[0]
        time.sleep(0.1)
        assert thread.is_alive()
        driver.close()
    assert "nobody works on it" in said[-1]


def test_a_study_that_ended_with_failures_is_done(folder: Path):
    (folder / "failures.json").write_text('[{"task": "kd: vit -> cnn, seed 0", "message": "the loss is not finite"}]')
    with watched(folder) as (said, _):
        pass
    assert "1 task failed, 1 of 10 networks are not finished" in said[-1]


def test_what_the_page_reads_changes_the_signature_and_the_page_itself_does_not(folder: Path):
    before = signature(folder)
    (folder / "report.html").write_text("new")
    (folder / "runs" / "kd-vit-0" / "log.jsonl").write_text("{}")
    assert signature(folder) == before
    (folder / "transfer.parquet").write_text("new")
    assert signature(folder) != before


def test_ctrl_c_ends_a_watch_well_and_leaves_a_page_that_stands_still(study_folder: Path, tmp_path: Path):
    folder = Path(shutil.copytree(study_folder, tmp_path / "study"))
    shutil.rmtree(folder / "runs" / "kd-cnn-0")
    command = [sys.executable, "-m", "crossdistill", "report", str(folder), "--watch"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert "rebuilt in" in process.stdout.readline()
    assert 'data-reload="' in (folder / "report.html").read_text(encoding="utf-8")
    process.send_signal(signal.SIGINT)
    said, complaints = process.communicate(timeout=60)
    assert (process.returncode, complaints) == (0, "")
    assert "no longer watched" in said
    assert 'data-reload="' not in (folder / "report.html").read_text(encoding="utf-8")
