"""Arrays filled in shards: whole or made again, shared by processes, and never beyond what the disk holds."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crossdistill.train import stored_arrays
from crossdistill.train.stored_arrays import CannotStore, RowSpec, StoredArrays

SPECS = {"logits": RowSpec("<f4", (1, 3)), "stage3": RowSpec("<f2", (1, 2, 2))}
ROWS, SHARD = 23, 5
BUILDER = """
import sys, time
from pathlib import Path
import numpy as np
from crossdistill.train.stored_arrays import RowSpec, StoredArrays
arrays = StoredArrays(Path(sys.argv[1]), 23, {"logits": RowSpec("<f4", (1, 3)), "stage3": RowSpec("<f2", (1, 2, 2))}, 5)
def blocks(rows):
    print(rows.start, flush=True)
    for row in rows:
        time.sleep(float(sys.argv[2]))
        yield {name: np.full((1, *spec.shape), row, spec.dtype) for name, spec in arrays.specs.items()}
arrays.reserve()
arrays.fill_missing(blocks)
"""


def stored(folder: Path, names: tuple[str, ...] = ("logits", "stage3")) -> StoredArrays:
    return StoredArrays(folder / "answers", ROWS, {name: SPECS[name] for name in names}, SHARD)


def row_numbers(rows: range) -> Iterator[dict[str, np.ndarray]]:
    """Blocks of at most two rows; every element of a row is the row's number."""
    for start in range(rows.start, rows.stop, 2):
        numbers = np.arange(start, min(start + 2, rows.stop))
        yield {name: np.stack([np.full(spec.shape, number, spec.dtype) for number in numbers]) for name, spec in SPECS.items()}


def filled(folder: Path) -> StoredArrays:
    arrays = stored(folder)
    arrays.reserve()
    arrays.fill_missing(row_numbers)
    return arrays


def is_right(arrays: StoredArrays) -> bool:
    return all((array == np.arange(ROWS).reshape(-1, *[1] * (array.ndim - 1))).all() for array in arrays.opened().values())


