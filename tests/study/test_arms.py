"""The control arms: what is planned, what each is shown and taught, and how teacher and control teacher are matched."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from crossdistill.compare import read_table
from crossdistill.core.config import StudyConfig
from crossdistill.core.errors import SettingError
from crossdistill.core.progress import Progress
from crossdistill.core.records import EpochRow, EstimateModel, InheritanceRow, ResultRow, RunRecord, SimilarityRow, TransferRow
from crossdistill.core.store import read_json
from crossdistill.core.study_file import parse_study
from crossdistill.images._splits import load_splits
from crossdistill.metrics._temperature import fitted_temperature
from crossdistill.models._build import load_network
from crossdistill.observe import observe
from crossdistill.study.matching import _when, nearest_epoch
from crossdistill.study.observing import _earlier_teacher
from crossdistill.study.plan import Plan, Training, make_plan
from crossdistill.study.workshop import Workshop
from crossdistill.train.partners import same_class_partners

STUDY = """
name: arms
images: {source: trifeature, n_values: 2, n_train: 96, n_test: 40, n_conflict: 20, side: 16}
networks:
  vit: {model: small/vit, width: 16, depth: 4, heads: 2}
  cnn: {model: small/resnet8}
teachers: {epochs: 3}
pairs:
  - {teacher: cnn, student: vit, control_teacher: vit, methods: [kd, {name: deit, label: token}]}
