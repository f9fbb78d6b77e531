import json
import shutil
import sys
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from crossdistill.core.errors import CrossdistillError, StudyError, UnknownNameError, WeightsError
from crossdistill.core.records import RunRecord
from crossdistill.export import export_student, formats, latency
from crossdistill.export.program import differences, random_images
from crossdistill.export.student import Student, find_student, find_teacher
from crossdistill.ops.network import Network

from .conftest import CLASSES, SIZE, make_network, make_run, make_study, small_student


def export(run: Path, out: Path, **asked) -> None:
    export_student(run, asked.pop("format", "safetensors"), out, store=run.parent / "store", latency=False, **asked)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def fewest_repeats(monkeypatch):
    monkeypatch.setattr(latency, "SECONDS", 0.0)


def test_the_command_prints_costs_differences_and_the_lines_that_load(run_folder, tmp_path, command, capsys, fewest_repeats):
    teacher = small_student()
    make_run(
        tmp_path / "study", "teacher-1", teacher, folder=tmp_path / "store" / "teachers" / "teacher-1", arm="teacher", teacher_run=None
    )
    assert command("export", run_folder, "--format", "huggingface", "--out", tmp_path / "out", "--store", tmp_path / "store") == 0
    printed = capsys.readouterr().out
    assert "at batch 7" in printed
    assert f'timm.create_model("local-dir:{tmp_path / "out"}", pretrained=True)' in printed
    assert printed.count("teacher") >= 3  # its size, and milliseconds at two batch sizes
    costs = json.loads((tmp_path / "out" / "latency.json").read_text())
    assert [cost["who"] for cost in costs["costs"]] == ["student", "teacher"]


def test_an_unknown_format_is_answered_with_the_nearest(run_folder, tmp_path, command, capsys):
    assert command("export", run_folder, "--format", "onxx", "--out", tmp_path / "out") == 2
    assert "no export format is called 'onxx'. Did you mean 'onnx'?" in capsys.readouterr().err
    with pytest.raises(UnknownNameError):
        export(run_folder, tmp_path / "out", format="pickle")


def test_a_teacher_is_found_in_the_store(tmp_path):
    make_study(tmp_path / "study")
    weights = tmp_path / "store" / "teachers" / "teacher-1"
    run = make_run(tmp_path / "study", "teacher-1", small_student(), folder=weights, arm="teacher", method=None)
    done = export_student(run, "safetensors", tmp_path / "out", store=tmp_path / "store", latency=False)
    assert (done.folder / "model.safetensors").exists()
    with pytest.raises(WeightsError, match="name the --store"):
        export_student(run, "safetensors", tmp_path / "out", store=tmp_path / "another", latency=False)


def test_a_teachers_weights_after_an_epoch_are_found_too(tmp_path):
    make_study(tmp_path / "study")
    kept = tmp_path / "store" / "teachers" / "teacher-1" / "epochs"
    name = "teacher-1@epoch-002"
    run = make_run(tmp_path / "study", name, small_student(), folder=kept, arm="earlier_teacher", method=None)
    (kept / "network.safetensors").rename(kept / "epoch-002.safetensors")
    record = RunRecord.load(run)
    record.model_copy(update={"weights": "of the last epoch"}).save(run)
    assert export_student(run, "safetensors", tmp_path / "out", store=tmp_path / "store", latency=False).folder.exists()


def test_a_teacher_that_is_gone_is_said_so_and_the_student_is_timed(run_folder, tmp_path, fewest_repeats):
    done = export_student(run_folder, "safetensors", tmp_path / "out", store=tmp_path / "store")
    assert done.costs
    assert "does not hold the weights of teacher-1" in done.costs["teacher_missing"]
    assert [cost["who"] for cost in done.costs["costs"]] == ["student"]
    assert "The teacher is not in the table" in (tmp_path / "out" / "README.md").read_text()


def test_a_teacher_that_only_its_maker_can_build_is_said_so(run_folder, tmp_path):
    handed = deepcopy(small_student())
    handed.model_name = "module/Gone-0123"
    make_run(tmp_path / "study", "teacher-1", handed, folder=tmp_path / "store" / "teachers" / "teacher-1")
    found = find_teacher(find_student(run_folder, tmp_path / "store"), tmp_path / "store")
    assert found.network is None
    assert "it cannot be built here (Gone-0123 is a module that was handed over in Python" in found.missing


