"""A study from its file to its page: what it leaves, what it does not do twice, and what it refuses."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from crossdistill.compare import read_table
from crossdistill.core.errors import StudyError
from crossdistill.core.records import InheritanceRow, ResultRow, RunRecord
from crossdistill.core.store import locked
from crossdistill.core.study_file import read_study
from crossdistill.models._build import build_network, load_network, save_network
from crossdistill.study.folder import refuse_another_study, resolved

Command = Callable[..., int]


def results(out: Path) -> list[ResultRow]:
    return read_table(out / "results.parquet", ResultRow)


def figures(out: Path) -> list[dict[str, Any]]:
    return [row.model_dump() for row in results(out)]


def test_one_command_leaves_a_page_tables_and_records(tiny: Path, command: Command, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "out"
    assert command("study", "run", tiny, "--out", out, "--quiet") == 0
    assert capsys.readouterr().out.strip() == str(out / "report.html")
    records = [RunRecord.load(folder) for folder in sorted((out / "runs").iterdir())]
    assert sorted(record.arm for record in records) == ["independent", "independent", "kd", "kd", "teacher"]
    assert {len(record.history) for record in records} == {2}
    kd = next(record for record in records if record.arm == "kd")
    teacher = next(record for record in records if record.arm == "teacher")
    assert (kd.teacher, kd.teacher_run, kd.student, kd.family, teacher.family) == ("vit", teacher.run, "cnn", "cnn", "token")
    assert {"train_accuracy", "mean_confidence", "validation_accuracy"} <= teacher.estimates.keys()
    rows = results(out)
    assert {row.probe for row in rows} == {"clean", "conflict", "scramble", "localized_noise"}
    assert {"accuracy", "retention", "seed_ratio", "fidelity_agreement", "cue_choice_shape"} <= {row.metric for row in rows}
    assert all(row.value is None or row.value == row.value for row in rows)
    assert len(list((out / "predictions").glob("*.parquet"))) == 5
    load_network(out / "runs" / kd.run / "network.safetensors")  # a student can be taken away


def test_two_seeds_never_say_inherited(tiny: Path, command: Command, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command("study", "run", tiny, "--out", out, "--quiet")
    allowed = {"unresolved", "nothing_to_inherit", "method_did_not_act", "not_measurable"}
    assert {row.verdict for row in read_table(out / "inheritance.parquet", InheritanceRow)} <= allowed
    assert "Inherited</" not in (out / "report.html").read_text()


def test_what_is_done_is_not_done_again_and_a_new_seed_adds_only_its_runs(tiny: Path, command: Command, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command("study", "run", tiny, "--out", out, "--quiet")
    before = {path: path.stat().st_mtime_ns for path in (out / "runs").glob("*/network.safetensors")}
    tiny.write_text(tiny.read_text().replace("seeds: [0, 1]", "seeds: [0, 1, 2]"))
    assert command("study", "run", tiny, "--out", out, "--quiet") == 0
    after = {path: path.stat().st_mtime_ns for path in (out / "runs").glob("*/network.safetensors")}
    assert before.items() <= after.items()
    assert len(after) == len(before) + 2


def test_runs_of_another_study_are_not_trained_again(tiny: Path, command: Command, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    command("study", "run", tiny, "--out", first, "--quiet", "--store", tmp_path / "store")
    shutil.copytree(first / "runs", second / "runs")
    before = {path: path.stat().st_mtime_ns for path in (second / "runs").glob("*/network.safetensors")}
    tiny.write_text(tiny.read_text().replace("name: tiny", "name: another"))
    assert command("study", "run", tiny, "--out", second, "--quiet", "--store", tmp_path / "another") == 0
    assert before == {path: path.stat().st_mtime_ns for path in (second / "runs").glob("*/network.safetensors")}
    assert figures(second) == figures(first)


def test_the_same_study_gives_the_same_numbers_in_another_folder_and_store(tiny: Path, command: Command, tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert command("study", "run", tiny, "--out", tmp_path / name, "--store", tmp_path / f"store-{name}", "--quiet") == 0
    assert figures(tmp_path / "one") == figures(tmp_path / "two")


def test_arms_are_paired_by_run_seed(tiny: Path, command: Command, tmp_path: Path) -> None:
    tiny.write_text(tiny.read_text().replace("methods: [kd]", "methods: [{name: kd, weight: 0, weights: {ce: 1}}]"))
    out = tmp_path / "out"
    command("study", "run", tiny, "--out", out, "--quiet")
    runs = {(r.arm, r.seed): r for r in (RunRecord.load(folder) for folder in (out / "runs").iterdir())}
    for seed in (0, 1):  # without any weight on the teacher, a student is the independent of its seed, byte for byte
        student, independent = (load_network(out / "runs" / runs[arm, seed].run / "network.safetensors") for arm in ("kd", "independent"))
        assert all(torch.equal(a, b) for a, b in zip(student.state_dict().values(), independent.state_dict().values(), strict=True))


def crossdistill(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "crossdistill", *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def wait_for(pattern: str, folder: Path, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not list(folder.glob(pattern)):
        assert time.monotonic() < deadline, f"no {pattern} in {folder}"
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_study_that_was_killed_ends_with_the_same_numbers(tiny: Path, command: Command, tmp_path: Path, number: int) -> None:
    tiny.write_text(tiny.read_text().replace("training: {epochs: 2", "training: {epochs: 6"))
    undisturbed, out = tmp_path / "undisturbed", tmp_path / "out"
    assert command("study", "run", tiny, "--out", undisturbed, "--quiet") == 0
    process = crossdistill("study", "run", tiny, "--out", out)
    wait_for("runs/independent-*/checkpoint/step-*", out)  # in mid-training of a student
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == (130 if number == signal.SIGINT else -signal.SIGKILL)
    assert "Traceback" not in errors
    assert ("the same command goes on from there" in errors) == (number == signal.SIGINT)
    assert len(list((out / "runs").glob("*/record.json"))) < 5
    assert command("study", "run", tiny, "--out", out, "--quiet") == 0
    assert figures(out) == figures(undisturbed)


def test_a_full_disk_is_told_in_one_message_and_nothing_is_lost(tiny: Path, command: Command, tmp_path: Path) -> None:
    import resource

    out = tmp_path / "out"
    assert command("study", "plan", tiny) == 0  # decodes the images, so that the limit meets the first checkpoint
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (120_000, 120_000))  # noqa: E731
    _, errors = (process := crossdistill("study", "run", tiny, "--out", out, "--store", tmp_path / "store", preexec_fn=limit)).communicate(
        timeout=120
    )
    assert process.returncode == 2
    assert "cannot write" in errors
    assert "Free some space" in errors
    assert "Traceback" not in errors
    assert command("study", "run", tiny, "--out", out, "--store", tmp_path / "store", "--quiet") == 0


def test_a_second_driver_is_refused_and_the_first_goes_on(tiny: Path, command: Command, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "out"
    with locked(out, "held"):
        assert command("study", "run", tiny, "--out", out) == 2
    assert "another crossdistill is working in" in capsys.readouterr().err
    assert command("study", "run", tiny, "--out", out, "--quiet") == 0


def test_a_folder_that_holds_another_study_is_refused(tiny: Path, command: Command, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "out"
    command("study", "run", tiny, "--out", out, "--quiet")
    tiny.write_text(tiny.read_text().replace("name: tiny", "name: other"))
    assert command("study", "run", tiny, "--out", out) == 2
    assert "holds another study (name: tiny, not other)" in capsys.readouterr().err


def test_a_setting_of_the_images_that_came_later_makes_no_other_study(tiny: Path, tmp_path: Path) -> None:
    config, out = read_study(tiny), tmp_path / "out"
    out.mkdir()
    stamped = resolved(config)
    assert stamped["images"].pop("exclude") is None  # as in a file of the time before
    (out / "study.yaml").write_text(yaml.safe_dump(stamped))
    refuse_another_study(out, config)
    excluding = config.model_copy(update={"images": config.images.model_copy(update={"exclude": "trifeature"})})
    with pytest.raises(StudyError, match=r"holds another study \(images: "):
        refuse_another_study(out, excluding)


def test_a_folder_with_other_files_is_refused(tiny: Path, command: Command, tmp_path: Path, capsys: Any) -> None:
    assert command("study", "run", tiny, "--out", tmp_path) == 2
    assert "is not empty and holds no study" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_refused(tiny: Path, command: Command, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:  # root may write anywhere, so permissions alone would not be met
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert command("study", "run", tiny, "--out", tmp_path / "read-only") == 2
    assert "Permission denied" in capsys.readouterr().err


def test_a_loss_that_breaks_fails_its_run_and_not_the_others(tiny: Path, command: Command, tmp_path: Path, capsys: Any) -> None:
    broken = "methods: [kd, {name: kd, label: broken, weight: 1e39}]"  # beyond float32: infinite in the first step
    tiny.write_text(tiny.read_text().replace("methods: [kd]", broken))
    out = tmp_path / "out"
    assert command("study", "run", tiny, "--out", out, "--quiet") == 1
    errors = capsys.readouterr().err
    assert "failed: broken: vit -> cnn, seed 0" in errors
    assert "not finite at step 0" in errors
    assert {RunRecord.load(path.parent).arm for path in (out / "runs").glob("*/record.json")} == {"teacher", "independent", "kd"}
    assert len(json.loads((out / "failures.json").read_text())) == 2
    assert "broken" in (out / "report.html").read_text()


def saved(path: Path, n_classes: int = 2) -> Path:
    torch.manual_seed(0)
    network = build_network("small/resnet8", n_classes, (16, 16))
    save_network(network, path, class_names=[str(k) for k in range(n_classes)])
    return path


def with_checkpoint(tiny: Path, path: Path) -> None:
    tiny.write_text(tiny.read_text().replace("{model: small/vit, width: 16, depth: 1, heads: 2}", f"{{checkpoint: {path}}}"))


def test_a_checkpoint_at_chance_on_validation_is_refused_before_any_student(
    tiny: Path, command: Command, tmp_path: Path, capsys: Any
) -> None:
    with_checkpoint(tiny, saved(tmp_path / "untrained.safetensors"))
    assert command("study", "run", tiny, "--out", tmp_path / "out", "--quiet") == 2
    assert "give `class_map`" in capsys.readouterr().err


def test_a_checkpoint_of_other_classes_is_refused(tiny: Path, command: Command, tmp_path: Path, capsys: Any) -> None:
    with_checkpoint(tiny, saved(tmp_path / "five.safetensors", n_classes=5))
    assert command("study", "run", tiny, "--out", tmp_path / "out", "--quiet") == 2
    errors = capsys.readouterr().err
    assert "5" in errors
    assert "2" in errors


def test_a_damaged_checkpoint_is_refused(tiny: Path, command: Command, tmp_path: Path, capsys: Any) -> None:
    path = saved(tmp_path / "damaged.safetensors")
    content = bytearray(path.read_bytes())
    content[-5] ^= 255
    path.write_bytes(content)
    with_checkpoint(tiny, path)
    assert command("study", "run", tiny, "--out", tmp_path / "out", "--quiet") == 2
    assert "damaged" in capsys.readouterr().err


def test_a_side_that_the_patch_does_not_divide_is_refused_before_training(
    tiny: Path, command: Command, tmp_path: Path, capsys: Any
) -> None:
    tiny.write_text(tiny.read_text().replace("width: 16,", "width: 16, patch: 5,"))
    assert command("study", "run", tiny, "--out", tmp_path / "out", "--quiet") == 2
    assert "5" in capsys.readouterr().err
    assert not list((tmp_path / "out" / "runs").glob("*"))


def test_a_finished_checkpoint_teaches_without_being_trained(tiny: Path, command: Command, tmp_path: Path) -> None:
    text = tiny.read_text().replace("n_train: 160", "n_train: 500, validation_images: 100").replace("epochs: 2", "epochs: 8", 1)
    tiny.write_text(text.replace("width: 16, depth: 1, heads: 2", "width: 32, depth: 2, heads: 2"))
    assert command("study", "run", tiny, "--out", tmp_path / "first", "--quiet", "--store", tmp_path / "store") == 0
    trained = next((tmp_path / "store" / "teachers").glob("teacher-*/network.safetensors"))
    tiny.write_text(tiny.read_text().replace("{model: small/vit, width: 32, depth: 2, heads: 2}", f"{{checkpoint: {trained}}}"))
    assert command("study", "run", tiny, "--out", tmp_path / "out", "--quiet") == 0
    teacher = next(RunRecord.load(path) for path in (tmp_path / "out" / "runs").glob("teacher-*"))
    assert teacher.history == []
    taught = [{(r.seed, r.probe, r.level, r.value) for r in results(tmp_path / out) if r.arm == "kd"} for out in ("out", "first")]
    assert taught[0] == taught[1]  # the same weights teach the same


def test_only_limits_the_trainings_to_a_label_and_what_it_reads(tiny: Path, command: Command, tmp_path: Path) -> None:
    assert command("study", "run", tiny, "--out", tmp_path / "out", "--quiet", "--only", "kd: vit -> cnn, seed 1") == 0
    assert sorted(path.name.split("-")[0] for path in (tmp_path / "out" / "runs").iterdir()) == ["kd", "teacher"]


def test_status_and_plan_say_what_is_done(tiny: Path, command: Command, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "out"
    assert command("study", "plan", tiny, "--json") == 0
    plan = json.loads(capsys.readouterr().out)
    assert len(plan["trainings"]) == 5
    assert plan["observation"]["forwards_per_network"] == 60 + 40 + 3 * 60 + 3 * 60  # clean, conflict, scramble, noise
    assert plan["observation"]["seconds"] > 0
    command("study", "run", tiny, "--out", out, "--quiet", "--only", "independent", "--store", tmp_path / "store")
    capsys.readouterr()
    assert command("study", "status", out, "--json", "--store", tmp_path / "store") == 0
    states = [row["state"] for row in json.loads(capsys.readouterr().out)]
    assert sorted(states) == ["done", "done", "waiting", "waiting", "waiting"]