seeds: [0, 1]
training: {epochs: 2, batch_size: 16, threads: 1, precision: fp32}
probes: [{name: scramble, levels: [{grid: 2}]}]
signal_gate: off
observe: {instruments: []}
"""
ARMS = "arms: [independent, second_independent, shuffled_teacher, control_teacher, twin]\n"


EVERY = "arms: [independent, second_independent, shorter_independents, shuffled_teacher, control_teacher, twin]\n"
SHORT = ("independent_40", "independent_60", "independent_80")


def plan(text: str) -> Plan:
    return planned_of(parse_study(text))


def planned_of(config: StudyConfig) -> Plan:
    return make_plan(config, "images", torch.device("cpu"))


def by_label(planned: Plan) -> dict[str, Training]:
    return {training.label: training for training in planned.trainings}


def test_every_control_that_makes_sense_is_planned_once_for_each_seed() -> None:
    arms = [training.arm for training in plan(STUDY + ARMS).students if training.seed == 0]
    # kd changes neither the student nor its images: the independent is its twin
    of_kd = {"kd", "kd+shuffled_teacher", "kd+control_teacher", "kd+matched_teacher"}
    of_token = {"token", "token+shuffled_teacher", "token+control_teacher", "token+matched_teacher", "token+twin"}
    assert len(arms) == len(set(arms))
    assert set(arms) == {"independent", "second_independent"} | of_kd | of_token


def test_controls_add_their_own_tasks_and_leave_the_others_as_they_were() -> None:
    before, after = by_label(plan(STUDY)), by_label(plan(STUDY + ARMS))
    assert all(after[label].key == training.key for label, training in before.items())
    assert len({training.key for training in after.values()}) == len(after) > len(before)


def test_control_students_are_taught_by_the_control_teacher_of_their_run() -> None:
    planned = by_label(plan(STUDY + ARMS))
    taught = planned["kd+control_teacher: vit -> vit, seed 1"]
    assert taught.teacher == planned["teacher: vit, seed 1"]
    assert taught.rival == planned["teacher: cnn, seed 1"]
    matched = planned["kd+matched_teacher: cnn -> vit, seed 1"]
    assert (matched.teacher, matched.rival, matched.own) == (taught.rival, taught.teacher, planned["kd: cnn -> vit, seed 1"])


def test_a_twin_is_the_same_whatever_the_weights_of_its_method() -> None:
    weighed = STUDY.replace("label: token", "label: token, weight: 3, until: 0.5")
    twins = [{t.key for t in plan(text + ARMS).students if t.control == "twin"} for text in (STUDY, weighed)]
    assert twins[0] == twins[1]
    assert len(twins[0]) == 2


def test_roles_keep_the_two_sets_of_independents_apart() -> None:
    roles = {training.arm: training.role for training in plan(STUDY + ARMS).trainings}
    assert roles["second_independent"] == "second_independent"
    assert roles["independent"] == roles["kd"] == roles["kd+control_teacher"] == roles["token+twin"] == "student"


def test_a_control_teacher_must_be_named() -> None:
    with pytest.raises(SettingError, match="needs `control_teacher:` in each pair"):
        plan(STUDY.replace("control_teacher: vit, ", "") + ARMS)


def test_partners_are_other_images_of_the_same_class_and_everyone_is_a_partner_once() -> None:
    labels = np.array([0, 1, 2, 0, 1, 2, 0, 0, 1, 2])
    partners = same_class_partners(labels, 0, "student", 3)
    assert (labels[partners] == labels).all()
    assert (partners != np.arange(10)).all()
    assert sorted(partners) == list(range(10))
    assert (partners == same_class_partners(labels, 0, "student", 3)).all()
    others = np.arange(60) % 2
    assert (same_class_partners(others, 0, "student", 3) != same_class_partners(others, 0, "student", 4)).any()
    for bad in ([0, 0, 1], [0, 0, -1, -1]):
        with pytest.raises(SettingError, match="shuffled_teacher"):
            same_class_partners(np.array(bad), 0)


def record(accuracies: list[float], **training: Any) -> RunRecord:
    rows = [
        EpochRow(epoch=i, learning_rate=0, loss=0, terms={}, train_accuracy=None, validation_accuracy=a, seconds=1, images_per_second=1)
        for i, a in enumerate(accuracies, start=1)
    ]
    return RunRecord(
        run="r", label="l", arm="teacher", method=None, teacher=None, teacher_run=None, student="s", model="m", family="cnn",
        readout="class", seed=0, parameters=1, training=training, history=rows,
        estimates={"validation_accuracy": EstimateModel(value=max(accuracies) if training else accuracies[-1])},
        timing={}, software={}, hardware={},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("mine", "theirs", "epoch"),
    [
        ([0.5, 0.62, 0.8], [0.4, 0.6], 2),  # the better one teaches with the epoch nearest to the other's last
        ([0.4, 0.6], [0.5, 0.62, 0.8], None),  # the other is the better one
        ([0.5, 0.61, 0.62], [0.6], None),  # within 3 points
        ([0.70, 0.80], [0.78], None),
        ([0.9, 0.64], [0.6], None),  # the last is the nearest
        ([0.4, 0.4, 0.9], [0.6], 2),  # of two as near the later
        ([0.2, 0.9], [0.6], None),  # no earlier epoch is nearer
    ],
)
def test_the_better_teacher_steps_back_to_the_epoch_nearest_in_accuracy(mine: list[float], theirs: list[float], epoch: int | None) -> None:
    assert nearest_epoch(record(mine), record(theirs)) == epoch


def test_after_early_stopping_the_best_epoch_is_what_was_kept_and_the_last_one_may_teach() -> None:
    stopped, rival = record([0.5, 0.9, 0.7], early_stopping=1), record([0.68])
    assert nearest_epoch(stopped, rival) == 3
    assert (_when(stopped, None), _when(stopped, 3), _when(rival, None)) == ("after epoch 2, its best", "after epoch 3", "at the end")


def test_a_study_with_every_arm_runs_and_shows_them(command: Callable[..., int], tmp_path: Path) -> None:
    file, out = tmp_path / "arms.yaml", tmp_path / "out"
    declared = "primary: [{pair: 0, method: kd, probe: scramble, against: control_teacher}, {pair: 0, method: token, probe: scramble}]\n"
    text = STUDY.replace("[0, 1]", "[0]").replace("training: {epochs: 2, batch_size: 16", "training: {epochs: 5, batch_size: 32")
    text = text.replace("n_train: 96,", "n_train: 116, validation_images: 30,") + EVERY + declared
    text = text.replace("instruments: []", "instruments: [features]")  # the others take their time, and stand in no table here
    file.write_text(text)
    assert command("study", "run", file, "--out", out, "--store", tmp_path / "store", "--quiet") == 0
    planned = read_json(out / "plan.json")
    records = {
        r.arm: r
        for r in (RunRecord.load(path.parent) for path in out.glob("runs/*/record.json"))
        if r.arm not in ("teacher", "earlier_teacher")
    }
    assert set(records) == {"independent", "kd", "token", *planned["pairs"][0]["controls"]}
    assert [len(records[arm].history) for arm in (*SHORT, "independent")] == [2, 3, 4, 5]
    _assert_every_contrast_stands_in_the_tables(out, planned)
    _assert_temperatures_are_of_clean_validation_images(parse_study(text), out, tmp_path / "store")
    assert planned["pairs"][0]["controls"]["kd+control_teacher"] == "vit"
    assert "3 points" in planned["matching"]
    twin, student = records["token+twin"], records["token"]
    assert twin.teacher is None
    assert (twin.readout, twin.parameters) == (student.readout, student.parameters) == ("mean_heads", student.parameters)
    assert set(twin.history[0].terms) == {"ce"}
    losses = {arm: [row.loss for row in records[arm].history] for arm in ("independent", "second_independent", "kd", "kd+matched_teacher")}
    assert losses["independent"] != losses["second_independent"]
    fidelity = {row.arm: row for row in read_table(out / "results.parquet", ResultRow)
                if row.metric == "fidelity_agreement" and row.probe == "clean"}  # fmt: skip
    for arm, record in records.items():
        if record.teacher_epoch:  # compared with the weights that taught it, which were observed as a run of their own
            assert record.teacher_run.endswith(f"@epoch-{record.teacher_epoch:03d}")
            assert fidelity[arm].teacher_run == record.teacher_run
    matched = records["kd+matched_teacher"]
    assert (losses["kd"] == losses["kd+matched_teacher"]) == (matched.teacher_epoch is None)
    assert any("points apart" in note for note in records["kd+control_teacher"].notes)
    page = (out / "report.html").read_text()
    assert all(arm in page for arm in records)


def _assert_every_contrast_stands_in_the_tables(out: Path, planned: dict[str, Any]) -> None:
    """One row at least for each contrast that the method has; the declared ones, and no other, are primary."""
    of_all = {"independent", "accuracy_matched", "shuffled_teacher", "control_teacher", "control_teacher_adjusted", "second_independent"}
    rows = read_table(out / "inheritance.parquet", InheritanceRow)
    contrasts = {method: {row.contrast for row in rows if row.method == method} for method in ("kd", "token")}
    assert contrasts == {"kd": of_all, "token": of_all | {"twin"}}
    assert [(contrast["method"], contrast["against"]) for contrast in planned["primary"]] == [("kd", "control_teacher"), ("token", "twin")]
    assert {(row.method, row.contrast) for row in rows if row.role == "primary"} == {("kd", "control_teacher"), ("token", "twin")}
    transfer = read_table(out / "transfer.parquet", TransferRow)
    assert {row.method for row in transfer} == {"kd", "token"}
    assert all(row.reason for row in transfer)  # of a single run seed there is no ratio
    assert read_table(out / "similarity.parquet", SimilarityRow)


def _assert_temperatures_are_of_clean_validation_images(config: StudyConfig, out: Path, store: Path) -> None:
    """Of every network, and of a teacher as it was after an epoch, by the weights on disk."""
    splits = load_splits(config.images.source, config.images.settings, validation_images=30)

    def refitted(weights: Path) -> float:
        answers = observe(load_network(weights), splits.validation)
        return fitted_temperature(answers.logits, answers.labels)

    for path in out.glob("runs/*/network.safetensors"):
        assert_told(RunRecord.load(path.parent), refitted(path))
    teacher = next(training for training in planned_of(config).teachers if training.network == "cnn")
    (folder,) = [path for path in (store / "teachers").iterdir() if RunRecord.load(path).student == "cnn"]
    assert_told(RunRecord.load(folder), refitted(folder / "network.safetensors"))
    shop = Workshop(config, splits, out, store, torch.device("cpu"), Progress(quiet=True), np.arange(1))
    earlier = _earlier_teacher(shop, replace(teacher, key=folder.name.removeprefix("teacher-")), 2)
    assert (earlier.arm, earlier.run, len(earlier.history)) == ("earlier_teacher", f"{folder.name}@epoch-002", 2)
    assert earlier.estimates["validation_accuracy"].value == earlier.history[1].validation_accuracy
    assert_told(earlier, refitted(folder / "epochs" / "epoch-002.safetensors"))


def assert_told(record: RunRecord, fitted: float) -> None:
    """A record tells the temperature that was fitted, or that it stands at a bound."""
    told = record.estimates["temperature"]
    assert told.value == pytest.approx(fitted, rel=1e-6) if 0.011 < fitted < 99 else "no temperature fits" in str(told.reason)


def test_shorter_independents_are_the_independent_with_fewer_epochs() -> None:
    longer = STUDY.replace("training: {epochs: 2", "training: {epochs: 7, warmup_epochs: 2")
    planned = by_label(plan(longer + EVERY))
    whole = planned["independent: vit, seed 1"]
    for arm, epochs in zip(SHORT, (3, 4, 6), strict=True):
        shorter = planned[f"{arm}: vit, seed 1"]
        assert (shorter.role, shorter.network, shorter.teacher, shorter.method) == ("student", "vit", None, None)
        assert shorter.recipe == whole.recipe.model_copy(update={"epochs": epochs})
    keys = {planned[f"{arm}: vit, seed 1"].key for arm in (*SHORT, "independent")}
    assert len(keys) == 4
    assert {label: t for label, t in planned.items() if t.arm not in SHORT} == by_label(plan(longer + ARMS))


def test_pairs_share_the_shorter_independents_of_a_student() -> None:
    second = "  - {teacher: vit, student: vit, control_teacher: cnn, methods: [{name: kd, label: own}]}\nseeds"
    text = STUDY.replace("seeds", second, 1).replace("epochs: 2", "epochs: 5")
    students = [t.label for t in plan(text + "arms: [independent, shorter_independents]\n").students]
    assert len(students) == len(set(students)) == 2 * (1 + 3 + 3)


@pytest.mark.parametrize(("epochs", "told"), [(1, "1, 1, 1"), (2, "1, 1, 2"), (3, "1, 2, 2"), (4, "2, 2, 3")])
def test_too_few_epochs_to_shorten_are_refused(epochs: int, told: str) -> None:
    text = STUDY.replace("training: {epochs: 2", f"training: {{epochs: {epochs}")
    with pytest.raises(
        SettingError, match=f"study, line 15: arms: shorter_independents .* of the {epochs} of 'vit' these are {told}: give 5"
    ):
        plan(text + EVERY)
    plan(text + ARMS)


def test_a_shuffled_teacher_answers_for_the_partner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Callable[..., int]) -> None:
    """Seen where it matters: the batch of the loop holds the partner's image for the teacher, the image itself for the student."""
    from crossdistill.train.loop import Training as Loop

    batches: list[tuple[Any, Any]] = []
    make = Loop.batch

    def keep(self: Loop, index: torch.Tensor, epoch: int) -> Any:
        batch, made = make(self, index, epoch), self.batches
        if made.partners is not None:
            batches.append((batch, made.augment(made.images, made.partners[index], epoch)))
        return batch

    monkeypatch.setattr(Loop, "batch", keep)
    file = tmp_path / "arms.yaml"
    file.write_text(STUDY.replace("seeds: [0, 1]", "seeds: [0]") + "arms: [independent, shuffled_teacher]\n")
    assert command("study", "run", file, "--out", tmp_path / "out", "--only", "kd+shuffled", "--quiet") == 0
    assert batches
    for batch, partners in batches:
        assert torch.equal(batch.teacher_images, partners)
        assert not torch.equal(batch.images, batch.teacher_images)


