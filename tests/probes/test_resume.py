"""A build that is stopped goes on after its last block, and ends with the bytes of one that was not."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from crossdistill.core.errors import StudyError
from crossdistill.probes import _build, _treatment
from crossdistill.probes._array_file import ArrayFile
from crossdistill.probes._build import apply_probe, build_probe_set
from crossdistill.probes._growing import JOURNAL, GrowingFiles


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(_treatment, "BLOCK_BYTES", 3 * 3 * 32 * 32)  # three images of 32 px


def part_of(folder):
    return next(path for path in folder.iterdir() if path.name.endswith(".part"))


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def stop_after(monkeypatch, n_blocks, error):
    """The probe stops the build when it is called for the block after `n_blocks` others."""
    called = []

    def apply(*arguments):
        if len(called) == n_blocks:
            raise error
        called.append(arguments)
        return apply_probe(*arguments)

    monkeypatch.setattr(_treatment, "apply_probe", apply)
    return called


@pytest.mark.parametrize("n_blocks", [0, 1, 3, 4, 11])  # of 12: 2 levels, 2 draws, 3 blocks each
def test_an_interrupted_build_goes_on_after_its_last_block(make_images, tmp_path, monkeypatch, n_blocks):
    whole = build_probe_set("scramble", make_images(), draws=2, folder=tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_after(patch, n_blocks, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            build_probe_set("scramble", make_images(), draws=2, folder=tmp_path / "stopped")
    assert [path.name for path in (tmp_path / "stopped").iterdir()] == [f".{whole.folder.name}.part"]
    called = stop_after(monkeypatch, 99, KeyboardInterrupt())
    resumed = build_probe_set("scramble", make_images(), draws=2, folder=tmp_path / "stopped")
    assert len(called) == 12 - n_blocks
    assert files_of(resumed.folder) == files_of(whole.folder)
    assert [path.name for path in (tmp_path / "stopped").iterdir()] == [whole.folder.name]


def test_what_was_written_after_the_last_line_of_the_journal_is_cut_off(make_images, tmp_path, monkeypatch):
    whole = build_probe_set("scramble", make_images(), folder=tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_after(patch, 4, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            build_probe_set("scramble", make_images(), folder=tmp_path)
    part = part_of(tmp_path)
    for name in ("images-1.npy", JOURNAL):
        with open(part / name, "ab") as file:
            file.write(b'{"half a line')
    (part / "left-over.npy").write_bytes(b"half")
    assert files_of(build_probe_set("scramble", make_images(), folder=tmp_path).folder) == files_of(whole.folder)


JOURNALS = {
    "a journal that is not JSON": b"not JSON\n",
    "a journal that is not text": b"\xff\xfe\n",
    "a list in the journal": b"[1, 2]\n",
    "a number in the journal": b"7\n",
    "a step without files": b'{"step": "x", "rows": 3}\n',
    "files without rows": b'{"step": "x", "rows": 3, "files": {"images-0": 3}}\n',
    "rows that are text": b'{"step": "x", "rows": 3, "files": {"other": ["3", ""]}}\n',
    "more rows than the file has": b'{"step": "x", "rows": 3, "files": {"kept_index": [3, ""]}}\n{"step": "level 0, draw 0", "rows": 8, '
    b'"files": {"labels": [1000000000000, ""]}}\n',
    "rows of a step that are no number": b'{"step": "x", "rows": "3", "files": {}}\n',
}


@pytest.mark.parametrize("damage", ["a changed byte", "a lost file", "lost rows", *JOURNALS])
def test_what_is_damaged_is_built_again(make_images, tmp_path, monkeypatch, damage):
    whole = build_probe_set("scramble", make_images(), folder=tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_after(patch, 4, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            build_probe_set("scramble", make_images(), folder=tmp_path)
    file, journal = part_of(tmp_path) / "images-0.npy", part_of(tmp_path) / JOURNAL
    if damage == "a changed byte":
        file.write_bytes(file.read_bytes()[:-1] + b"\0")
    elif damage == "a lost file":
        file.unlink()
    elif damage == "lost rows":
        file.write_bytes(file.read_bytes()[:-5000])
    else:
        journal.write_bytes(JOURNALS[damage] + journal.read_bytes())
    called = stop_after(monkeypatch, 99, KeyboardInterrupt())
    assert files_of(build_probe_set("scramble", make_images(), folder=tmp_path).folder) == files_of(whole.folder)
    assert len(called) == 6


def test_a_full_disk_is_told_and_the_same_call_goes_on(make_images, tmp_path, monkeypatch):
    append = ArrayFile.append

    def append_until_full(self, block):
        if self.path.name == "images-1.npy":
            raise OSError(errno.ENOSPC, "No space left on device")
        append(self, block)

    with monkeypatch.context() as patch:
        patch.setattr(ArrayFile, "append", append_until_full)
        with pytest.raises(StudyError, match="No space left on device. Free some space, and the same command goes on"):
            build_probe_set("scramble", make_images(), folder=tmp_path)
    called = stop_after(monkeypatch, 99, KeyboardInterrupt())
    build_probe_set("scramble", make_images(), folder=tmp_path)
    assert len(called) == 3


def test_a_build_that_was_whole_but_for_its_name_is_only_named(make_images, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(_build, "_publish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            build_probe_set("scramble", make_images(), folder=tmp_path)
    called = stop_after(monkeypatch, 99, KeyboardInterrupt())
    whole = build_probe_set("scramble", make_images(), folder=tmp_path / "whole")
    called.clear()
    assert files_of(build_probe_set("scramble", make_images(), folder=tmp_path).folder) == files_of(whole.folder)
    assert not called


def test_more_rows_than_a_file_has_do_not_make_it_longer(tmp_path):
    file = ArrayFile(tmp_path / "numbers.npy")
    file.append(np.arange(4))
    size = file.path.stat().st_size
    for rows in (5, 10**12, -1):
        with pytest.raises(ValueError, match=f"has not {rows} rows"):
            ArrayFile.reopened(file.path, rows)
    assert file.path.stat().st_size == size


def test_a_folder_among_the_files_is_cleared_away(make_images, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_after(patch, 4, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            build_probe_set("scramble", make_images(), folder=tmp_path)
    (part_of(tmp_path) / "folder" / "inside").mkdir(parents=True)
    assert not (build_probe_set("scramble", make_images(), folder=tmp_path).folder / "folder").exists()


def test_what_a_kill_after_the_naming_left_is_cleared_away(make_images, tmp_path, monkeypatch):
    whole = build_probe_set("scramble", make_images(), folder=tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(_build, "_tidy", lambda final: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            build_probe_set("scramble", make_images(), folder=tmp_path)
    (tmp_path / whole.folder.name / "clean-images.npy").write_bytes(b"of the workers")
    assert files_of(build_probe_set("scramble", make_images(), folder=tmp_path).folder) == files_of(whole.folder)


def test_a_picture_that_cannot_be_drawn_does_not_cost_the_set(make_images, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(_build, "preview_built", lambda *_: (_ for _ in ()).throw(ValueError("no picture")))
        with pytest.raises(ValueError, match="no picture"):
            build_probe_set("scramble", make_images(), folder=tmp_path)
    called = stop_after(monkeypatch, 99, KeyboardInterrupt())
    build_probe_set("scramble", make_images(), folder=tmp_path)
    assert not called


def test_a_journal_knows_rows_of_every_kind(tmp_path):
    text, numbers = np.array(["a", "long name"]), np.arange(6.0).reshape(2, 3)
    files = GrowingFiles(tmp_path)
    files.append("first", 2, {"text": text, "numbers": numbers})
    again = GrowingFiles(tmp_path)
    again.append("first", 4, {"text": text, "numbers": numbers})
    assert again.done == {"first": 4}
    assert again.files["text"].read().tolist() == text.tolist() * 2
    for file in again.files.values():
        file.complete()
    assert np.array_equal(np.load(tmp_path / "numbers.npy"), np.concatenate([numbers, numbers]))


SCRIPT = """
import sys
from pathlib import Path
import numpy as np
from crossdistill.core.types import ImageSet
from crossdistill.probes import _treatment
from crossdistill.probes._build import build_probe_set

