"""The committed examples: what their tables must show for the pages to mean anything."""

import re
from pathlib import Path
from statistics import mean

import pytest

from crossdistill.compare import read_table
from crossdistill.core.records import InheritanceRow, ResultRow
from crossdistill.report.page import render
from crossdistill.report.study_files import read_study

EXAMPLES = Path(__file__).parent.parent / "docs" / "examples"
WITHOUT_VERDICT = {"unresolved", "nothing_to_inherit", "method_did_not_act", "not_measurable"}


def clean_accuracy(example: str, arm: str, network: str) -> list[float]:
    rows = read_table(EXAMPLES / example / "results.parquet", ResultRow)
    found = [r.value for r in rows if (r.arm, r.student, r.probe, r.metric) == (arm, network, "clean", "accuracy")]
    return [value for value in found if value is not None]


@pytest.mark.parametrize("network", ["vit", "cnn"])
def test_the_demos_teachers_know_their_task(network: str) -> None:
    assert min(clean_accuracy("demo", "teacher", network)) >= 0.90


@pytest.mark.parametrize("teacher", ["vit", "cnn"])
def test_in_each_direction_of_the_demo_there_is_something_to_inherit(teacher: str) -> None:
    rows = [r for r in read_table(EXAMPLES / "demo" / "inheritance.parquet", InheritanceRow) if r.teacher == teacher and r.probe != "clean"]
    gaps = [(r.teacher_gap, r.gap_low) for r in rows if r.teacher_gap is not None and r.gap_low is not None]
    assert any(gap >= 0.10 and low > 0 for gap, low in gaps)


def test_the_cifar_independents_have_learnt() -> None:
    assert mean(clean_accuracy("cifar10-small", "independent", "cnn")) >= 0.40
    assert mean(clean_accuracy("cifar10-small", "independent", "vit")) >= 0.30


@pytest.mark.parametrize("example", ["demo", "cifar10-small"])
def test_three_runs_an_arm_carry_no_verdict(example: str) -> None:
    assert {r.verdict for r in read_table(EXAMPLES / example / "inheritance.parquet", InheritanceRow)} <= WITHOUT_VERDICT


@pytest.mark.parametrize("example", ["demo", "cifar10-small"])
def test_a_page_is_rebuilt_from_the_committed_records_alone(example: str) -> None:
    rebuilt, committed = render(read_study(EXAMPLES / example)), (EXAMPLES / example / "report.html").read_text(encoding="utf-8")
    assert without_drawings(rebuilt) == without_drawings(committed)


def without_drawings(page: str) -> str:
    """The page without its charts, whose drawing may change with the chart library's version."""
    return re.sub(r"<svg.*?</svg>", "", page, flags=re.DOTALL)