WARMED = STUDY.replace("methods: [kd, {name: deit, label: token}]", "methods: [{name: sskd, warm_up_epochs: 1}]").replace("[0, 1]", "[0]")


def test_a_warm_up_is_one_task_of_the_store_shared_by_all_students_of_a_teacher(command: Callable[..., int], tmp_path: Path) -> None:
    file, store = tmp_path / "warm.yaml", tmp_path / "store"
    file.write_text(WARMED.replace("seeds: [0]", "seeds: [0, 1]\nteachers: {epochs: 1, runs: 1}").replace("teachers: {epochs: 3}\n", ""))
    assert command("study", "run", file, "--out", tmp_path / "out", "--store", store, "--quiet") == 0
    (folder,) = (store / "warm_ups").iterdir()
    assert sorted(path.name for path in folder.iterdir() if not path.name.startswith(".")) == [
        "log.jsonl",
        "module.safetensors",
        "record.json",
    ]
    (task,) = [task for task in read_json(tmp_path / "out" / "plan.json")["tasks"] if task["kind"] == "warm_up"]
    assert task["run"] == folder.name
    before = (folder / "module.safetensors").stat().st_mtime_ns
    (tmp_path / "out2").mkdir()
    assert command("study", "run", file, "--out", tmp_path / "out2", "--store", store, "--quiet") == 0
    assert (folder / "module.safetensors").stat().st_mtime_ns == before
    students = [sorted((tmp_path / out).glob("runs/sskd-*/network.safetensors")) for out in ("out", "out2")]
    assert [path.read_bytes() for path in students[0]] == [path.read_bytes() for path in students[1]]
    assert len(students[0]) == 2


