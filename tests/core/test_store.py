"""Writes are whole or absent, locks hold, the same value has the same name."""

import errno
import fcntl
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from crossdistill.core.errors import StudyError
from crossdistill.core.store import (
    WAIT_SECONDS,
    cache_folder,
    digest,
    is_locked,
    locked,
    read_json,
    write_atomically,
    write_json,
    write_text,
)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    write_text(tmp_path / "record", "old")

    def full_disk(file: object) -> None:
        file.write(b"half of the new")  # type: ignore[attr-defined]
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(StudyError, match="No space left on device.*what was finished is kept"):
        write_atomically(tmp_path / "record", full_disk)
    assert (tmp_path / "record").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["record"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StudyError, match=r"cannot write .*file/record"):
        write_text(tmp_path / "file" / "record", "text")


def test_damaged_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "record.json").write_text('{"format": ')
    with pytest.raises(StudyError, match=r"record.json is damaged"):
        read_json(tmp_path / "record.json")


def test_json_refuses_what_is_not_a_number(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "record.json", {"value": float("nan")})
    assert not (tmp_path / "record.json").exists()


def test_a_second_process_is_refused_and_the_lock_dies_with_its_holder(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib, time; from crossdistill.core.store import locked\n"
        "with locked(pathlib.Path(sys.argv[1]), 'busy'): print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(StudyError, match="busy"), locked(tmp_path, "busy"):
        pass
    holder.kill()
    holder.wait()
    holder.stdout.close()
    with locked(tmp_path, "busy"):
        assert (tmp_path / ".lock").exists()


def test_a_lock_can_be_waited_for_and_the_waiting_is_told_once(tmp_path: Path) -> None:
    told: list[str] = []

    def hold() -> None:
        with locked(tmp_path, "busy with it", waiting=told.append):
            pass

    with ThreadPoolExecutor(1) as other:
        with locked(tmp_path, "busy"):
            assert is_locked(tmp_path)
            waiting = other.submit(hold)
            time.sleep(3 * WAIT_SECONDS)
            assert not waiting.done()
        waiting.result(timeout=30)
    assert told == ["waiting: busy with it"]
    assert not is_locked(tmp_path)
    assert not is_locked(tmp_path / "missing")


@pytest.mark.parametrize("vanish", [shutil.rmtree, lambda folder: folder.rename(folder.with_name("elsewhere"))])
def test_a_lock_whose_folder_went_away_while_it_was_waited_for_is_taken_anew(tmp_path: Path, vanish: Any) -> None:
    folder = tmp_path / "folder"

    def hold() -> bool:
        with locked(folder, "busy", waiting=lambda words: None):
            return is_locked(folder)

    with ThreadPoolExecutor(1) as other:
        with locked(folder, "busy"):
            waiting = other.submit(hold)
            time.sleep(2 * WAIT_SECONDS)
            vanish(folder)
        assert waiting.result(timeout=30)


@pytest.mark.parametrize("vanish", [shutil.rmtree, lambda folder: (folder / ".lock").rename(folder / "other")])
def test_a_lock_file_that_goes_away_between_opening_and_locking_is_no_lock(
    tmp_path: Path, vanish: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, flock = tmp_path / "folder", fcntl.flock

    def late(file: Any, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        vanish(folder)
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with locked(folder, "busy"):
        assert is_locked(folder)
        with pytest.raises(StudyError, match="busy"), locked(folder, "busy"):
            pass


def test_the_cache_folder_can_be_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROSSDISTILL_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("CROSSDISTILL_CACHE")
    assert cache_folder().name == "crossdistill"


def test_a_digest_does_not_depend_on_the_order_of_keys() -> None:
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1}) != digest({"a": 1, "b": [3]})
