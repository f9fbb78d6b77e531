"""The study files that come with the project are read as they stand, and what was found by them is what the documentation says."""

import re
import runpy
from pathlib import Path

import pytest

from crossdistill.core.study_file import read_study
from crossdistill.report.page import render
from crossdistill.report.study_files import read_study as read_results

STUDIES = Path(__file__).parent.parent / "studies"
FILES = [path for path in sorted(STUDIES.rglob("*.yaml")) if path.name != "study.yaml"]  # those are of results


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(STUDIES)))
def test_a_study_that_comes_with_the_project_is_one(path: Path) -> None:
    config = read_study(path)
    assert all(pair.methods for pair in config.pairs)
    assert sum(config.name == read_study(other).name for other in FILES) == 1, "two would be refused in one folder, and not told apart"


RESULTS = STUDIES / "cifar10" / "results"
PAGE = Path(__file__).parent.parent / "docs" / "cifar10.md"


def test_the_page_of_the_committed_results_is_rebuilt_from_them_alone() -> None:
    pages = render(read_results(RESULTS)), (RESULTS / "report.html").read_text(encoding="utf-8")
    rebuilt, committed = (
        re.sub(r"<svg.*?</svg>", "", page, flags=re.DOTALL) for page in pages
    )  # drawn as the chart library's version does
    assert rebuilt == committed


@pytest.mark.parametrize(("function", "folders", "start", "end"), [
    ("main", ["results"], "<!-- tables.py -->", "<!-- end of tables.py -->"),
    ("other_images", ["results", "lossless"], "<!-- tables.py, two folders -->", "<!-- end of two folders -->"),
    ("by_method", ["dose"], "<!-- tables.py, dose -->", "### Students of"),
    ("by_method", ["exploratory"], "<!-- tables.py, exploratory -->", "<!-- end of exploratory -->"),
])  # fmt: skip
def test_the_tables_of_the_documentation_are_those_of_the_committed_results(
    function: str, folders: list[str], start: str, end: str, capsys: pytest.CaptureFixture[str]
) -> None:
    made = runpy.run_path(str(STUDIES / "cifar10" / "tables.py"))
    made[function](*(STUDIES / "cifar10" / folder for folder in folders))
    printed = set(capsys.readouterr().out.splitlines())
    told = PAGE.read_text(encoding="utf-8").partition(start)[2].partition(end)[0]
    rows = [line for line in told.splitlines() if line.startswith("| ")]
    assert len(rows) > 50
    assert not [row for row in rows if row not in printed]


@pytest.mark.parametrize(("first", "second"), [("kd-2", "kd"), ("kd-1", "kd-until-0.5")])
def test_differences_between_methods_are_those_of_the_committed_results(
    first: str, second: str, capsys: pytest.CaptureFixture[str]
) -> None:
    made = runpy.run_path(str(STUDIES / "cifar10" / "tables.py"))
    made["between"](STUDIES / "cifar10" / "dose", first, second)
    assert capsys.readouterr().out.strip() in PAGE.read_text(encoding="utf-8")
