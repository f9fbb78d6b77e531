"""What a plan costs: trials of the very training, measurements of earlier ones before them, nothing for what is done."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from crossdistill.core import registry
from crossdistill.core.progress import Progress
from crossdistill.core.store import read_json, write_json
from crossdistill.core.study_file import parse_study
from crossdistill.study import cost, trials
from crossdistill.study.answer_plans import AnswerPlan
from crossdistill.study.cost import planned_cost
from crossdistill.study.timings import note

STUDY = """
name: priced
images: {source: trifeature, side: 16, n_values: 2, n_train: 60, n_test: 20, n_conflict: 10}
networks:
  vit: {model: small/vit, width: 16, depth: 1, heads: 2}
  cnn: {model: small/resnet8}
pairs:
  - {teacher: vit, student: cnn, methods: [kd]}
seeds: [0]
training: {epochs: 2, batch_size: 16, threads: 1, precision: fp32}
probes: [{name: hue, levels: [{degrees: 90}]}]
observe: {instruments: []}
signal_gate: off
"""

Command = Callable[..., int]


def planned(text: str, store: Path, out: Path | None = None) -> dict[str, Any]:
    given = {"progress": Progress(quiet=True), "device": torch.device("cpu")}
    return planned_cost(parse_study(text), store=store, out=out, **given)


def rows(plan: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["label"]: row for row in plan["trainings"]}


def test_a_trial_is_made_once_for_all_seeds_and_its_speed_is_what_is_charged(tried: list[str], tmp_path: Path) -> None:
    found = planned(STUDY.replace("seeds: [0]", "seeds: [0, 1, 2]"), tmp_path)
    assert tried.count("training") == 3  # teacher, independent, kd
    row = rows(found)["kd: vit -> cnn, seed 2"]
    images = 60 - 60 // 10  # validation is cut from them
    assert row["seconds"] == pytest.approx(2 * (images // 16 * 16) / 100.0)
    assert row["basis"] == "trial: 20 steps"
    assert found["total"]["jobs"] == 1
    assert found["total"]["seconds"] == pytest.approx(sum(row["seconds"] for row in found["stages"]), abs=0.3)


def test_what_was_measured_before_beats_the_trial(tried: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noted = dict[str, Any]()
    monkeypatch.setattr(cost.Estimator, "_tried", lambda self, about, trial: noted.setdefault(about))
    seen: list[Any] = []
    known = cost.Estimator._speed

    def spied(self: Any, about: str, facts: Any, trial: Any = None) -> Any:
        seen.append((about, facts))
        return known(self, about, facts, trial)

    monkeypatch.setattr(cost.Estimator, "_speed", spied)
    assert rows(planned(STUDY, tmp_path))["kd: vit -> cnn, seed 0"]["seconds"] is None
    note(tmp_path, dict(seen)["kd: vit -> cnn"], images_per_second=48.0, between_epochs=1.0, validation_images=6.0)
    row = rows(planned(STUDY, tmp_path))["kd: vit -> cnn, seed 0"]
    assert (row["seconds"], row["basis"]) == (2 * 48 / 48.0 + 3 * 1.0, "measured before")


def test_without_a_speed_a_task_is_named_and_not_counted(tried: list[str], tmp_path: Path, capsys: Any) -> None:
    from crossdistill.study.plan_table import show_cost

    found = planned(STUDY, tmp_path)
    assert found["total"]["unknown"] == 2  # tables and page, of which no study has told yet
    show_cost(found)
    assert "2 tasks are not counted" in capsys.readouterr().out


def test_real_trials_time_every_kind_of_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "STEPS", 2)
    threads, drawn = torch.get_num_threads(), torch.manual_seed(5).get_state()
    text = STUDY.replace("methods: [kd]", "methods: [kd, crd, deit, sskd]").replace(
        "epochs: 2", "epochs: 2, views: {crops: 1, flip: false}"
    )
    text = text.replace("probes: [", "probes: [{name: scramble, levels: [{grid: 2}]}, ")
    found = planned(text + "arms: [independent, shuffled_teacher, twin]\n", tmp_path)
    assert all(row["seconds"] > 0 and row["basis"].startswith("trial: ") for row in found["trainings"])
    assert any(row["label"].startswith("warm-up of sskd") for row in found["trainings"])
    by_kind = {kind: [node for node in found["graph"] if node["kind"] == kind] for kind in ("answers", "observation", "probe")}
    assert all(nodes and all(node["basis"].startswith("trial: ") for node in nodes) for nodes in by_kind.values())
    assert not (tmp_path / "timings").exists()  # a trial is no record
    assert (torch.get_num_threads(), torch.random.initial_seed()) == (threads, 5)
    assert torch.equal(torch.random.get_rng_state(), drawn)


def test_a_slow_training_is_judged_by_fewer_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "CAP_S", 0.0)
    assert rows(planned(STUDY, tmp_path))["kd: vit -> cnn, seed 0"]["basis"] == "trial: 1 step"


def test_what_is_done_costs_nothing_and_what_a_setting_changes_is_made_again(tmp_path: Path, command: Command, capsys: Any) -> None:
    file, store, out = tmp_path / "study.yaml", tmp_path / "store", tmp_path / "out"
    file.write_text(STUDY)
    assert command("study", "run", file, "--out", out, "--store", store, "--quiet") == 0
    capsys.readouterr()

    def plan(text: str, *arguments: object) -> dict[str, Any]:
        file.write_text(text)
        assert command("study", "plan", file, "--store", store, "--json", *arguments) == 0
        return json.loads(capsys.readouterr().out)

    done = plan(STUDY, "--out", out)
    assert {node["state"] for node in done["graph"]} == {"done", "in store"}
    assert done["total"]["seconds"] == 0.0
    assert {node["seconds"] for node in done["graph"]} == {0.0}

    shared = plan(STUDY)  # without the folder only what studies share is known
    states = {label: (row["state"], row["basis"]) for label, row in rows(shared).items()}
    assert states["teacher: vit, seed 0"] == ("in store", "")
    assert states["kd: vit -> cnn, seed 0"] == ("left", "measured before")
    assert {row["stage"]: row["measured"] for row in shared["stages"]}["observations"] == ["measured before"]
    assert shared["total"]["unknown"] == 0  # tables and page, too

    other = STUDY.replace("methods: [kd]", "methods: [{name: kd, temperature: 9}]")
    changed = plan(other, "--out", out)
    left = {node["label"] for node in changed["graph"] if node["state"] == "left" and node["kind"] in ("teacher", "student")}
    assert left == {"kd: vit -> cnn, seed 0"}
    assert rows(changed)["kd: vit -> cnn, seed 0"]["note"] == "made again: a setting was changed"

    more = plan(STUDY.replace("degrees: 90}]", "degrees: 90}]}, {name: grayscale"), "--out", out)
    left = {node["label"] for node in more["graph"] if node["state"] == "left" and node["kind"] in ("probe", "observation", "student")}
    assert {label.partition(" by ")[0] for label in left} == {"grayscale"}
    assert len(left) == 1 + 3

    with pytest.MonkeyPatch.context() as patched:
        names = registry.names
        patched.setattr(registry, "names", lambda kind: [name for name in names(kind) if name != "retention"])
        fewer = plan(STUDY, "--out", out)["graph"]  # of the other metrics
    assert {node["kind"] for node in fewer if node["state"] == "left"} == {"metric", "tables", "page"}

    written = read_json(out / "plan.json")  # as a call with another setting, done too, would have left it
    (former,) = [task for task in written["tasks"] if task["label"] == "kd: vit -> cnn, seed 0"]
    shutil.copytree(out / "runs" / former["run"], out / "runs" / "kd-0")
    write_json(out / "plan.json", {**written, "tasks": [{**former, "key": "0", "run": "kd-0"}]})
    back = rows(plan(STUDY, "--out", out))["kd: vit -> cnn, seed 0"]
    assert (back["state"], back["note"]) == ("done", "")
    assert rows(changed)["kd: vit -> cnn, seed 0"]["note"] == rows(plan(other, "--out", out))["kd: vit -> cnn, seed 0"]["note"]

    write_json(out / "plan.json", written)
    (record,) = (out / "runs").glob("independent-*/record.json")
    record.unlink()  # the network has the same bytes when it is made again: what it was seen to answer stays
    left = {(node["kind"], node["label"]) for node in plan(STUDY, "--out", out)["graph"] if node["state"] == "left" and node["run"]}
    assert left == {("student", "independent: cnn, seed 0")}

    (out / "predictions").rename(tmp_path / "elsewhere")
    assert {node["kind"] for node in plan(STUDY, "--out", out)["graph"] if node["state"] == "left"} >= {"predictions", "tables", "page"}


def test_the_plan_is_printed_by_stage_with_its_total(tried: list[str], tmp_path: Path, command: Command, capsys: Any) -> None:
    (tmp_path / "study.yaml").write_text(STUDY)
    assert command("study", "plan", tmp_path / "study.yaml", "--store", tmp_path / "store", "--device", "cpu") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "kd: vit -> cnn 0 108 left 1 s trial: 20 steps" in said
    assert "observation: 150 forward passes (50 a network), about 2 s left" in said
    assert "teachers 1 - - 1 - 2 s trial" in said
    assert "on this machine's cpu with --jobs 1, one task after the other" in said


@pytest.mark.parametrize(
    ("prepared", "message"),
    [
        (lambda out: out.write_text("text"), "is a file: give the folder that is, or will be, --out"),
        (lambda out: (out / "photos").mkdir(parents=True), "is not empty and holds no study"),
        (
            lambda out: (out.mkdir(), (out / "study.yaml").write_text("name: another\nimages: {}\n")),
            "holds another study (name: another, not priced)",
        ),
    ],
)
def test_a_folder_of_something_else_is_refused(
    prepared: Callable[[Path], object], message: str, tmp_path: Path, command: Command, capsys: Any
) -> None:
    (tmp_path / "study.yaml").write_text(STUDY)
    prepared(tmp_path / "out")
    assert command("study", "plan", tmp_path / "study.yaml", "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err.strip()
    assert message in " ".join(error.split())
    assert "Traceback" not in error


def test_a_folder_that_is_still_to_be_made_has_nothing_done(tried: list[str], tmp_path: Path) -> None:
    assert {row["done"] for row in planned(STUDY, tmp_path / "store", tmp_path / "out")["trainings"]} == {False}
    assert not (tmp_path / "out").exists()


def test_the_student_of_a_matched_teacher_counts_only_where_it_is_no_copy(tried: list[str], tmp_path: Path) -> None:
    text = STUDY.replace("student: cnn,", "student: cnn, control_teacher: other,") + "arms: [independent, control_teacher]\n"
    text = text.replace("  cnn: {", "  other: {model: small/resnet20}\n  cnn: {")
    found = planned(text, tmp_path)
    matched = rows(found)["kd+matched_teacher: vit -> cnn, seed 0"]
    assert matched["state"] == "only if needed"
    assert "a copy of the method's own student" in matched["note"]
    assert found["total"]["seconds_if_needed"] > 0
    assert {row["stage"]: row["only_if_needed"] for row in found["stages"]}["students"] == 1


def test_answers_that_are_stored_are_read_however_full_the_disk_is(
    tried: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = STUDY.replace("epochs: 2", "epochs: 2, views: {crops: 1, flip: false}")

    def full(plans: dict[str, AnswerPlan], store: Path) -> dict[str, AnswerPlan]:
        return {label: cost.replace(plan, cached=False, why="they take more than is free") for label, plan in plans.items()}

    monkeypatch.setattr(cost, "affordable", full)
    assert planned(text, tmp_path)["answers"][0]["cached"] is False
    monkeypatch.setattr(cost, "are_stored", lambda *_: True)
    monkeypatch.setattr("crossdistill.study.reuse.are_stored", lambda *_: True)
    found = planned(text, tmp_path)
    assert found["answers"][0]["cached"] is True
    assert found["answers"][0]["why"].startswith("they are in the store")
    assert [node["state"] for node in found["graph"] if node["kind"] == "answers"] == ["in store"]


def test_views_drawn_afresh_are_charged_as_the_teacher_is_observed(tried: list[str], tmp_path: Path) -> None:
    (row,) = planned(STUDY.replace("epochs: 2", "epochs: 2, views: free"), tmp_path)["answers"]
    assert (row["cached"], row["left"]) == (False, 1)
    assert row["live_seconds"] == row["seconds"] == pytest.approx(row["live_forwards"] / 100.0, abs=0.05)
    assert "answer" not in tried
