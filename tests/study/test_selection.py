import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from crossdistill.core.errors import SettingError
from crossdistill.core.study_file import read_study
from crossdistill.study.plan import Plan, make_plan
from crossdistill.study.selection import matches, refuse_unmatched
from crossdistill.study.trainings import is_asked_for


@pytest.fixture
def plan(tiny: Path) -> Plan:
    return make_plan(read_study(tiny), "images", torch.device("cpu"))


def chosen(plan: Plan, *only: str) -> list[str]:
    return [training.label for training in plan.trainings if is_asked_for(training, plan, only)]


@pytest.mark.parametrize(
    ("only", "found"),
    [
        ((), 5),
        (("kd",), 3),  # and their teacher
        (("kd*",), 3),
        (("independent*seed 1",), 1),
        (("independent*seed 1", "kd*seed 1"), 3),
        (("* seed 0",), 3),
        (("teacher",), 1),
    ],
)
def test_parts_and_patterns_choose_trainings_and_what_they_read(plan: Plan, only: tuple[str, ...], found: int) -> None:
    assert len(chosen(plan, *only)) == found


def test_a_pattern_is_one_for_the_whole_label_and_minds_the_case() -> None:
    assert not matches("kd: vit -> cnn, seed 0", ["vit*"])
    assert not matches("kd: vit -> cnn, seed 0", ["KD*"])
    assert matches("kd: vit -> cnn, seed 1", ["*seed [12]"])


def test_what_matches_nothing_is_refused_with_all_labels(plan: Plan) -> None:
    refuse_unmatched(plan, ["kd*", "seed 1"])
    with pytest.raises(SettingError, match=r"--only 'crd\*' matches no training of this study. There are: teacher: vit, seed 0; "):
        refuse_unmatched(plan, ["kd*", "crd*"])


def test_the_command_takes_several_patterns_and_several_jobs(tiny: Path, command: Callable[..., int], tmp_path: Path, capsys: Any) -> None:
    out, only = tmp_path / "out", ("--only", "kd*seed 0", "--only", "independent: cnn, seed 0")
    assert command("study", "run", tiny, "--out", out, "--quiet", "--only", "nobody") == 2
    assert "--only 'nobody' matches no training" in capsys.readouterr().err
    assert command("study", "run", tiny, "--out", out, "--quiet", "--jobs", 2, *only) == 0
    assert "kd: vit -&gt; cnn, seed 1" in (out / "report.html").read_text()  # which the page misses
    capsys.readouterr()
    assert command("study", "status", out, "--json") == 0
    states = {row["label"]: row["state"] for row in json.loads(capsys.readouterr().out)}
    assert sorted(label for label, state in states.items() if state == "done") == [
        "independent: cnn, seed 0", "kd: vit -> cnn, seed 0", "teacher: vit, seed 0",
    ]  # fmt: skip
