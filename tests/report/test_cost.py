"""The cost table and the phases of a run: what is recorded, and what is not."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from crossdistill.core.records import RunRecord
from crossdistill.report.page import render
from crossdistill.report.sections.cost import cost_table, read_phases
from crossdistill.report.study_files import read_study

PHASES = {"images": 1.0, "probes": 2.0, "trainings": 90.0, "tables": 3.0, "page": 2.0, "total": 100.0}


@pytest.fixture
def folder(study_folder: Path, tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(study_folder, tmp_path / "study"))
    for name in ("results", "inheritance"):  # their charts take seconds, and are not looked at here
        (folder / f"{name}.parquet").unlink()
    return folder


def of(record: RunRecord, **timing: float) -> RunRecord:
    return record.model_copy(update={"timing": {**record.timing, **timing}, "flops": 25_129_984})


def cells(records: list[RunRecord], arm: str) -> dict[str, Any]:
    table = cost_table(records)
    (row,) = [row for row in table.rows if row[1].text == arm]
    return {column.name: cell for column, cell in zip(table.columns, row, strict=True)}


def test_time_is_set_beside_the_independents_and_the_teachers_share_beside_what_was_stored(folder: Path) -> None:
    records = [record for record in read_study(folder).records if record.student == "cnn"]
    kd = [of(r, seconds_per_epoch=3.9, teacher_share=0.25, teacher_cached=0.0, peak_memory_mb=1234.4) for r in records if r.arm == "kd"]
    found = cells([*(r for r in records if r.arm != "kd"), *kd], "kd")
    assert (found["Seconds an epoch"].text, found["Seconds an epoch"].small) == ("3.90", "1.50 times the independent")
    assert (found["Teacher's share"].text, found["Teacher's share"].small) == ("25.0\u00a0%", "asked at every step")
    assert (found["FLOPs"].text, found["FLOPs"].sort) == ("25.1 million", 25_129_984)
    assert found["Peak memory"].text == "1,234 MB"
    stored = cells([of(r, teacher_share=0.01, teacher_cached=1.0) for r in kd], "kd")
    assert stored["Teacher's share"].small == "100.0\u00a0% of the answers stored"


def test_records_from_before_say_that_it_was_not_recorded(folder: Path) -> None:
    path = next(folder.glob("runs/kd-cnn-0/record.json"))
    written = json.loads(path.read_text())
    del written["flops"]
    path.write_text(json.dumps(written))
    found = cells([r for r in read_study(folder).records if r.student == "cnn"], "kd")
    assert {found[name].text for name in ("FLOPs", "Teacher's share", "Peak memory")} == {"not recorded"}
    assert cells([r for r in read_study(folder).records if r.student == "cnn"], "independent")["Teacher's share"].text == "no teacher"


def test_a_network_that_existed_already_took_no_epoch(folder: Path) -> None:
    records = [of(r, seconds_per_epoch=0.0, images_per_second=0.0) for r in read_study(folder).records if r.arm == "teacher"]
    found = cells([record for record in records if record.student == "cnn"], "teacher")
    assert (found["Seconds an epoch"].text, found["Images a second"].text) == ("not trained here", "not recorded")


def test_the_phases_of_a_run_add_up(folder: Path) -> None:
    (folder / "phases.json").write_text(json.dumps({"format": 1, "timing": PHASES, "executor": "local", "jobs": 2}))
    table, damage = read_phases(read_study(folder))
    assert table is not None
    assert damage is None
    assert table.caption == "Phases of the last run (local executor, 2 jobs at once)"
    assert [row[1].text for row in table.rows] == ["1.0 s", "2.0 s", "90.0 s", "3.0 s", "2.0 s", "2.0 s", "1 min 40 s"]
    assert [row[2].text for row in table.rows][2] == "90.0\u00a0%"


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"timing": {}, "executor": "local", "jobs": 1}', '{"timing": {"total": "x"}, "executor": "local", "jobs": 1}']
)
def test_damaged_phases_do_not_stop_the_page(folder: Path, text: str) -> None:
    (folder / "phases.json").write_text(text)
    assert "phases.json is damaged: the phases of the run are not shown" in render(read_study(folder))


def test_a_study_without_phases_says_nothing_of_them(folder: Path) -> None:
    assert read_phases(read_study(folder)) == (None, None)
