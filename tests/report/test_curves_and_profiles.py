"""Curves, training curves and profiles: what is drawn, what each mark says, and what is left out."""

import re
import shutil
from pathlib import Path

import pytest

from crossdistill.compare import read_table, write_table
from crossdistill.core.records import ResultRow
from crossdistill.report.page import render
from crossdistill.report.sections import training
from crossdistill.report.sections.curves import accuracy_curves
from crossdistill.report.sections.profiles import profile_of
from crossdistill.report.sections.training import accuracy_chart, losses, training_legend
from crossdistill.report.study_files import StudyFiles, read_study

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def study(study_folder: Path) -> StudyFiles:
    return read_study(study_folder)


def labels(drawing: str | None) -> list[str]:
    assert drawing is not None
    return [label.replace("\u00a0", " ") for label in re.findall(r'aria-label="([^"]*)"', drawing)[1:]]


def test_every_mark_of_a_curve_says_its_figure_and_interval(study: StudyFiles) -> None:
    drawing = accuracy_curves(study, study.pairs[0], "scramble")
    found = labels(drawing)
    assert len(found) == 3 * 3  # teacher, independent and kd: clean and two levels
    assert re.search(r">grid<", drawing or "")
    row = next(r for r in study.results if (r.run, r.probe, r.level, r.metric) == ("teacher-vit-0", "scramble", "grid=4", "accuracy"))
    limits = f"({100 * (row.low or 0):.1f} to {100 * (row.high or 0):.1f})"
    assert f"teacher vit, grid=4: {100 * (row.value or 0):.1f} % {limits}, 1 run" in found
    assert accuracy_curves(study, study.pairs[0], "no_such_probe") is None


def test_the_page_says_of_what_the_intervals_are(study: StudyFiles) -> None:
    assert "Student&#39;s over runs where there are three or more that differ, else over images" in render(study)


def test_a_profile_sets_the_three_kinds_of_network_side_by_side(study: StudyFiles) -> None:
    profile = profile_of(study, study.pairs[0])
    assert profile is not None
    assert [column.name for column in profile.table.columns] == ["Figure", "teacher vit", "independent cnn", "kd"]
    assert [cells[0].text for cells in profile.table.rows] == [
        "clean accuracy", "localized noise retention", "scramble retention", "superpixel retention", "shape bias on conflict images",
    ]  # fmt: skip
    assert profile.table.facts[2] == {"probe": "scramble", "pair": "0"}
    assert len(labels(profile.svg)) == 5 * 3
    assert any(label.startswith("kd, scramble retention: ") and label.endswith(", 2 runs") for label in labels(profile.svg))


def test_what_a_profile_could_not_measure_is_said_with_its_reason(study_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(study_folder, tmp_path / "study"))
    lost = dict(value=None, low=None, high=None, status="not_measurable", reason="too close to chance")
    rows = read_table(folder / "results.parquet", ResultRow)
    gone = [r.model_copy(update=lost) if (r.arm, r.probe, r.metric) == ("kd", "scramble", "retention") else r for r in rows]
    write_table([r for r in gone if (r.arm, r.metric) != ("teacher", "shape_bias")], folder / "results.parquet")
    study = read_study(folder)
    profile = profile_of(study, study.pairs[0])
    assert profile is not None
    by_name = {cells[0].text: cells for cells in profile.table.rows}
    assert by_name["scramble retention"][3].text == "not measurable"
    assert profile.table.footnotes == ["too close to chance"]
    assert by_name["shape bias on conflict images"][1].text == "not observed"
    assert "kd: not measurable" in profile.svg
    assert len(labels(profile.svg)) == 5 * 3 - 2


def test_nothing_observed_gives_no_profile(study_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(study_folder, tmp_path / "study"))
    (folder / "results.parquet").unlink()
    (folder / "inheritance.parquet").unlink()
    study = read_study(folder)
    assert profile_of(study, study.pairs[0]) is None
    assert "Profiles side by side" not in render(study)


def test_training_curves_are_drawn_for_what_was_trained(study: StudyFiles) -> None:
    legend = training_legend(study)
    runs = [record for record in study.records if record.student == "cnn"]
    found = labels(accuracy_chart("cnn", runs, legend))
    assert len(found) == sum(len(record.history) for record in runs)
    assert any(re.fullmatch(r"kd, seed 1, epoch 8: \d\d\.\d %", label) for label in found)
    assert [drawing.title for drawing in losses("cnn", runs, legend)] == ["whole loss", "ce"]
    assert accuracy_chart("cnn", [], legend) is None


def test_long_trainings_have_marks_so_many_epochs_apart_and_one_at_the_end(study: StudyFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "MARKS", 10)
    runs = [record for record in study.records if (record.student, record.arm) == ("cnn", "kd")]  # two runs of eight epochs
    found = labels(accuracy_chart("cnn", runs, training_legend(study)))
    assert [re.sub(":.*", "", label) for label in found] == [f"kd, seed {seed}, epoch {epoch}" for seed in (0, 1) for epoch in (2, 4, 6, 8)]


def test_hostile_networks_and_terms_stay_text(study: StudyFiles) -> None:
    runs = [record for record in study.records if record.arm == "kd"]
    rows = [row.model_copy(update={"terms": {HOSTILE: 1.0}}) for row in runs[0].history]
    (_, drawing) = losses(HOSTILE, [runs[0].model_copy(update={"history": rows})], training_legend(study))
    assert "<script" not in drawing.svg
