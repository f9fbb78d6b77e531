"""Writes are whole or absent, locks hold, the same value has the same name."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from crossdistill.core.errors import StudyError
from crossdistill.core.store import cache_folder, digest, locked, read_json, write_atomically, write_json, write_text


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


def test_the_cache_folder_can_be_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROSSDISTILL_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("CROSSDISTILL_CACHE")
    assert cache_folder().name == "crossdistill"


def test_a_digest_does_not_depend_on_the_order_of_keys() -> None:
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1}) != digest({"a": 1, "b": [3]})
