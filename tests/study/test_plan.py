"""The plan: what is shared, what a change re-runs, and what is written down before the first student starts."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from crossdistill.core.config import StudyConfig
from crossdistill.core.records import EstimateModel
from crossdistill.core.study_file import parse_study, read_study
from crossdistill.images._splits import load_splits
from crossdistill.study.folder import resolved
from crossdistill.study.plan import Plan, make_plan
from crossdistill.study.splits import fingerprint
from crossdistill.study.tasks import memorised

STUDY = """
name: planned
images: {source: trifeature, side: 16, n_values: 2, n_train: 40, n_test: 20, n_conflict: 10}
networks:
  vit: {model: small/vit, width: 16, depth: 1, heads: 2}
  cnn: {model: small/resnet8}
pairs:
  - {teacher: vit, student: cnn, methods: [kd, {name: kd, label: warm, temperature: 8}]}
  - {teacher: cnn, student: vit, methods: [kd]}
seeds: [0, 1]
"""


def plan(text: str, images: str = "images") -> Plan:
    return make_plan(parse_study(text), images, torch.device("cpu"))


def keys(planned: Plan) -> dict[str, str]:
    return {training.label: training.key for training in planned.trainings}


def changed(text: str, images: str = "images") -> set[str]:
    before, after = keys(plan(STUDY)), keys(plan(text, images))
    return {label for label in after if before.get(label) != after[label]}


def test_teachers_come_first_and_pairs_share_independents() -> None:
    planned = plan(STUDY)
    assert [training.arm for training in planned.trainings] == ["teacher"] * 4 + ["independent"] * 4 + ["kd", "warm"] * 2 + ["kd"] * 2
    assert all(student.teacher.seed == student.seed for student in planned.students if student.teacher)


def test_one_teacher_run_teaches_every_student() -> None:
    planned = plan(STUDY + "teachers: {runs: 1}")
    assert len(planned.teachers) == 2
    assert planned.one_teacher_checkpoint
    assert {student.teacher.seed for student in planned.students if student.teacher} == {0}


def test_a_methods_setting_changes_that_method_only() -> None:
    assert changed(STUDY.replace("temperature: 8", "temperature: 9")) == {"warm: vit -> cnn, seed 0", "warm: vit -> cnn, seed 1"}


def test_a_teachers_recipe_changes_it_and_its_students_only() -> None:
    touched = changed(STUDY.replace("heads: 2}", "heads: 2, training: {epochs: 3}}"))
    assert "independent: cnn, seed 0" not in touched
    assert {"teacher: vit, seed 0", "kd: vit -> cnn, seed 0", "kd: cnn -> vit, seed 0", "independent: vit, seed 0"} <= touched
    assert "teacher: cnn, seed 0" not in touched


def test_a_seed_a_probe_or_a_default_written_out_changes_no_training() -> None:
    assert changed(STUDY.replace("seeds: [0, 1]", "seeds: [0, 1]\nprobes: [scramble]\nprimary: []")) == set()
    assert changed(STUDY.replace("seeds: [0, 1]", "seeds: [0, 1]\ntraining: {batch_size: 128}")) == set()
    assert {label[-6:] for label in changed(STUDY.replace("[0, 1]", "[0, 1, 2]"))} == {"seed 2"}


@pytest.mark.parametrize("idle", ["milestones: [0.3]", "momentum: 0.8", "cache_dtype: float16"])
def test_a_setting_changes_only_the_trainings_that_use_it(idle: str) -> None:
    used = {"optimizer": "sgd", "schedule": "step"} if "cache" not in idle else {}
    before = STUDY.replace("{model: small/resnet8}", f"{{model: small/resnet8, training: {json.dumps(used)}}}")
    after = keys(plan(before + f"training: {{{idle}}}"))
    touched = {label for label, key in keys(plan(before)).items() if key != after[label]}
    cnn, taught = "independent: cnn, seed 0" in touched, "kd: vit -> cnn, seed 0" in touched
    assert (cnn, taught) == (bool(used), True)
    assert not {"teacher: vit, seed 0", "independent: vit, seed 0"} & touched


def test_precision_auto_is_what_the_device_makes_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    warmed = STUDY.replace("methods: [kd, {name: kd, label: warm, temperature: 8}]", "methods: [sskd]")
    automatic = {}
    for here in ("fp32", "bf16"):
        monkeypatch.setattr("crossdistill.study.keys.resolved_precision", lambda asked, _, here=here: here if asked == "auto" else asked)
        automatic[here] = plan(warmed)
        told = plan(warmed + f"training: {{precision: {here}}}")
        assert keys(told) == keys(automatic[here])
        assert [task.key for task in told.warm_ups] == [task.key for task in automatic[here].warm_ups]
    assert automatic["fp32"].warm_ups[0].key != automatic["bf16"].warm_ups[0].key


def test_the_warm_up_of_a_finished_checkpoint_says_its_precision(tmp_path: Path) -> None:
    (tmp_path / "own.safetensors").write_bytes(b"weights")
    text = STUDY.replace("{model: small/vit, width: 16, depth: 1, heads: 2}", f"{{checkpoint: {tmp_path}/own.safetensors}}")
    text = text.replace("  - {teacher: cnn, student: vit, methods: [kd]}\n", "").replace("methods: [kd, {", "methods: [sskd, {")
    made = {here: plan(text + f"training: {{precision: {here}}}").warm_ups[0].key for here in ("fp32", "bf16")}
    assert made["fp32"] != made["bf16"]


def test_other_images_change_every_training(tmp_path: Path, monkeypatch) -> None:
    assert changed(STUDY, images="others") == set(keys(plan(STUDY)))
    monkeypatch.setenv("CROSSDISTILL_CACHE", str(tmp_path))
    settings = parse_study(STUDY).images.settings
    prints = [
        fingerprint(load_splits("trifeature", {**settings, **more}))
        for more in ({}, {}, {"seed": 1}, {"label": "texture", "correlated": "shape"})
    ]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3
    smaller = fingerprint(load_splits("trifeature", settings, train_images=20))
    assert smaller not in prints


def test_the_resolved_study_reads_as_the_same_study(tmp_path: Path) -> None:
    config = parse_study(STUDY)
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(resolved(config)))
    again: StudyConfig = read_study(tmp_path / "study.yaml")
    assert keys(make_plan(again, "images", torch.device("cpu"))) == keys(make_plan(config, "images", torch.device("cpu")))
    assert resolved(again) == resolved(config)


def test_the_plan_is_stamped_with_its_primary_contrasts(tmp_path: Path, command: Callable[..., int]) -> None:
    more = "training: {epochs: 1, threads: 1}\nprobes: [scramble]\nwanted: {scramble: up}\n"
    (tmp_path / "study.yaml").write_text(STUDY + more)
    assert command("study", "run", tmp_path / "study.yaml", "--out", tmp_path / "out", "--quiet", "--only", "independent: cnn, seed 0") == 0
    written = json.loads((tmp_path / "out" / "plan.json").read_text())
    declared = {"method": "kd", "probe": "scramble", "against": "independent"}
    assert written["primary"] == [{"pair": 0, **declared}, {"pair": 1, **declared}]
    assert written["wanted"] == {"scramble": "up"}
    assert written["probes"]["scramble"]["about"] == ["permutation"]
    assert written["factors"] == {"label": "shape", "correlated": "texture"}
    assert written["observations"].keys() == {"clean", "conflict", "scramble"}
    assert len(written["tasks"]) == 14


def test_a_teacher_that_memorised_its_images_is_told_in_words() -> None:
    certain = {"train_accuracy": EstimateModel(value=1.0), "mean_confidence": EstimateModel(value=0.999)}
    assert "has memorised its training images (100.0 % right, mean confidence 99.9 %)" in memorised("teacher: vit", certain)[0]
    assert memorised("teacher: vit", {**certain, "mean_confidence": EstimateModel(value=0.8)}) == []


@pytest.mark.usefixtures("tried")
def test_the_plan_costs_the_shorter_independents_by_their_epochs(tmp_path: Path, command: Callable[..., int], capsys) -> None:
    (tmp_path / "study.yaml").write_text(
        STUDY + "arms: [independent, shorter_independents]\ntraining: {epochs: 5, threads: 1}\nprobes: [hue]\n"
    )
    assert command("study", "plan", tmp_path / "study.yaml", "--json") == 0
    rows = {row["label"]: row for row in json.loads(capsys.readouterr().out)["trainings"]}
    arms = ("independent", "independent_40", "independent_60", "independent_80")
    visits = [rows[f"{arm}: cnn, seed 1"]["image_visits"] for arm in arms]
    assert visits == [visits[0] // 5 * epochs for epochs in (5, 2, 3, 4)]
    seconds = [rows[f"{arm}: cnn, seed 1"]["seconds"] for arm in arms]
    assert seconds[0] > seconds[3] > seconds[2] > seconds[1] > 0


@pytest.mark.usefixtures("tried")
def test_the_plan_lists_the_encoder_that_it_will_have_to_train(tiny, command, capsys, tmp_path):
    tiny.write_text(tiny.read_text().replace("probes: [", "probes: [stylized, "))
    store = tmp_path / "store"
    assert command("study", "plan", tiny, "--store", store, "--json") == 0
    first = json.loads(capsys.readouterr().out)["trainings"][0]
    assert (first["label"], first["done"], first["image_visits"]) == ("encoder for probes", False, 8 * 144)
    tiny.write_text(tiny.read_text().replace("[stylized, ", "[{name: stylized, encoder: small/vgg}, "))
    assert command("study", "plan", tiny, "--store", store, "--json") == 0
    assert "encoder for probes" not in capsys.readouterr().out