n = 600
pixels = (np.arange(n * 3 * 16 * 16) * 7919 % 251).astype(np.uint8).reshape(n, 3, 16, 16)
images = ImageSet(pixels, np.arange(n) % 3, np.arange(n).astype(str), ("a", "b", "c"))
_treatment.BLOCK_BYTES = 3 * 16 * 16 * 10
print(build_probe_set("superpixel", images, folder=Path(sys.argv[1]), workers=int(sys.argv[2])).folder)
"""
# Not guarded by `if __name__ == "__main__"`: worker processes must not run it again.


def test_killed_processes_and_their_successor_build_what_one_would(tmp_path):
    script = tmp_path / "build.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def command(folder: str, workers: int) -> list[str]:
        return [sys.executable, str(script), str(tmp_path / folder), str(workers)]

    for n_blocks, how in [(5, signal.SIGKILL), (40, signal.SIGINT)]:
        killed = subprocess.Popen(command("killed", 2), env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        wait_for_blocks(tmp_path / "killed", n_blocks)
        killed.send_signal(how)
        assert killed.wait(timeout=60) != 0, "the process had finished before it was killed"
        assert part_of(tmp_path / "killed").is_dir()
    folders = [
        Path(subprocess.run(command(folder, 1), env=environment, capture_output=True, text=True, check=True).stdout.strip())
        for folder in ("killed", "undisturbed")
    ]
    assert files_of(folders[0]) == files_of(folders[1])


def wait_for_blocks(folder: Path, n: int) -> None:
    for _ in range(3000):
        if sum(path.read_text().count("\n") for path in folder.glob(f".*/{JOURNAL}")) >= n:
            return
        time.sleep(0.02)
    raise AssertionError(f"no {n} blocks were built within a minute")
