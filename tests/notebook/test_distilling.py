"""`crossdistill.distill`: what becomes of the caller's modules and session, what comes back, and that it is the command line's work."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import crossdistill
from crossdistill.core.errors import CrossdistillError, SettingError, StudyError, WeightsError
from crossdistill.core.progress import Progress
from crossdistill.core.records import RunRecord
from crossdistill.study.execute import run_study
from crossdistill.study.single import single_study

HOSTILE = ("<script>alert(1)</script>", "\u202e" + "x" * 300)


def session() -> list:
    """What a caller may have set for the whole process."""
    return [
        torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist(), torch.get_num_threads(),
        torch.get_default_dtype(), torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.backends.cudnn.benchmark,
        torch.backends.cudnn.deterministic, torch.are_deterministic_algorithms_enabled(), torch.is_autocast_enabled("cpu"),
        signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), os.getcwd(), threading.active_count() < 50,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def done(tmp_path_factory, teacher, patch_net, pair, tiny, bits):
    """One distillation from inside the strangest session, with its page, and what the session and the modules were before and after."""
    torch.manual_seed(3)
    student = patch_net()
    before = session(), bits(teacher), bits(student)
    torch.set_default_dtype(torch.float64)
    torch.backends.cudnn.benchmark = True
    try:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            inside = session()
            out = tmp_path_factory.mktemp("distilled") / "out"
            result = crossdistill.distill(teacher, student, pair, method="crd", class_names=HOSTILE, out=out, **tiny)
            assert session() == inside
    finally:
        torch.set_default_dtype(torch.float32)
        torch.backends.cudnn.benchmark = False
    return result, student, before, (session(), bits(teacher), bits(student))


def test_the_session_and_the_modules_that_were_handed_over_are_as_before(done, teacher):
    _, student, before, after = done
    assert after == before
    for module in (teacher, student):
        assert module.training
        assert all(parameter.requires_grad for parameter in module.parameters())
        assert not any(inner._forward_hooks or inner._forward_pre_hooks for inner in module.modules())


def test_the_student_is_a_trained_module_of_its_own_class(done, pair, patch_net, bits):
    result, student, *_ = done
    assert type(result.student) is patch_net
    assert result.student is not student
    assert bits(result.student) != bits(student)
    assert not result.student.training
    images = torch.tensor(pair[0][:8])
    with torch.no_grad():
        torch.testing.assert_close(result.network(images).logits, result.student(images / 255))
    assert list(result.students) == [0]
    assert bits(result.students[0]) == bits(result.student)
    assert bits(result.independent.model) != bits(result.student)
    assert result.student(images / 255).requires_grad  # it can be trained on


def test_the_teacher_that_taught_is_the_one_that_was_handed_over(done, pair, teacher):
    """Its accuracy in the table is that of the module on the images that were kept for testing."""
    result = done[0]
    row = next(row for row in result.results if (row.arm, row.probe, row.metric) == ("teacher", "clean", "accuracy"))
    assert row.n == 48
    images, labels = torch.tensor(pair[0]) / 255, torch.tensor(pair[1])
    with torch.no_grad():
        right = teacher.eval()(images).argmax(1) == labels
    teacher.train()
    assert row.value == 1.0
    assert right.all()


def test_it_is_shown_with_intervals_and_every_name_is_harmless(done):
    result = done[0]
    for text in (repr(result), result._repr_html_(), result.page.read_text()):
        assert "<script>alert" not in text
    text = repr(result)
    assert "One run, no claim" in text
    assert "Call again with seeds=5" in text
    assert str(result.page) in text
    clean = next(line for line in text.splitlines() if line.startswith("clean "))
    assert clean.count(" to ") == 3, "teacher, independent and student, each with its interval"
    assert "inherited" not in text.lower().replace("inheritance", "")
    assert 'href="' in result._repr_html_()


def test_the_same_call_finds_all_done_and_seeds_and_probes_are_added(done, teacher, pair, tiny, monkeypatch, no_page):
    result, student, *_ = done
    files = {path: path.read_bytes() for path in result.folder.glob("runs/*/*") if path.is_file()}
    asked = dict(method="crd", class_names=HOSTILE, out=result.folder)
    with monkeypatch.context() as patch:
        patch.setattr("crossdistill.study.tasks._trained", lambda *_: pytest.fail("trained again"))
        again = crossdistill.distill(teacher, student, pair, **asked, **tiny)
    assert again.records == result.records
    more = crossdistill.distill(teacher, student, pair, **asked, **{**tiny, "seeds": [0, 7], "probes": ["scramble", "grayscale"]})
    assert {path: path.read_bytes() for path in files} == files
    assert [record.seed for record in more.records] == [0, 7]
    assert "grayscale" in {row.probe for row in more.results}
    fewer = crossdistill.distill(teacher, student, pair, **asked, **{**tiny, "probes": []})
    assert "scramble" not in {row.probe for row in fewer.results}
    assert [record.seed for record in fewer.records] == [0]


def test_a_module_starts_from_its_weights_and_a_function_from_those_it_draws(teacher, few, tiny, conv_net, bits, tmp_path, no_page):
    still = {**tiny, "probes": [], "training": {**tiny["training"], "learning_rate": 1e-12}}
    torch.manual_seed(9)
    student = conv_net(4)
    start = dict(student.named_parameters())
    asked = dict(method={"name": "similarity", "weight": 2}, seeds=2)
    held = crossdistill.distill(teacher, student, few, out=tmp_path / "module", **asked, **still)
    for network in (*held.students.values(), held.independent.model):
        assert all(torch.allclose(value, start[name], atol=1e-6) for name, value in network.named_parameters())
    assert any("every run starts from these" in note for note in held.records[0].notes)
    drawn = crossdistill.distill(teacher, lambda: conv_net(4), few, out=tmp_path / "function", **asked, **still)
    first, second = drawn.students.values()
    assert not torch.allclose(first.head.weight, second.head.weight, atol=1e-3)
    assert torch.allclose(first.head.weight, drawn.independent.model.head.weight, atol=1e-6), "paired by seed"
    assert not drawn.records[0].notes


def test_names_ask_for_the_study_that_the_command_line_asks_for(pair, photos, tmp_path, monkeypatch, command):
    asked = []

    def noted(config, out, **about):
        asked.append((config, out.name, about["store"], about["device"]))
        raise StudyError("enough")

    monkeypatch.setattr("crossdistill.notebook.distilling.run_study", noted)
    monkeypatch.setattr("crossdistill.study.execute.run_study", noted)
    names = {"teacher": "small/resnet8", "student": "small/vit", "method": "dkd"}
    options = [part for name, value in names.items() for part in (f"--{name}", value)]
    place = {"out": tmp_path / "told" / "same", "store": tmp_path / "store"}
    counts = ["--epochs", 3, "--seeds", 2, "--pretrained", "--out", place["out"], "--store", place["store"], "--quiet"]
    assert command("distill", *options, "--images", photos, *counts) == 2
    with pytest.raises(StudyError, match="enough"):
        crossdistill.distill(**names, images=photos, epochs=3, seeds=2, pretrained=True, quiet=True, **place)
    assert asked[0] == asked[1]


def test_names_give_the_bytes_of_a_study(photos, tmp_path, tiny, without_timing, no_page):
    """From a session with other generators and modes, and with a store of its own."""
    names = {"teacher": "small/resnet8", "student": "small/resnet8", "method": "kd"}
    called = tmp_path / "called" / "same"
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        crossdistill.distill(**names, images=photos, out=called, store=tmp_path / "store-a", **tiny)
    entries = {name: value for name, value in tiny.items() if name not in ("epochs", "quiet", "training")}
    config = single_study(**names, images=photos, seeds=[0], name="same", training={"epochs": 1, **tiny["training"]}, **entries)
    about = {"device": torch.device("cpu"), "progress": Progress(quiet=True)}
    run_study(config, tmp_path / "told" / "same", store=tmp_path / "store-b", **about)
    found, expected = without_timing(called), without_timing(tmp_path / "told" / "same")
    assert found.keys() == expected.keys()
    assert not {name for name in expected if expected[name] != found[name]} - {"phases.json"}


@pytest.fixture
def photos(pair, tmp_path) -> str:
    """The images as files of a source."""
    for row, (image, label) in enumerate(zip(pair[0][:80], pair[1][:80], strict=True)):
        path = tmp_path / "photos" / ("red" if label else "blue") / f"{row:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.transpose(1, 2, 0)).save(path)
    return f"folder:{tmp_path / 'photos'}"


def test_an_interruption_is_saved_and_the_same_call_goes_on(teacher, few, tiny, conv_net, tmp_path, monkeypatch, capsys, no_page):
    monkeypatch.chdir(tmp_path)
    from crossdistill.train.loop import Training

    torch.manual_seed(1)
    student, step = conv_net(4), Training.step

    def interrupted(self, index, epoch):
        step(self, index, epoch)
        if self.clock.step == 2:
            os.kill(os.getpid(), signal.SIGINT)

    asked = {**tiny, "probes": [], "arms": [], "quiet": False}
    with monkeypatch.context() as patch:
        patch.setattr(Training, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            crossdistill.distill(teacher, student, few, **asked)
    assert "the same call goes on from there" in capsys.readouterr().err
    result = crossdistill.distill(teacher, student, few, **asked)
    told = capsys.readouterr().err
    assert "going on from step" in told
    assert f"results go to {result.folder.resolve()}" in told
    assert result.folder.parent == Path("crossdistill-results")
    undisturbed = crossdistill.distill(teacher, student, few, out="other", **asked)
    assert undisturbed.records[0].weights == result.records[0].weights


def test_another_session_finds_what_was_done(done, teacher, pair, monkeypatch):
    """Without the module its weights cannot be put to use; the tables can be read."""
    result = done[0]
    monkeypatch.setattr("crossdistill.models.module._in_this_session", {})
    read = crossdistill.Distilled(result.folder)
    assert read.records[0] == result.records[0]
    with pytest.raises(WeightsError, match="handed over in Python"):
        assert read.student


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (dict(student=nn.Linear(3, 2)), CrossdistillError, "Linear"),
        (dict(student=3), SettingError, "a torch.nn.Module or a function that builds one, got int"),
        (dict(student=lambda: "network"), SettingError, "gives an nn.Module, got str"),
        (dict(method="kdd"), CrossdistillError, "Did you mean 'kd'"),
        (dict(epoch=3), SettingError, "there is no setting 'epoch' here"),
        (dict(training=dict(devices=2, batch_size=32)), SettingError, "study run"),
        (dict(pretrained=True), SettingError, "leave it out"),
        (dict(seeds=[0, 0]), SettingError, "seed"),
        (dict(seeds=0), SettingError, "seeds"),
        (dict(method="cskd"), SettingError, "cskd"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_trained(change, error, message, teacher, conv_net, pair, tiny, tmp_path, no_page):
    asked = {"teacher": teacher, "student": conv_net(4), "images": pair, "out": tmp_path / "out", **tiny, **change}
    with pytest.raises(error, match=message):
        crossdistill.distill(**asked)
    assert not list(tmp_path.glob("out/runs/*/record.json"))


def test_networks_of_other_classes_and_teachers_that_know_nothing_are_refused(teacher, conv_net, pair, tiny, tmp_path, no_page):
    with pytest.raises(SettingError, match="ConvNet gives 10 logits, and the images have 2 classes"):
        crossdistill.distill(conv_net(4, 10), conv_net(4), pair, out=tmp_path / "a", **tiny)
    with pytest.raises(SettingError, match="ConvNet gives 10 logits, and the images have 2 classes"):
        crossdistill.distill(teacher, conv_net(4, 10), pair, out=tmp_path / "b", **tiny)
    wrong = crossdistill.Preprocessed(teacher, std=(-1.0, -1.0, -1.0))
    with pytest.raises(WeightsError, match="give its own normalisation"):
        crossdistill.distill(wrong, conv_net(4), pair, out=tmp_path / "c", **tiny)


def test_where_every_student_failed_it_says_why(teacher, conv_net, few, tiny, tmp_path, no_page):
    bad = {**tiny, "training": {**tiny["training"], "learning_rate": 1e30, "clip_norm": None, "optimizer": "sgd"}}
    with pytest.raises(StudyError, match="no student was trained: .*not finite"):
        crossdistill.distill(teacher, conv_net(4), few, out=tmp_path / "out", **bad)


def test_an_error_in_a_notebook_is_one_line():
    assert SettingError("this: do that")._render_traceback_() == ["crossdistill: this: do that"]


def test_the_package_is_imported_at_once_and_without_torch():
    code = (
        "import sys, crossdistill; assert {'distill', 'evaluate', 'Preprocessed'} <= set(dir(crossdistill)); crossdistill.__version__; "
        "assert not {'torch', 'numpy', 'pydantic'} & set(sys.modules); "
        "assert not hasattr(crossdistill, 'distil')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_records_say_which_module_it_was(done):
    record = RunRecord.model_validate(json.loads(next(done[0].folder.glob("runs/crd-*/record.json")).read_text()))
    assert record.model.startswith("module/PatchNet-")
    assert record.family == "token"
