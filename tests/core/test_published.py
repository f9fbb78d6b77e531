"""Decisions without logits: what is read of them is what was written, and never of another network or other images."""

from pathlib import Path

import numpy as np
import pytest

from crossdistill.core.errors import RunError, StudyError
from crossdistill.core.observations import save_observations
from crossdistill.core.published import (
    Decisions,
    decisions_file,
    known_answers,
    load_decisions,
    published,
    save_decisions,
    save_set,
    set_file,
    without_logits,
)
from crossdistill.core.store import write_json
from crossdistill.core.types import UNLABELLED, Observations

FILES = {"clean": "clean-1.npz", "scramble": "scramble-2.npz"}


def seen(n: int, start: int = 0) -> Observations:
    logits = np.random.default_rng(n).standard_normal((n, 3)).astype(np.float32)
    return Observations(logits, np.arange(n) % 3, np.arange(start, start + n), {"shape": np.full(n, UNLABELLED)}, "test")


ANSWERS = {"clean-1.npz": {("", 0): seen(7)}, "scramble-2.npz": {("grid=4", 0): seen(5, 2), ("grid=2", 0): seen(6), ("grid=2", 1): seen(6)}}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """The folder of one network, of which decisions were published."""
    decisions = {file: {place: found.decisions for place, found in of_set.items()} for file, of_set in ANSWERS.items()}
    save_decisions(decisions_file(tmp_path, "kd-1"), Decisions(decisions, ("features-3.npz",), "abc"))
    for file, shown in ANSWERS.items():
        save_set(set_file(tmp_path, file), shown)
    write_json(tmp_path / "runs" / "kd-1" / "record.json", {"weights": "abc"})
    return tmp_path


def test_decisions_and_what_they_are_about_come_back_in_the_order_in_which_they_were_observed(out: Path) -> None:
    found = known_answers(out, "kd-1", FILES)
    assert list(found) == [("clean", "", 0), ("scramble", "grid=4", 0), ("scramble", "grid=2", 0), ("scramble", "grid=2", 1)]
    for (test_set, level, draw), answers in found.items():
        expected = ANSWERS[FILES[test_set]][level, draw]
        assert answers.logits.shape == (len(expected.labels), 0)
        assert answers.split == "test"
        for a, b in (
            (answers.decisions, expected.decisions),
            (answers.labels, expected.labels),
            (answers.index, expected.index),
            (answers.factors["shape"], expected.factors["shape"]),
        ):
            assert a.dtype == np.int64
            assert np.array_equal(a, b)
    assert load_decisions(decisions_file(out, "kd-1")).files == {*ANSWERS, "features-3.npz"}


def test_observations_with_logits_are_taken_before_decisions(out: Path) -> None:
    assert without_logits(out, "kd-1", FILES.values())
    save_observations(out / "observations" / "kd-1" / "clean-1.npz", {("", 0): seen(7)})
    found = known_answers(out, "kd-1", FILES)
    assert found["clean", "", 0].logits.shape == (7, 3)
    assert found["scramble", "grid=2", 1].logits.shape == (6, 0)
    assert not without_logits(out, "kd-1", ["clean-1.npz"])


def test_decisions_of_other_weights_or_other_images_are_not_read(out: Path) -> None:
    assert list(known_answers(out, "kd-1", {"clean": "clean-9.npz"})) == []
    write_json(out / "runs" / "kd-1" / "record.json", {"weights": "other"})
    assert published(out, "kd-1") is None
    assert list(known_answers(out, "kd-1", FILES)) == []


def test_with_few_classes_a_decision_takes_less_than_a_byte(tmp_path: Path) -> None:
    decisions = np.random.default_rng(0).integers(0, 10, 46_000)
    save_decisions(tmp_path / "kd-1.npz", Decisions({f"{k}.npz": {("", 0): decisions[k::40]} for k in range(40)}))
    assert (tmp_path / "kd-1.npz").stat().st_size < 25_000
    many = np.array([0, 255, 256, 70_000])
    save_decisions(tmp_path / "kd-1.npz", Decisions({"clean-1.npz": {("", 0): many}}))
    assert np.array_equal(load_decisions(tmp_path / "kd-1.npz").observations["clean-1.npz"]["", 0], many)


def test_damage_is_told_with_what_to_do(out: Path) -> None:
    set_file(out, "clean-1.npz").unlink()
    with pytest.raises(StudyError, match="it says what the decisions beside it are about"):
        known_answers(out, "kd-1", FILES)["clean", "", 0]
    path = decisions_file(out, "kd-1")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(RunError, match=r"kd-1.npz is damaged .* Delete it, and the same command makes it again"):
        published(out, "kd-1")
