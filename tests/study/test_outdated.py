"""A teacher that is trained again and comes out with other weights, as on a machine that computes otherwise: its students are as well."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from crossdistill.compare import read_table
from crossdistill.core.records import ResultRow, RunRecord
from crossdistill.models._build import save_network
from crossdistill.study import tasks

Command = Callable[..., int]


def records(out: Path) -> dict[str, RunRecord]:
    found = [RunRecord.load(path.parent) for path in (out / "runs").glob("*/record.json")]
    return {record.run: record for record in found}


def taught(out: Path) -> list[RunRecord]:
    return [record for record in records(out).values() if record.teacher]


@pytest.fixture
def another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Teachers come out a little differently from now on."""

    def save(network: Any, path: Path, **options: Any) -> None:
        if options["extra"]["run"].startswith("teacher"):
            with torch.no_grad():
                for values in network.parameters():
                    values.add_(0.05 * torch.ones_like(values))
        save_network(network, path, **options)

    monkeypatch.setattr(tasks, "save_network", save)


def study(tiny: Path, *, seeds: str) -> Path:
    """The tiny study, with every arm that a teacher stands behind."""
    text = tiny.read_text().replace("seeds: [0, 1]", f"seeds: {seeds}").replace("student: cnn,", "student: cnn, control_teacher: cnn,")
    tiny.write_text(text + ("" if "arms:" in text else "arms: [independent, control_teacher, shuffled_teacher]\n"))
    return tiny


def figures(out: Path) -> list[dict[str, Any]]:
    return [row.model_dump() for row in read_table(out / "results.parquet", ResultRow)]


def test_students_of_a_teacher_that_came_out_differently_are_trained_again(
    tiny: Path, command: Command, tmp_path: Path, capsys: Any, request: pytest.FixtureRequest
) -> None:
    out = tmp_path / "out"
    assert command("study", "run", study(tiny, seeds="[0]"), "--out", out, "--store", tmp_path / "store") == 0
    before = records(out)
    for record in taught(out):
        assert record.teacher_weights[str(record.teacher_run).partition("@")[0]]
        assert record.teacher_weights == {run: before[run].weights for run in record.teacher_weights}

    request.getfixturevalue("another_machine")
    tiny.write_text(tiny.read_text().replace("seeds: [0]", "seeds: [0, 1]"))
    capsys.readouterr()
    assert command("study", "run", tiny, "--out", out, "--store", tmp_path / "another") == 0
    assert "again, since its teacher was trained again and has other weights now" in capsys.readouterr().err
    after = records(out)
    for record in taught(out):
        assert record.teacher_weights == {run: after[run].weights for run in record.teacher_weights}
    for run in before.keys() & after.keys():
        assert (after[run].weights == before[run].weights) == (before[run].arm == "independent"), run
    # All that stands in the folder is as in one where nothing stood before.
    assert command("study", "run", tiny, "--out", tmp_path / "fresh", "--store", tmp_path / "another", "--quiet") == 0
    assert figures(out) == figures(tmp_path / "fresh")


def test_a_study_stopped_on_the_way_to_that_goes_on_with_it(
    tiny: Path, command: Command, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    out = tmp_path / "out"
    assert command("study", "run", tiny, "--out", out, "--store", tmp_path / "store", "--quiet") == 0
    before = taught(out)
    request.getfixturevalue("another_machine")
    again = tmp_path / "again"
    shutil.copytree(out / "runs", again / "runs", ignore=shutil.ignore_patterns("kd-*"))
    assert command("study", "run", tiny, "--out", again, "--store", tmp_path / "another", "--quiet", "--only", "teacher") == 0
    (teacher,) = [record for record in records(again).values() if record.arm == "teacher"]
    shutil.rmtree(tmp_path / "another" / "teachers")  # and of the new teacher nothing is here but its record
    for record in before:
        shutil.copytree(out / "runs" / record.run, again / "runs" / record.run)
    assert command("study", "run", tiny, "--out", again, "--store", tmp_path / "another", "--quiet") == 0
    assert {weights for record in taught(again) for weights in record.teacher_weights.values()} == {teacher.weights}
