"""Grids of a method's weight: what is chosen, by what, how often, and what is refused."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from crossdistill.core.config import StudyConfig
from crossdistill.core.errors import SettingError, StudyError
from crossdistill.core.progress import Progress
from crossdistill.core.records import EstimateModel, RunRecord
from crossdistill.core.store import read_json, write_json
from crossdistill.core.study_file import parse_study
from crossdistill.report.sections.weights import contents
from crossdistill.report.study_files import read_study
from crossdistill.study.choosing import Choosing, with_chosen_weights
from crossdistill.study.cost import planned_cost
from crossdistill.study.grid import Choice, Tried, choosing_study, with_weights
from crossdistill.study.splits import named, study_splits, training_fingerprint

Command = Callable[..., int]

STUDY = """\
name: weighed
images: {source: trifeature, side: 16, n_values: 2, n_train: 80, n_test: 20, n_conflict: 10}
networks:
  vit: {model: small/vit, width: 16, depth: 1, heads: 2}
  cnn: {model: small/resnet8}
teachers: {runs: 1}
pairs:
  - teacher: vit
    student: cnn
    methods:
    - {name: kd, weight: [0.5, 2]}
    - dkd
  - {teacher: cnn, student: vit, methods: [kd]}
seeds: [3, 4, 5]
training: {epochs: 1, batch_size: 16, threads: 1, precision: fp32}
probes: [{name: hue, levels: [{degrees: 90}]}]
observe: {instruments: []}
signal_gate: off
"""
NOT_FINITE = "the loss or its gradient was not finite at step 0 (epoch 1). Lower `learning_rate`."
CPU, QUIET = torch.device("cpu"), Progress(quiet=True)
SUBJECT = "kd: vit -> cnn"


class Trainings:
    """In the place of trainings: records with these accuracies by weight (or why the training failed), and which were made."""

    def __init__(self, config: StudyConfig, out: Path, gives: Mapping[str, float | str], failures: Mapping[str, str] = {}) -> None:
        self.config, self.out, self.gives, self.failures = config, out, gives, failures
        self.made: list[str] = []

    def choose(self, study: StudyConfig, folder: Path, keeps_epochs: frozenset[str]) -> Mapping[str, str]:
        failures = dict(self.failures)
        for training in Choosing.of(self.config, self.out, CPU, QUIET).plan.students:
            place = folder / "runs" / training.run
            if (place / "record.json").exists():
                continue
            self.made.append(training.label)
            gives = self.gives[training.arm]
            if isinstance(gives, str):
                failures[training.label] = f"{training.label}: {gives}"
            else:
                record(training.run, gives).save(place)
        return failures

    def chosen(self) -> float:
        config = with_chosen_weights(self.config, self.out, self.choose, device=CPU, progress=QUIET)
        assert not config.has_grids
        return config.pairs[0].methods[0].one_weight


def record(run: str, accuracy: float) -> RunRecord:
    return RunRecord(
        run=run, label=run, arm="kd", method="kd", teacher="vit", teacher_run="t", student="cnn", model="small/resnet8", family="cnn",
        readout="pooled", seed=0, parameters=1, training={}, history=[], timing={}, software={}, hardware={},
        estimates={"validation_accuracy": EstimateModel(value=accuracy, n=8)},
    )  # fmt: skip


def tried(*accuracies: float | None) -> tuple[Tried, ...]:
    return tuple(Tried(seed, "run", value, failed=None if value is not None else NOT_FINITE) for seed, value in enumerate(accuracies))


@pytest.mark.parametrize(
    ("gave", "chosen"),
    [
        ({0.5: tried(0.6, 0.7), 2.0: tried(0.9, 0.5)}, 2.0),  # the mean, and not the best or the worst seed
        ({2.0: tried(0.5, 0.7), 0.5: tried(0.7, 0.5)}, 0.5),  # equal: the smaller, in whichever order they stand
        ({0.5: tried(0.1, 0.2), 2.0: tried(0.99, None)}, 0.5),  # one of its runs diverged
        ({0.5: tried(None), 2.0: tried(None)}, None),
    ],
)
def test_the_highest_mean_validation_accuracy_decides(gave: dict[float, tuple[Tried, ...]], chosen: float | None) -> None:
    assert Choice("vit", "cnn", "kd", gave).chosen == chosen


def test_what_chooses_is_a_study_of_the_grids_alone_on_validation_images() -> None:
    config = parse_study(STUDY)
    study = choosing_study(config)
    assert [(pair.teacher, pair.student) for pair in study.pairs] == [("vit", "cnn")]
    assert [(method.arm, method.weight) for method in study.pairs[0].methods] == [("kd-0.5", 0.5), ("kd-2", 2.0)]
    assert (study.name, study.seeds, study.arms, study.probe_names, study.contrasts) == ("weighed-weights", (3, 4), (), [], ())
    splits, own = study_splits(study, QUIET), study_splits(config, QUIET)
    assert named(splits.test) == named(own.validation)
    assert not splits.extra
    assert not set(splits.test.ids) & set(own.test.ids)
    assert training_fingerprint(splits) == training_fingerprint(own)  # so that teachers are shared


def test_a_choice_is_read_from_records_and_made_again_where_what_it_rests_on_changed(tmp_path: Path) -> None:
    first = Trainings(parse_study(STUDY), tmp_path, {"kd-0.5": 0.8, "kd-2": 0.9})
    assert first.chosen() == 2.0
    assert len(first.made) == 4
    assert not Trainings(first.config, tmp_path, {}).made
    (choice,) = read_json(tmp_path / "weights.json")["choices"]
    assert (choice["grid"], choice["chosen"]) == ([0.5, 2.0], 2.0)
    assert [run["validation_accuracy"] for row in choice["weights"] for run in row["runs"]] == [0.8, 0.8, 0.9, 0.9]

    write_json(tmp_path / "weights.json", {"choices": [{**choice, "chosen": 0.5}]})  # whatever stands there, the records decide
    assert Trainings(first.config, tmp_path, {}).chosen() == 2.0

    wider = Trainings(parse_study(STUDY.replace("[0.5, 2]", "[0.5, 2, 4]")), tmp_path, {"kd-4": 0.95})
    assert wider.chosen() == 4.0
    assert wider.made == ["kd-4: vit -> cnn, seed 3", "kd-4: vit -> cnn, seed 4"]
    longer = Trainings(parse_study(STUDY.replace("epochs: 1", "epochs: 2")), tmp_path, {"kd-0.5": 0.7, "kd-2": 0.6})
    assert longer.chosen() == 0.5
    assert len(longer.made) == 4


def test_a_weight_that_diverged_is_out_and_is_not_tried_again(tmp_path: Path) -> None:
    config = parse_study(STUDY)
    assert Trainings(config, tmp_path, {"kd-0.5": 0.8, "kd-2": NOT_FINITE}).chosen() == 0.5
    again = Trainings(config, tmp_path, {})
    assert again.chosen() == 0.5
    assert not again.made
    told = [run["failed"] for row in read_json(tmp_path / "weights.json")["choices"][0]["weights"] for run in row["runs"]]
    assert told == [None, None, *["the loss or its gradient was not finite at step 0 (epoch 1)"] * 2]
    with pytest.raises(StudyError, match=r"no weight of kd: vit -> cnn can be chosen: of every one of 0\.5, 2 .* Give smaller weights"):
        Trainings(config, tmp_path / "other", {"kd-0.5": NOT_FINITE, "kd-2": NOT_FINITE}).chosen()


def test_a_failure_that_is_not_the_weights_chooses_none(tmp_path: Path) -> None:
    config = parse_study(STUDY)
    teacher = {"teacher: vit, seed 3": "teacher: vit, seed 3: " + NOT_FINITE}
    with pytest.raises(StudyError, match="since a training failed: teacher: vit, seed 3: the loss"):
        Trainings(config, tmp_path, {"kd-0.5": 0.8, "kd-2": 0.9}, teacher).chosen()
    with pytest.raises(StudyError, match="since a training failed: kd-2: vit -> cnn, seed 3: the memory was full"):
        Trainings(config, tmp_path / "full", {"kd-0.5": 0.8, "kd-2": "the memory was full."}).chosen()
    assert not (tmp_path / "weights.json").exists()


def test_teachers_of_the_choosing_keep_what_the_study_will_ask_of_them(tmp_path: Path) -> None:
    controlled = STUDY.replace("student: cnn\n", "student: cnn\n    control_teacher: cnn\n", 1)
    controlled = controlled.replace("methods: [kd]", "control_teacher: vit, methods: [kd]")
    config = parse_study(controlled + "arms: [independent, control_teacher]\n")
    choosing = Choosing.of(config, tmp_path, CPU, QUIET)
    assert {teacher.key for teacher in choosing.plan.teachers} <= choosing.wanted_epochs
    assert all(not training.control for training in choosing.plan.students)
    assert Choosing.of(parse_study(STUDY), tmp_path, CPU, QUIET).wanted_epochs == frozenset()


@pytest.fixture
def study(tmp_path: Path) -> Path:
    path = tmp_path / "study.yaml"
    path.write_text(STUDY.replace("  - {teacher: cnn, student: vit, methods: [kd]}\n", "").replace("seeds: [3, 4, 5]", "seeds: [3]"))
    return path


def test_one_command_chooses_and_goes_on_with_the_chosen_weight(study: Path, command: Command, tmp_path: Path, capsys: Any) -> None:
    out, store = tmp_path / "out", tmp_path / "store"
    given = ("--out", out, "--store", store)
    assert command("study", "run", study, *given, "--only", "nobody", "--quiet") == 2  # refused before anything is trained
    assert "matches no training of this study" in capsys.readouterr().err
    assert not list(out.glob("weights/runs/*"))

    assert command("study", "run", study, *given) == 0
    assert f"weights are chosen first, on validation images, in {out / 'weights'}: kd: vit -> cnn among 0.5, 2" in capsys.readouterr().err
    chosen = read_json(out / "weights.json")["choices"][0]["chosen"]
    kd, dkd = yaml.safe_load((out / "study.yaml").read_text())["pairs"][0]["methods"]
    assert (kd["weight"], dkd["weight"]) == (chosen, 1.0)
    records = [RunRecord.load(path.parent) for path in out.glob("runs/*/record.json")]
    assert {r.arm: r.method_settings.get("weight") for r in records} == {"teacher": None, "independent": None, "kd": chosen, "dkd": 1.0}
    assert {RunRecord.load(path.parent).arm for path in out.glob("weights/runs/*/record.json")} == {"teacher", "kd-0.5", "kd-2"}
    assert len(list((store / "teachers").iterdir())) == 1

    validation = named(study_splits(parse_study(study.read_text()), QUIET).validation)
    assert {path.name for path in out.glob("weights/observations/*/*.npz")} == {f"clean-{validation}.npz"}  # and no test image
    page, own = (out / "report.html").read_text(), (out / "weights" / "report.html").read_text()
    assert "How the weights were chosen" in page
    assert "mean accuracy of seed 3 on the 8 validation images" in page
    assert page.count(">chosen<") == 1
    assert "How the weights were chosen" not in own
    assert "without a teacher" not in own.partition("<main")[0]

    for path in (*out.glob("weights/runs/*/network.safetensors"), *out.glob("weights/runs/*/log.jsonl")):
        path.unlink()  # as of results that were committed without the networks
    shutil.rmtree(out / "weights" / "observations")
    before = {path: path.stat().st_mtime_ns for path in out.glob("weights/**/*") if path.is_file()}
    assert command("study", "run", study, *given, "--quiet") == 0
    assert {path: path.stat().st_mtime_ns for path in out.glob("weights/**/*") if path.is_file()} == before

    shown = read_study(out)  # of a study whose file now gives another weight, the page tells of no choice
    (choice,) = shown.weights["choices"]
    assert contents(shown) is not None
    assert contents(replace(shown, weights={**shown.weights, "choices": [{**choice, "chosen": 7.0}]})) is None


def test_a_folder_whose_choosing_was_stopped_is_gone_on_with(study: Path, command: Command, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "out" / "weights").mkdir(parents=True)
    write_json(tmp_path / "out" / "weights" / "plan.json", {})
    assert command("study", "status", tmp_path / "out") == 2
    assert f"`crossdistill study status {tmp_path / 'out' / 'weights'}`" in capsys.readouterr().err
    (tmp_path / "out" / "weights" / "plan.json").unlink()
    assert command("study", "run", study, "--out", tmp_path / "out", "--only", "nobody") == 2
    assert "matches no training" in capsys.readouterr().err  # and not that the folder holds something else


def test_a_plan_shows_the_choosing_first(tried: list[str], tmp_path: Path, study: Path, command: Command, capsys: Any) -> None:
    config = parse_study(study.read_text())
    found = planned_cost(config, store=tmp_path, progress=QUIET, device=CPU)
    assert found["weights"] == [{"method": SUBJECT, "grid": [0.5, 2.0], "chosen": None}]
    labels = {part: [row["label"] for row in plan["trainings"]] for part, plan in (("first", found["choosing"]), ("then", found))}
    assert labels["first"] == ["teacher: vit, seed 3", "kd-0.5: vit -> cnn, seed 3", "kd-2: vit -> cnn, seed 3"]
    states = {row["label"]: row["state"] for row in found["trainings"]}
    assert states["teacher: vit, seed 3"] == "in store"  # by then
    assert states["kd: vit -> cnn, seed 3"] == "left"
    total = found["choosing"]["total"]["seconds"] + found["total"]["seconds"]
    assert found["seconds_with_choosing"] == pytest.approx(total, abs=0.1)

    assert command("study", "plan", study) == 0
    text = capsys.readouterr().out
    assert text.index("kd: vit -> cnn among 0.5, 2") < text.index("kd-0.5: vit -> cnn") < text.index("dkd: vit -> cnn")
    assert "choosing and study together about" in text


def test_a_plan_uses_what_is_chosen_already(tried: list[str], tmp_path: Path) -> None:
    config, out = parse_study(STUDY), tmp_path / "out"
    Trainings(config, out, {"kd-0.5": 0.8, "kd-2": 0.9}).chosen()
    found = planned_cost(config, store=tmp_path, progress=QUIET, device=CPU, out=out)
    assert (found["choosing"], found["weights"]) == (None, [{"method": SUBJECT, "grid": [0.5, 2.0], "chosen": 2.0}])
    same = planned_cost(with_weights(config, {SUBJECT: 2.0}), store=tmp_path, progress=QUIET, device=CPU, out=out)
    assert [row["run"] for row in found["trainings"]] == [row["run"] for row in same["trainings"]]
    assert json.dumps(found)


@pytest.mark.parametrize(
    ("grid", "told"),
    [
        ("[1]", "a grid has at least two weights, all of them different, got [1.0]"),
        ("[1, 2, 1.0]", "a grid has at least two weights, all of them different, got [1.0, 2.0, 1.0]"),
        ("[]", "a grid has at least two weights"),
        ("[1, -2]", "weight.1: input should be greater than or equal to 0, got -2"),
        ("[1, many]", "weight.1: input should be a valid number"),
        ("-1", "weight: input should be greater than or equal to 0, got -1"),
    ],
)
def test_a_bad_grid_is_refused_with_its_line(study: Path, command: Command, tmp_path: Path, capsys: Any, grid: str, told: str) -> None:
    study.write_text(study.read_text().replace("[0.5, 2]", grid))
    assert command("study", "run", study, "--out", tmp_path / "out") == 2
    errors = capsys.readouterr().err
    assert "study.yaml, line 11: pairs.0.methods.0.weight" in errors
    assert told in errors
    assert "Traceback" not in errors


def test_a_grid_is_refused_where_several_devices_share_a_training(study: Path, command: Command, tmp_path: Path, capsys: Any) -> None:
    assert command("study", "run", study, "--out", tmp_path / "out", "--devices", "2") == 2
    assert "a weight is chosen from a list by trainings on one device each" in capsys.readouterr().err
    with pytest.raises(SettingError, match="`devices: 2`"):
        choosing_study(parse_study(STUDY.replace("epochs: 1", "epochs: 1, devices: 2")))
