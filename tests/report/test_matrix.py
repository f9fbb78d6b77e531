"""The inheritance chart: every cell on one scale, with its number, its verdict and, where there is none, the reason."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from crossdistill.core.records import InheritanceRow
from crossdistill.report import charts
from crossdistill.report.headline import headline_rows
from crossdistill.report.matrix import Matrix, inheritance_matrix, scale_limit
from crossdistill.report.page import render
from crossdistill.report.study_files import StudyFiles, read_study
from crossdistill.report.words import MINUS


@pytest.fixture(scope="module")
def study(large_study_folder: Path) -> StudyFiles:
    return read_study(large_study_folder)


@pytest.fixture
def row(study: StudyFiles) -> InheritanceRow:
    """Scramble accuracy of the first pair, declared in advance."""
    return next(row for row in headline_rows(study.inheritance, study.choice_sets) if row.role == "primary")


def chart(study: StudyFiles, *rows: InheritanceRow, limit: float = 20) -> Matrix:
    return inheritance_matrix(study, study.pairs[0], rows, limit)


def test_marks_and_interval_stand_where_the_scale_puts_them(study: StudyFiles, row: InheritanceRow) -> None:
    changes = dict(difference=0.05, low=-0.1, high=0.3, teacher_gap=0.1)
    (cell,) = chart(study, row.model_copy(update=changes)).rows[0].cells
    assert cell is not None
    # Half the width is 20 points, zero in the middle: 5 points lie at 50 + 50 * 5/20 per cent.
    assert (cell.place.student, cell.place.low, cell.place.teacher) == (62.5, 25.0, 75.0)
    assert (cell.place.high, cell.place.goes_on) == (100.0, (False, True))  # cut at the edge
    assert (cell.number, cell.limits) == ("+5.0", f"{MINUS}10.0 to +30.0")
    assert cell.declared


def test_a_cell_says_in_a_sentence_what_it_shows(study: StudyFiles, row: InheritanceRow) -> None:
    (cell,) = chart(study, row).rows[0].cells
    assert cell is not None
    assert cell.tip.startswith("Scramble accuracy, vit → cnn, kd. Inherited. +")
    assert "against independent students" in cell.tip
    assert "after Holm" in cell.tip


def test_what_is_not_measurable_has_words_and_its_reason_and_no_mark(study: StudyFiles, row: InheritanceRow) -> None:
    nothing: dict[str, Any] = dict.fromkeys(("difference", "low", "high", "teacher_gap"))
    lost = row.model_copy(update={**nothing, "verdict": "not_measurable", "reason": "cnn, seed 0: near chance"})
    bare = row.model_copy(update={"verdict": "not_measurable", "reason": "no spread", "probe": "superpixel"})
    matrix = chart(study, lost, bare)
    cells = [line.cells[0] for line in matrix.rows]
    assert [cell and cell.number for cell in cells] == ["not measurable"] * 2
    assert all(cell and cell.place.student is None and cell.place.low is None for cell in cells)
    assert matrix.footnotes == ["cnn, seed 0: near chance.", "no spread."]


def test_fewer_than_five_runs_have_no_bold_verdict(study: StudyFiles, row: InheritanceRow) -> None:
    (cell,) = chart(study, row.model_copy(update={"n_runs": 4})).rows[0].cells
    assert cell is not None
    assert cell.verdict == "unresolved"
    assert "nherited" not in cell.tip


def test_a_method_read_against_two_controls_has_two_columns_that_name_them(study: StudyFiles, row: InheritanceRow) -> None:
    twin = row.model_copy(update={"contrast": "twin"})
    both = chart(study, twin, row)
    assert both.columns == [("kd", "minus independent"), ("kd", "minus twin")]
    assert chart(study, row).columns == [("kd", "")]
    other = row.model_copy(update={"method": "crd", "probe": "superpixel"})
    assert [[bool(cell) for cell in line.cells] for line in chart(study, row, other).rows] == [[True, False], [False, True]]


def test_very_wide_intervals_do_not_flatten_the_rest(row: InheritanceRow) -> None:
    wide = row.model_copy(update={"difference": 0.1, "low": -8.0, "high": 8.2, "teacher_gap": 0.2})
    assert scale_limit([wide]) == 40  # twice the largest mark, 20 points
    assert scale_limit([row.model_copy(update={"difference": 0.01, "low": 0.0, "high": 0.02, "teacher_gap": 0.01})]) == 5
    assert scale_limit([]) == 5


class Cells(HTMLParser):
    """The charts' tables as they stand on the page: heads with their scope, and cells with what they carry."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.inside = False
        self.heads: list[dict[str, str | None]] = []
        self.cells: list[dict[str, str | None]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        facts = dict(attrs)
        self.inside = facts.get("class") == "matrix" if tag == "table" else self.inside
        if self.inside and tag in ("th", "td"):
            (self.heads if tag == "th" else self.cells).append(facts)


def test_on_the_page_it_is_a_table_whose_cells_can_be_filtered_and_asked(study: StudyFiles) -> None:
    found = Cells(render(study))
    assert {head["scope"] for head in found.heads} == {"col", "row"}
    assert {cell["data-method"] for cell in found.cells} == {"kd"}
    assert {cell["data-pair"] for cell in found.cells} == {"0", "1"}
    assert {"scramble", "superpixel", "clean", "conflict"} <= {cell["data-probe"] for cell in found.cells}
    assert all(cell["data-tip"] and cell["tabindex"] == "0" for cell in found.cells)


def test_every_verdict_of_the_page_has_its_colour_and_shape_in_the_chart_and_its_name_in_text(study: StudyFiles) -> None:
    page = render(study)
    table = page[page.index('<table class="matrix"') : page.index("How to read the numbers")]
    assert f'fill="{charts.VERDICT_COLOURS["inherited"]}"' in table
    assert re.search(r'<span class="aloud"> Inherited(, declared in advance)?</span>', table)


def test_hostile_names_in_the_chart_stay_text(study: StudyFiles, row: InheritanceRow) -> None:
    from dataclasses import replace

    evil = '"><script>alert(1)</script>'
    rows = tuple(row.model_copy(update={"method": evil, "probe": evil, "reason": evil, "contrast": c}) for c in ("independent", "twin"))
    page = render(replace(study, inheritance=rows))
    assert page.count("<script") == render(study).count("<script")
