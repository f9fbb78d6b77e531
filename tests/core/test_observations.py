"""Observations on disk: what was written is read, and a damaged file says what to do."""

from pathlib import Path

import numpy as np
import pytest

from crossdistill.core.errors import StudyError
from crossdistill.core.observations import save_observations, stored_answers, stored_observations
from crossdistill.core.types import Observations

SEEN = Observations(np.ones((4, 3), np.float32), np.arange(4) % 3, np.arange(4), {"shape": np.arange(4)}, "test")


def flipped(content: bytes) -> bytes:
    changed = bytearray(content)
    changed[len(content) // 3] ^= 4
    return bytes(changed)


@pytest.mark.parametrize("damage", [lambda content: content[:200], lambda content: b"", lambda content: b"text", flipped])
def test_a_damaged_file_says_that_it_is_to_be_deleted(tmp_path: Path, damage) -> None:
    path = tmp_path / "clean.npz"
    save_observations(path, {("grid=2", 1): SEEN})
    found = stored_observations(path)["grid=2", 1]
    assert (found.logits == SEEN.logits).all()
    assert (found.factors["shape"] == SEEN.factors["shape"]).all()
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(StudyError, match=r"clean.npz is damaged .* Delete it, and the same command makes it again"):
        dict(stored_observations(path))


def test_stored_answers_are_read_when_they_are_asked_for(tmp_path: Path) -> None:
    files = {"clean": tmp_path / "clean.npz", "scramble": tmp_path / "scramble-1.npz"}
    other = Observations(2 * SEEN.logits, SEEN.labels, SEEN.index)
    save_observations(files["clean"], {("", 0): SEEN})
    save_observations(files["scramble"], {("grid=2", 0): SEEN, ("grid=2", 1): other, ("grid=4", 0): SEEN})
    answers = stored_answers(files)
    assert list(answers) == [("clean", "", 0), ("scramble", "grid=2", 0), ("scramble", "grid=2", 1), ("scramble", "grid=4", 0)]
    assert len(answers) == 4
    assert (answers["scramble", "grid=2", 1].logits == other.logits).all()
    assert answers["clean", "", 0].factors.keys() == {"shape"}
    with pytest.raises(KeyError):
        answers["scramble", "grid=8", 0]
    files["scramble"].unlink()  # what it holds is known, and nothing of it was kept
    assert ("scramble", "grid=4", 0) in answers
    assert ("scramble", "grid=8", 0) not in answers
    with pytest.raises(FileNotFoundError):
        answers["scramble", "grid=4", 0]


def test_damage_that_is_met_later_says_the_same(tmp_path: Path) -> None:
    path = tmp_path / "clean.npz"
    save_observations(path, {("", 0): SEEN})
    answers = stored_answers({"clean": path})
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(StudyError, match=r"clean.npz is damaged"):
        answers["clean", "", 0]