def builder(folder: Path, seconds_a_row: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-P", "-c", BUILDER, str(folder / "answers"), str(seconds_a_row)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_what_was_written_is_read_by_shard_and_as_plain_npy(tmp_path: Path) -> None:
    arrays = filled(tmp_path)
    assert arrays.is_complete
    assert is_right(arrays)
    assert np.load(arrays.folder / "logits.npy").shape == (ROWS, 1, 3)
    assert arrays.n_bytes == ROWS * (3 * 4 + 4 * 2)


def test_a_shard_whose_bytes_changed_is_found_and_made_again(tmp_path: Path) -> None:
    arrays = filled(tmp_path)
    with open(arrays.folder / "stage3.npy", "r+b") as file:
        file.seek(-3, os.SEEK_END)
        file.write(b"\xff")
    assert arrays.damaged() == [4]
    assert arrays.missing() == [4]
    arrays.fill_missing(row_numbers)
    assert arrays.damaged() == []
    assert is_right(arrays)


def test_a_file_that_was_cut_short_gets_its_length_back_and_its_lost_shards_anew(tmp_path: Path) -> None:
    arrays = filled(tmp_path)
    whole = (arrays.folder / "logits.npy").stat().st_size
    os.truncate(arrays.folder / "logits.npy", whole - 100)  # 12 bytes a row: the last 9 rows, of shards 2 (one row), 3 and 4
    assert not arrays.is_reserved
    arrays.reserve()
    assert (arrays.folder / "logits.npy").stat().st_size == whole
    assert arrays.damaged() == [2, 3, 4]
    arrays.fill_missing(row_numbers)
    assert is_right(arrays)


def test_a_damaged_header_or_marker_is_mended(tmp_path: Path) -> None:
    arrays = filled(tmp_path)
    with open(arrays.folder / "logits.npy", "r+b") as file:
        file.write(b"garbage")
    (arrays.folder / "shards" / "000001.json").write_text("{")
    arrays.reserve()
    assert arrays.missing() == [1]
    arrays.fill_missing(row_numbers)
    assert arrays.damaged() == []
    assert np.load(arrays.folder / "logits.npy").shape == (ROWS, 1, 3)


def test_an_array_asked_for_later_is_added_without_touching_the_others(tmp_path: Path) -> None:
    first = stored(tmp_path, ("logits",))
    first.reserve()
    first.fill_missing(row_numbers)
    before = (first.folder / "logits.npy").read_bytes()
    later = stored(tmp_path, ("stage3",))
    assert not later.is_complete
    later.reserve()
    later.fill_missing(row_numbers)
    assert first.is_complete
    assert stored(tmp_path).is_complete
    assert (first.folder / "logits.npy").read_bytes() == before


def test_two_builders_at_once_share_the_shards_and_make_each_once(tmp_path: Path) -> None:
    two = [builder(tmp_path, 0.02), builder(tmp_path, 0.02)]
    started = [[int(line) for line in process.communicate(timeout=60)[0].split()] for process in two]
    assert [process.returncode for process in two] == [0, 0]
    assert sorted(started[0] + started[1]) == [0, 5, 10, 15, 20]
    assert stored(tmp_path).damaged() == []
    assert is_right(stored(tmp_path))


def test_a_build_that_is_killed_goes_on_at_its_shards(tmp_path: Path) -> None:
    process = builder(tmp_path, 0.05)
    assert process.stdout is not None
    while process.stdout.readline().strip() != "10":  # two shards are done, the third has begun
        assert process.poll() is None
    time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    arrays = stored(tmp_path)
    assert arrays.missing() == [2, 3, 4]
    begun: list[int] = []
    arrays.fill_missing(lambda rows: (begun.append(rows.start), row_numbers(rows))[1])
    assert begun == [10, 15, 20]
    assert arrays.damaged() == []
    assert is_right(arrays)


def test_a_shard_that_is_held_is_left_to_its_holder_and_filled_when_that_one_dies(tmp_path: Path) -> None:
    arrays = stored(tmp_path)
    arrays.reserve()
    with arrays.claimed(1) as mine, arrays.claimed(1) as again:
        assert mine
        assert not again
    with arrays.claimed(1) as mine:
        assert mine


def test_damage_that_is_found_while_another_array_of_the_shard_is_filled_is_not_forgotten(tmp_path: Path) -> None:
    first, later = stored(tmp_path, ("logits",)), stored(tmp_path)
    first.reserve()
    first.fill_missing(row_numbers)
    later.reserve()
    with open(first.folder / "logits.npy", "r+b") as file:
        file.seek(-3, os.SEEK_END)
        file.write(b"\xff")
    finder = threading.Thread(target=first.damaged)

    def looked_at(rows: range) -> Iterator[dict[str, np.ndarray]]:
        finder.start()
        finder.join(0.3)  # in which it finds the damage, and waits until it may write that down
        yield from row_numbers(rows)

    with later.claimed(4):
        later.fill(4, looked_at(later.rows(4)))
    finder.join()
    assert first.missing() == [4]
    later.fill_missing(row_numbers)
    assert is_right(later)


def test_too_little_space_is_refused_with_the_bytes_before_anything_is_written(tmp_path: Path) -> None:
    huge = StoredArrays(tmp_path / "answers", 10**12, {"logits": RowSpec("<f4", (1, 1000))})
    with pytest.raises(CannotStore, match=r"needs 4000.0 TB and its disk has .* free"):
        huge.reserve()
    assert not (tmp_path / "answers" / "logits.npy").exists()


@pytest.mark.parametrize("call", ["posix_fallocate", "pwrite"])
def test_a_full_disk_is_one_sentence_and_what_was_finished_is_kept(call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    arrays = stored(tmp_path)
    if call == "pwrite":
        arrays.reserve()
        with arrays.claimed(0):
            arrays.fill(0, row_numbers(arrays.rows(0)))
    with monkeypatch.context() as patch:
        patch.setattr(stored_arrays.os, call, full)
        with pytest.raises(CannotStore, match=r"No space left on device \(of 0.5 kB in all; .* are free\)"):
            arrays.reserve() if call == "posix_fallocate" else arrays.fill_missing(row_numbers)
    assert not [path for path in arrays.folder.iterdir() if path.name.startswith(".logits")]  # nothing is left aside
    arrays.reserve()
    assert arrays.missing() == ([1, 2, 3, 4] if call == "pwrite" else [0, 1, 2, 3, 4])
    arrays.fill_missing(row_numbers)
    assert is_right(arrays)


def test_whole_arrays_are_read_from_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = filled(tmp_path)
    missing = StoredArrays(tmp_path / "others", ROWS, SPECS, SHARD)

    def refused(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(stored_arrays.Path, "mkdir", refused)
    monkeypatch.setattr(stored_arrays.os, "pwrite", refused)
    arrays.reserve()
    assert arrays.damaged() == []
    assert is_right(arrays)
    with pytest.raises(CannotStore, match="Read-only file system"):
        missing.reserve()