def test_a_warm_up_depends_on_its_own_settings_only() -> None:
    one = plan(WARMED).warm_ups
    other = plan(WARMED.replace("warm_up_epochs: 1", "warm_up_epochs: 1, keep: [0.5, 0.5]")).warm_ups
    longer = plan(WARMED.replace("warm_up_epochs: 1", "warm_up_epochs: 2")).warm_ups
    assert len(one) == 1
    assert one[0].key == other[0].key != longer[0].key


def test_a_method_that_refuses_the_control_teacher_has_no_control_and_says_so(command: Callable[..., int], tmp_path: Path) -> None:
    file, out = tmp_path / "capd.yaml", tmp_path / "out"
    text = STUDY.replace("teacher: cnn, student: vit, control_teacher: vit", "teacher: vit, student: cnn, control_teacher: other")
    text = text.replace("  cnn: {model: small/resnet8}", "  cnn: {model: small/resnet8}\n  other: {model: small/resnet8}")
    text = text.replace("methods: [kd, {name: deit, label: token}]", "methods: [capd]").replace("seeds: [0, 1]", "seeds: [0]")
    file.write_text(text + "arms: [independent, control_teacher]\n")
    assert command("study", "run", file, "--out", out, "--store", tmp_path / "store", "--quiet") == 0
    planned = read_json(out / "plan.json")
    assert "attends" in planned["left_out"]["capd+control_teacher: other -> cnn"]
    assert planned["no_control"].keys() == {"capd: vit -> cnn"}
    assert "attends" in planned["no_control"]["capd: vit -> cnn"]
    assert "leaves out capd+control_teacher" in (out / "report.html").read_text()
    assert {task["label"] for task in planned["tasks"]} == {"teacher: vit, seed 0", "independent: cnn, seed 0", "capd: vit -> cnn, seed 0"}


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (("control_teacher: vit", "control_teacher: cnn"), "is the teacher"),
        (("methods: [kd, {name: deit, label: token}]}", "methods: [cskd]}\n  - {teacher: other, student: vit, control_teacher: vit, "
          "methods: [{name: cskd, schedule: cosine}]}"), "would both be called 'cskd"),
    ],
)  # fmt: skip
def test_what_would_be_confused_is_refused(edit: tuple[str, str], message: str) -> None:
    text = STUDY.replace("  cnn: {model: small/resnet8}", "  cnn: {model: small/resnet8}\n  other: {model: small/resnet20}")
    with pytest.raises(SettingError, match=message):
        plan(text.replace(*edit) + ARMS)


