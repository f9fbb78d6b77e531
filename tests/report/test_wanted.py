"""Verdicts sorted by what the study file calls welcome."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from crossdistill.core.records import InheritanceRow
from crossdistill.report.headline import headline_rows
from crossdistill.report.page import render
from crossdistill.report.study_files import read_study
from crossdistill.report.wanted import by_wish, direction_of


def row(probe: str = "scramble", **changes: Any) -> InheritanceRow:
    """Six runs, 4 points up where the teacher stands 12 up, inherited."""
    names = dict(pair=0, teacher="vit", student="cnn", method="kd", contrast="independent", probe=probe, metric="accuracy")
    numbers = dict(difference=0.04, low=0.01, high=0.07, p_raw=0.01, p_holm=None, p_source="Welch t", family_size=9)
    numbers |= dict(
        minimum_detectable=0.03, runs_needed=5, teacher_gap=0.12, gap_low=0.1, gap_high=0.14, fidelity=0.1, n_runs=6, n_teachers=6
    )
    rest = dict(level_or_auc="auc", role="secondary", verdict="inherited", reason=None)
    return InheritanceRow.model_validate({**names, **numbers, **rest, **changes})


@pytest.mark.parametrize(
    ("verdict", "difference", "gap", "direction", "group"),
    [
        ("inherited", 0.04, 0.12, "up", "Wanted and inherited"),
        ("inherited", 0.04, 0.12, "down", "Unwanted and inherited"),
        ("inherited", -0.04, -0.12, "down", "Wanted and inherited"),
        ("moved_away", 0.04, -0.12, "up", "Wanted, and away from the teacher"),
        ("moved_away", -0.04, 0.12, "up", "Unwanted, and away from the teacher"),
        ("equivalent", 0.001, 0.12, "up", "Wanted, not shown"),
        ("equivalent", 0.001, 0.12, "down", "Unwanted, avoided"),
        ("equivalent", 0.001, None, "up", "Cannot be sorted"),
        ("unresolved", 0.04, 0.12, "up", "Cannot be sorted"),
        ("nothing_to_inherit", 0.04, 0.01, "up", "Cannot be sorted"),
        ("method_did_not_act", 0.04, 0.12, "up", "Cannot be sorted"),
        ("not_measurable", None, None, "up", "Cannot be sorted"),
    ],
)
def test_a_verdict_is_sorted_by_the_way_it_moved(
    verdict: str, difference: float | None, gap: float | None, direction: str, group: str
) -> None:  # fmt: skip
    found = by_wish([row(verdict=verdict, difference=difference, teacher_gap=gap)], {"scramble": direction})
    assert [wish.title for wish in found] == [group]


def test_a_figure_without_an_entry_is_not_said() -> None:
    found = by_wish([row(), row("superpixel")], {"scramble": "up"})
    assert [(wish.title, [r.probe for r in wish.rows]) for wish in found] == [
        ("Wanted and inherited", ["scramble"]), ("Not said", ["superpixel"])
    ]  # fmt: skip


def test_few_runs_are_listed_and_not_sorted() -> None:
    (found,) = by_wish([row(n_runs=3)], {"scramble": "up"})
    assert found.title == "Too few runs to sort"
    both = by_wish([row(n_runs=3), row(method="crd")], {"scramble": "up"})  # one method's runs take no verdict from another's
    assert [(wish.title, [r.method for r in wish.rows]) for wish in both] == [
        ("Wanted and inherited", ["crd"]), ("Too few runs to sort", ["kd"])
    ]  # fmt: skip


def test_the_probe_speaks_of_its_accuracy_and_the_longest_name_of_a_figure_counts() -> None:
    wanted = {"scramble": "down", "accuracy": "up", "cue_choice": "up", "cue_choice_texture": "down"}
    assert direction_of(row(), wanted) == "down"
    assert direction_of(row("superpixel"), wanted) == "up"
    assert direction_of(row(metric="retention"), wanted) is None
    assert direction_of(row(metric="cue_choice_shape"), wanted) == "up"
    assert direction_of(row(metric="cue_choice_texture"), wanted) == "down"


def test_a_wanted_figure_reaches_the_headline() -> None:
    kappa = row(metric="agreement_kappa")
    assert headline_rows([row(), kappa], ()) == [row()]
    assert headline_rows([row(), kappa], (), {"agreement_kappa": "up"}) == [row(), kappa]


def text_of(folder: Path, tmp_path: Path, wanted: dict[str, str]) -> str:
    study = read_study(folder)
    from dataclasses import replace

    page = render(replace(study, plan={**study.plan, "wanted": wanted}))
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", re.sub(r"<(style|script)>.*?</\1>", "", page, flags=re.DOTALL)))


def test_the_page_sorts_by_the_plan_and_says_so(large_study_folder: Path, tmp_path: Path) -> None:
    text = text_of(large_study_folder, tmp_path, {"scramble": "up"})
    assert "Sorted by wanted in the study file: scramble up." in text
    assert re.search(r"Wanted and inherited 1: .* vit → cnn, kd: scramble accuracy \+", text)
    assert re.search(r"Unwanted and inherited 1: .* cnn → vit, kd: scramble accuracy \u2212", text)
    assert "Wanted and unwanted" not in text_of(large_study_folder, tmp_path, {})


def test_with_two_runs_the_page_sorts_nothing(study_folder: Path, tmp_path: Path) -> None:
    text = text_of(study_folder, tmp_path, {"scramble": "up"})
    assert "Too few runs to sort" in text
    assert "nherited" not in text.replace("inheritance", "")


def test_the_plan_on_disk_carries_what_is_wanted(study_folder: Path, tmp_path: Path) -> None:
    plan = json.loads((study_folder / "plan.json").read_text())
    (tmp_path / "plan.json").write_text(json.dumps({**plan, "wanted": {"scramble": "up"}}))
    assert read_study(tmp_path).wanted == {"scramble": "up"}
    assert read_study(study_folder).wanted == {}
