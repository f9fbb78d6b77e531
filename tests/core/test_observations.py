"""Observations on disk: what was written is read, and a damaged file says what to do."""

from pathlib import Path

import numpy as np
import pytest

from crossdistill.core.errors import StudyError
from crossdistill.core.observations import load_observations, save_observations
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
    found = load_observations(path)["grid=2", 1]
    assert (found.logits == SEEN.logits).all()
    assert (found.factors["shape"] == SEEN.factors["shape"]).all()
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(StudyError, match=r"clean.npz is damaged .* Delete it, and the same command makes it again"):
        load_observations(path)