def test_a_control_teacher_of_another_family_is_refused(command: Callable[..., int], tmp_path: Path, capsys: Any) -> None:
    file = tmp_path / "family.yaml"
    text = STUDY.replace("control_teacher: vit", "control_teacher: other")
    file.write_text(text.replace("  cnn: {model: small/resnet8}", "  cnn: {model: small/resnet8}\n  other: {model: small/resnet20}") + ARMS)
    assert command("study", "plan", file) == 2
    assert "name one of the student's own family" in capsys.readouterr().err


def test_equal_methods_in_two_pairs_are_both_planned_and_their_twins_too() -> None:
    text = STUDY.replace(
        "methods: [kd, {name: deit, label: token}]", "methods: [{name: deit, label: a}, {name: deit, label: b, weight: 3}]"
    )
    arms = {training.arm for training in plan(text + "arms: [independent, twin]\n").students}
    assert arms == {"independent", "a", "b", "a+twin", "b+twin"}


def test_writing_a_default_out_changes_no_key() -> None:
    spelled = STUDY.replace("methods: [kd,", "methods: [{name: kd, temperature: 4, until: 1.0},")
    assert {t.key for t in plan(STUDY).trainings} == {t.key for t in plan(spelled).trainings}


def test_warm_ups_of_matched_teachers_are_not_promised() -> None:
    text = WARMED + ARMS
    assert [task.label for task in plan(text).warm_ups] == ["warm-up of sskd: cnn, seed 0"]
