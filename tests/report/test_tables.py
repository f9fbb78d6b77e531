"""Figures averaged over runs, and what stands where there is no figure."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from crossdistill.core.records import ResultRow
from crossdistill.report.contrast_tables import contrast_table
from crossdistill.report.sections.cost import cost_table
from crossdistill.report.sections.figures import figure_tables
from crossdistill.report.study_files import read_study
from crossdistill.report.tables import mean_figure, metric_table


def result(**changes: Any) -> ResultRow:
    plain = dict(run="kd-0", arm="kd", method="kd", teacher="vit", student="cnn", seed=0, probe="clean", level="", metric="accuracy")
    numbers = dict(value=0.6, low=0.5, high=0.7, n=100, unit="share", status="ok", reason=None)
    return ResultRow.model_validate({**plain, **numbers, **changes})


def test_several_runs_give_their_mean_and_the_lowest_and_highest_run():
    figure = mean_figure([result(value=0.6), result(value=0.8)])
    assert figure is not None
    assert (figure.value, figure.low, figure.high, figure.n_runs) == (pytest.approx(0.7), 0.6, 0.8, 2)


def test_one_run_keeps_its_interval_over_images():
    figure = mean_figure([result()])
    assert figure is not None
    assert (figure.low, figure.high) == (0.5, 0.7)


def test_a_run_that_could_not_be_measured_is_left_out_and_named():
    lost = result(value=None, low=None, high=None, status="not_measurable", reason="at chance")
    figure = mean_figure([result(), lost])
    assert figure is not None
    assert figure.value == 0.6
    assert figure.reason == "not measurable in 1 of 2 runs: at chance"
    nothing = mean_figure([lost])
    assert nothing is not None
    assert (nothing.value, nothing.reason) == (None, "at chance")


def test_no_run_gives_no_figure():
    assert mean_figure([]) is None


def test_the_accuracy_table_has_a_column_for_each_network_and_a_row_for_each_level(study_folder):
    table = metric_table(read_study(study_folder), "Accuracy", ["accuracy"])
    assert table is not None
    assert [column.name for column in table.columns[1:]] == [
        "teacher vit",
        "independent cnn",
        "kd",
        "teacher cnn",
        "independent vit",
        "kd",
    ]
    assert [(cells[0].text, cells[0].small) for cells in table.rows[:5]] == [
        ("clean", ""),
        ("localized noise", "fraction=0.05"),
        ("localized noise", "fraction=0.2"),
        ("localized noise", "fraction=0.4"),
        ("localized noise", "all levels"),
    ]
    assert all(cell.text.endswith("\u00a0%") for cells in table.rows for cell in cells[1:])


def test_a_short_curve_is_remarked_on_once_in_its_row(study_folder):
    table = metric_table(read_study(study_folder), "Accuracy", ["accuracy"])
    assert table is not None
    assert table.footnotes == ["curve of 2 levels"]
    marked = [cell for cells in table.rows for cell in cells if cell.footnote]
    assert [(cell.text, cell.small) for cell in marked] == [("scramble", "all levels")]


def test_agreement_stands_beside_each_teacher_for_independents_too(study_folder):
    table = metric_table(read_study(study_folder), "Agreement", ["fidelity_agreement"])
    assert table is not None
    assert [column.name for column in table.columns[1:]] == ["independent cnn", "kd", "independent vit", "kd"]


def test_a_metric_that_nobody_measured_has_no_table(study_folder):
    assert metric_table(read_study(study_folder), "Nothing", ["no_such_metric"]) is None


def test_the_contrast_table_gives_every_row_its_reason(study_folder):
    study = read_study(study_folder)
    table = contrast_table(study.inheritance)
    assert len(table.rows) == len(study.inheritance)
    assert all(cells[-1].text for cells in table.rows)


def test_cost_is_averaged_over_the_runs_of_an_arm_teachers_first(study_folder):
    table = cost_table(read_study(study_folder).records)
    assert [(cells[0].text, cells[1].text, cells[2].text) for cells in table.rows][:2] == [("cnn", "teacher", "1"), ("vit", "teacher", "1")]
    assert {cells[5].text for cells in table.rows} == {"2.60"}


def test_the_columns_of_controls_say_who_taught_them(study_folder: Path) -> None:
    study = read_study(study_folder)
    (pair, *_) = study.pairs  # vit -> cnn
    arms = {"kd+control_teacher": "cnn", "second_independent": None}
    of_kd = [row for row in study.results if (row.arm, row.student, row.metric) == ("kd", "cnn", "accuracy")]
    controls = [row.model_copy(update={"arm": arm, "teacher": teacher}) for arm, teacher in arms.items() for row in of_kd]
    planned = replace(study, pairs=(replace(pair, controls=arms),), results=(*study.results, *controls))
    (table,) = [item.table for item in figure_tables(planned) if item.heading == "Accuracy"]
    small = {column.name: column.small for column in table.columns}
    assert (small["kd"], small["kd+control_teacher"], small["second_independent"]) == ("vit → cnn", "cnn → cnn", "cnn")