def test_a_bare_file_is_exported_with_what_it_knows(run_folder, tmp_path):
    bare = tmp_path / "bare.safetensors"
    shutil.copy(run_folder / "network.safetensors", bare)
    export(bare, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "the file stands outside its study" in card
    assert "not recorded; ask who gave you the file" in card
    assert json.loads((tmp_path / "out" / "export.json").read_text())["class_names"] == ["left", "right", "up"]


def test_a_runs_own_weights_file_stands_for_its_folder(run_folder, tmp_path):
    export(run_folder / "network.safetensors", tmp_path / "out")
    assert json.loads((tmp_path / "out" / "export.json").read_text())["run"] == "kd-1"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder, "holds no finished run"),
        (lambda folder: folder / "nothing.safetensors", "there is no"),
        (lambda folder: _foreign(folder / "foreign.safetensors"), "was not made by crossdistill"),
    ],
    ids=["no run", "no file", "another's file"],
)
def test_what_is_no_network_of_ours_is_refused(make, message, tmp_path):
    with pytest.raises(CrossdistillError, match=message):
        export(make(tmp_path), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def _foreign(path: Path) -> Path:
    from safetensors.numpy import save_file

    save_file({"weight": np.zeros(2, np.float32)}, path)
    return path


def test_weights_that_are_not_the_records_are_refused(run_folder, tmp_path):
    make_run(tmp_path / "other", "kd-2", make_network("small/resnet8"))
    shutil.copy(tmp_path / "other" / "runs" / "kd-2" / "network.safetensors", run_folder)
    record = RunRecord.load(run_folder)
    record.model_copy(update={"weights": "0" * 64}).save(run_folder)
    with pytest.raises(WeightsError, match="replaced or damaged"):
        export(run_folder, tmp_path / "out")


def test_an_export_of_the_same_network_is_replaced_by_one_of_another_format(run_folder, tmp_path):
    out = tmp_path / "out"
    export(run_folder, out)
    first = contents(out)
    export(run_folder, out, format="huggingface")
    assert (out / "README.md").read_bytes().startswith(b"---\n")
    export(run_folder, out)
    assert contents(out) == first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "study"], "nothing is left aside"


@pytest.mark.parametrize(
    ("fill", "message"),
    [
        (lambda out: (out / "notes.txt").write_text("mine"), "is not empty and holds no export"),
        (lambda out: (out / "export.json").write_text('{"weights": "other", "run": "kd-9"}'), r"another network \(kd-9\)"),
    ],
    ids=["others' files", "another network"],
)
def test_a_folder_that_is_not_empty_is_left_alone(fill, message, run_folder, tmp_path):
    (tmp_path / "out").mkdir()
    fill(tmp_path / "out")
    before = contents(tmp_path / "out")
    with pytest.raises(StudyError, match=message):
        export(run_folder, tmp_path / "out")
    assert contents(tmp_path / "out") == before


def test_a_file_added_to_an_export_is_not_lost(run_folder, tmp_path):
    export(run_folder, tmp_path / "out")
    (tmp_path / "out" / "picture.png").write_bytes(b"mine")
    with pytest.raises(StudyError, match="holds picture.png, which no export wrote"):
        export(run_folder, tmp_path / "out")
    assert (tmp_path / "out" / "picture.png").exists()


@pytest.mark.parametrize("stopped", [KeyboardInterrupt, RuntimeError])
def test_an_export_that_is_stopped_leaves_the_earlier_one_whole(stopped, run_folder, tmp_path, monkeypatch):
    export(run_folder, tmp_path / "out")
    before = contents(tmp_path / "out")

    def stop(*_, **__):
        raise stopped

    monkeypatch.setattr(formats, "card_text", stop)
    with pytest.raises(stopped):
        export(run_folder, tmp_path / "out")
    assert contents(tmp_path / "out") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "study"]


def test_what_a_killed_export_left_aside_is_cleared(run_folder, tmp_path):
    aside = tmp_path / ".out.exporting"
    (aside / "deep").mkdir(parents=True)
    (aside / "deep" / "half.bin").write_bytes(b"half")
    export(run_folder, tmp_path / "out")
    assert not aside.exists()
    assert "half.bin" not in str(sorted(contents(tmp_path / "out")))


def test_an_export_that_answers_otherwise_is_refused():
    network = small_student()
    other = deepcopy(network)
    found = differences(network, SIZE, lambda images: other(images).logits, what="the copy")
    assert max(found.values()) == pytest.approx(0, abs=1e-5)
    other.mean.mul_(1.02)  # a normalisation that is 2 % off
    with pytest.raises(WeightsError, match="the copy answers otherwise than the network"):
        differences(network, SIZE, lambda images: other(images).logits, what="the copy")
    with pytest.raises(WeightsError, match="gives logits of shape"):
        differences(network, SIZE, lambda images: other(images).logits[:, :2], what="the copy")
    with pytest.raises(WeightsError, match="answers otherwise"):
        differences(network, SIZE, lambda images: other(images).logits * float("nan"), what="the copy")


@pytest.mark.parametrize("format", ["safetensors", "onnx"])
def test_code_that_torch_cannot_follow_is_refused_in_one_sentence(format, tmp_path):
    class Choosing(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 3)

        def forward(self, images):
            shown = self.layer(images)
            return self.head(shown.mean((2, 3)) if images.sum() > 1 else shown.amax((2, 3)))

    student = Student(Network(Choosing(), 3, (8, 8), model_name="module/Choosing").eval(), tmp_path / "file", "hash", CLASSES, (8, 8))
    with pytest.raises(WeightsError, match=r"torch.export cannot make a program of module/Choosing \(.*\). Nothing is written."):
        formats.FORMATS[format](student, tmp_path)


def test_random_images_use_all_of_eight_bits():
    images = random_images(2, (16, 16))
    assert images.dtype == torch.uint8
    assert images.min() < 5
    assert images.max() > 250
    assert torch.equal(images, random_images(2, (16, 16)))


def test_onnx_without_its_packages_is_one_sentence(run_folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(CrossdistillError, match=r"onnxscript, which is not installed: pip install 'crossdistill\[onnx\]'"):
        export(run_folder, tmp_path / "out", format="onnx")
    assert not (tmp_path / "out").exists()
