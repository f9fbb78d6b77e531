"""Declared contrasts: which arm each is against, what of it is stamped, what stands later, and what is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from crossdistill.compare import Contrast, Pair
from crossdistill.core.config import StudyConfig
from crossdistill.core.errors import SettingError, StudyError
from crossdistill.core.progress import Progress
from crossdistill.core.store import write_json
from crossdistill.core.study_file import parse_study
from crossdistill.images._splits import load_splits
from crossdistill.models._build import build_network
from crossdistill.study.folder import declared_contrasts
from crossdistill.study.plan import Plan, make_plan
from crossdistill.study.possible import what_can_work
from crossdistill.study.tables import _contrast, compared_pairs

STUDY = """
name: declared
images: {source: trifeature, n_values: 2, n_train: 60, n_test: 20, n_conflict: 10, side: 16}
networks:
  vit: {model: small/vit, width: 16, depth: 4, heads: 2}
  cnn: {model: small/resnet8}
  other: {model: small/resnet8}
pairs:
  - {teacher: vit, student: cnn, control_teacher: other, methods: [kd, {name: deit, label: token}, sskd, capd]}
  - {teacher: cnn, student: vit, methods: [kd]}
probes: [scramble, hue]
seeds: [0]
training: {threads: 1, precision: fp32}
"""
CHANGED = {"token", "sskd", "capd"}  # a head and a token; two kinds of views


def study(arms: str, *primary: str) -> StudyConfig:
    declared = f"primary: [{', '.join(f'{{pair: 0, probe: scramble, {text}}}' for text in primary)}]\n" if primary else ""
    return parse_study(f"{STUDY}arms: [{arms}]\n{declared}")


def against(config: StudyConfig) -> list[str | None]:
    return [contrast.against for contrast in config.contrasts]


def test_a_method_that_changes_the_student_is_read_against_its_twin_where_there_is_one() -> None:
    methods = ["method: kd", "method: token", "method: sskd"]
    assert against(study("independent", *methods)) == ["independent"] * 3
    assert against(study("independent, twin", *methods)) == ["independent", "twin", "twin"]
    assert against(study("independent, twin", "method: token, against: independent")) == ["independent"]


def test_by_default_the_first_method_is_declared_and_its_arm_resolved_likewise() -> None:
    assert against(study("independent, twin")) == ["independent"] * 4
    swapped = parse_study(
        STUDY.replace("[kd, {name: deit, label: token}", "[{name: deit, label: token}, kd") + "arms: [independent, twin]\n"
    )
    expected = [(pair, method, probe) for pair, method in ((0, "token"), (1, "kd")) for probe in ("scramble", "hue")]
    assert [(c.pair, c.method, c.probe) for c in swapped.contrasts] == expected
    assert against(swapped) == ["twin", "twin", "independent", "independent"]
    assert _contrast(swapped.contrasts[0]) == Contrast(0, "token", "scramble", "twin")


def finished(folder: Path, primary: list[dict[str, Any]]) -> None:
    """A folder in which one student is finished, and these contrasts were stamped."""
    write_json(folder / "plan.json", {"primary": primary, "tasks": [{"kind": "student", "run": "kd-0"}]})
    write_json(folder / "runs" / "kd-0" / "record.json", {})


STAMPED = {"pair": 0, "method": "token", "probe": "scramble"}


@pytest.mark.parametrize("stamped", [{}, {"against": "independent"}])
def test_what_was_stamped_stands_whatever_arms_are_added(tmp_path: Path, stamped: dict[str, str]) -> None:
    """Also of a plan from before there were other arms to declare, which names none."""
    finished(tmp_path, [STAMPED | stamped])
    for config in (study("independent, twin"), study("independent, twin", "method: token")):
        assert [c.against for c in declared_contrasts(tmp_path, config)] == ["independent"]


@pytest.mark.parametrize(
    ("arms", "primary"),
    [
        ("independent, twin", ["method: token, against: independent"]),  # another arm
        ("independent", []),  # without the arm
        ("independent, twin", ["method: token", "method: kd"]),  # one more
        ("independent, twin", ["method: sskd"]),
    ],
)
def test_other_contrasts_than_those_stamped_are_refused(tmp_path: Path, arms: str, primary: list[str]) -> None:
    finished(tmp_path, [STAMPED | {"against": "twin"}])
    assert [c.against for c in declared_contrasts(tmp_path, study("independent, twin", "method: token"))] == ["twin"]
    with pytest.raises(StudyError, match="its `primary` contrasts stand: .*against='twin'"):
        declared_contrasts(tmp_path, study(arms, *primary))


def test_before_any_student_is_finished_the_study_file_decides(tmp_path: Path) -> None:
    finished(tmp_path, [STAMPED])
    (tmp_path / "runs" / "kd-0" / "record.json").unlink()
    assert [c.against for c in declared_contrasts(tmp_path, study("independent, twin", "method: token"))] == ["twin"]


def worked_out(config: StudyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.setenv("CROSSDISTILL_CACHE", str(tmp_path))
    splits = load_splits(config.images.source, config.images.settings)
    planned = make_plan(config, "images", torch.device("cpu"))
    names = {training.network for training in planned.trainings}
    built = {name: build_network(str(config.networks[name].model), 2, (16, 16), settings=config.networks[name].settings) for name in names}
    return what_can_work(planned, splits, built, Progress(quiet=True))


@pytest.mark.parametrize("arms", ["independent", "independent, control_teacher"])
def test_methods_that_no_network_of_the_students_family_can_teach_are_known_without_the_arm(
    arms: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = STUDY.replace("student: vit, methods", "student: vit, control_teacher: vit, methods")
    planned = worked_out(parse_study(f"{text}arms: [{arms}]\n"), tmp_path, monkeypatch)
    assert planned.no_control.keys() == {"capd: vit -> cnn"}
    first, second = compared_pairs(planned)
    assert (first.changed, second.changed) == (CHANGED, set())
    assert (first.control_teacher, second.control_teacher) == ("other", "vit")
    assert first.no_control == {"capd": planned.no_control["capd: vit -> cnn"]}
    assert "attends over all its patches" in first.no_control["capd"]
    assert replace(second, control_teacher=None) == Pair(1, "cnn", "vit", ("kd",))


def test_a_contrast_with_a_control_teacher_that_cannot_be_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = STUDY.replace("student: vit, methods", "student: vit, control_teacher: vit, methods")
    declared = "primary: [{pair: 0, method: kd, probe: hue, against: control_teacher}, {pair: 0, method: capd, probe: hue, against: ARM}]\n"
    text += "arms: [independent, control_teacher, twin]\n" + declared
    with pytest.raises(SettingError, match=r"primary.1.against: no control teacher can teach by 'capd', .*: method 'capd' cannot be used"):
        worked_out(parse_study(text.replace("ARM", "control_teacher")), tmp_path, monkeypatch)
    assert worked_out(parse_study(text.replace("ARM", "twin")), tmp_path, monkeypatch).left_out
