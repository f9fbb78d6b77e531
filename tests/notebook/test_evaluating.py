"""`crossdistill.evaluate`: figures of plain modules, under the names that they were given."""

import sys
import types

import numpy as np
import pytest
import torch
from torch import nn

import crossdistill
from crossdistill.core.errors import ImageError, SettingError
from crossdistill.core.progress import Progress
from crossdistill.models._build import build_network, save_network
from crossdistill.notebook.images import source_of
from crossdistill.notebook.progress import CellProgress, session_progress
from crossdistill.notebook.results import Evaluation


@pytest.fixture
def parts(pair):
    """Training and test images, so that every figure can be computed by hand."""
    return {"train": (pair[0][:160], pair[1][:160]), "test": (pair[0][160:], pair[1][160:])}


def right(network: nn.Module, parts, change=lambda images: images) -> float:
    images, labels = change(torch.tensor(parts["test"][0]) / 255), torch.tensor(parts["test"][1])
    with torch.no_grad():
        return float((network.eval()(images).argmax(1) == labels).double().mean())


def accuracy(found: Evaluation, name: str, probe: str = "clean") -> float:
    return next(r.value for r in found.results if (r.student, r.probe, r.metric) == (name, probe, "accuracy") and r.level in ("", "auc"))


def test_accuracies_are_those_of_the_modules(parts, conv_net, teacher, bits, tmp_path):
    torch.manual_seed(1)
    fresh, before = conv_net(), bits(teacher)
    darkened = crossdistill.Preprocessed(fresh, mean=(0.9, 0.1, 0.5), std=(0.2, 0.3, 0.4))
    hostile = "<b onmouseover=alert(1)>"
    found = crossdistill.evaluate(
        {"mine": teacher, hostile: fresh, "other": darkened}, parts, probes=["grayscale"], out=tmp_path / "out", quiet=True
    )
    assert bits(teacher) == before
    assert accuracy(found, "mine") == pytest.approx(right(teacher, parts))
    teacher.train()
    assert accuracy(found, hostile) == pytest.approx(right(fresh, parts))
    mean, std = (torch.tensor(values)[:, None, None] for values in (darkened.mean, darkened.std))
    assert accuracy(found, "other") == pytest.approx(right(fresh, parts, lambda images: (images - mean) / std))
    assert {row.student for row in found.results} == {"mine", hostile, "other"}
    assert any({row.a, row.b} == {"mine", "other"} for row in found.pairs)
    assert (tmp_path / "out" / "results.parquet").exists()
    assert "<b on" not in found._repr_html_()
    assert "&lt;b on" in found._repr_html_()
    lines = repr(found).splitlines()
    assert lines[0] == "3 networks evaluated"
    assert next(line for line in lines if line.startswith("clean")).count(" to ") == 3


def test_a_module_of_a_result_keeps_its_preprocessing(parts, tmp_path):
    torch.manual_seed(2)
    named = build_network("small/resnet8", 2, (16, 16))  # made for images of mean and std 0.5
    from crossdistill.notebook.networks import bare

    module = bare(named)
    save_network(named, tmp_path / "file.safetensors", class_names=["0", "1"])
    found = crossdistill.evaluate({"module": module}, parts, probes="grayscale", quiet=True)
    from_file = crossdistill.evaluate(tmp_path / "file.safetensors", parts, probes="grayscale", quiet=True)
    assert accuracy(found, "module") == accuracy(from_file, "file")
    assert accuracy(found, "module", "grayscale") == accuracy(from_file, "file", "grayscale")


def test_names_are_found_where_none_are_given(parts, conv_net):
    torch.manual_seed(4)
    found = crossdistill.evaluate([conv_net(), conv_net()], parts, probes="grayscale", quiet=True)
    assert {row.student for row in found.results} == {"ConvNet", "ConvNet-2"}


def test_what_cannot_be_evaluated_is_refused(parts, conv_net, teacher, pair):
    for networks, error, message in [
        ([], SettingError, "there is no network"),
        ({"a": teacher, "b": teacher}, SettingError, "'a' and 'b' are one network"),
        (conv_net(4, 5), SettingError, "ConvNet gives 5 logits, and the images have 2 classes"),
        ({"model": "small/resnet8", "width": 3}, SettingError, "takes no setting `width`"),
        ("nowhere.safetensors", SettingError, "there is no network at nowhere.safetensors"),
    ]:
        with pytest.raises(error, match=message):
            crossdistill.evaluate(networks, parts, quiet=True)
    with pytest.raises(ImageError, match="uint8"):
        crossdistill.evaluate(teacher, (pair[0].astype(np.float32), pair[1]))


def test_modules_that_differ_anywhere_have_names_of_their_own(conv_net, pair):
    """Weights, print, and what neither shows: an attribute, a function behind the forward pass, noise in train mode."""
    from crossdistill.models.module import hand_over

    class Scaled(conv_net):
        scale, noise = 1.0, 0.0

        def forward(self, images):
            answers = super().forward(images * self.scale)
            return answers + self.noise * torch.randn_like(answers) if self.training else answers

    def name(**changes) -> str:
        torch.manual_seed(0)
        module = Scaled()
        for attribute, value in changes.items():
            setattr(module, attribute, value)
        with torch.random.fork_rng(devices=[]):
            return hand_over(module, 2, (16, 16), mean=(0, 0, 0), std=(1, 1, 1)).model_name

    assert name() == name() == name(scale=1.0)
    assert len({name(), name(scale=1.5), name(noise=0.3), name(head=nn.Linear(24, 2))}) == 4
    odd = type("<img src=x>", (conv_net,), {})()
    assert hand_over(odd, 2, (16, 16), mean=(0, 0, 0), std=(1, 1, 1)).model_name.startswith("module/imgsrcx-")


def test_a_module_that_cannot_be_copied_is_refused(parts, conv_net):
    class Uncopied(conv_net):
        def __deepcopy__(self, memo):
            raise RuntimeError("one of a kind")

    with pytest.raises(SettingError, match="Uncopied cannot be copied \\(one of a kind\\).*give a function that builds one"):
        crossdistill.evaluate(Uncopied(), parts, quiet=True)


def test_a_notebook_has_one_bar_that_is_drawn_over(monkeypatch):
    drawn = []
    handle = types.SimpleNamespace(update=drawn.append)
    module = types.SimpleNamespace(HTML=str, display=lambda text, display_id: drawn.append(text) or handle)
    kernel = types.SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: kernel, display=module))
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    progress = session_progress(quiet=False)
    assert isinstance(progress, CellProgress)
    for name in ("first", "<second>"):
        with progress.bar(name, 4) as advance:
            advance(1, "5 images/s")
            advance(1, "too soon to be drawn")
    bar = '<progress value="1" max="4"></progress>'
    assert drawn == [f"{bar} first 5 images/s", "", f"{bar} &lt;second&gt; 5 images/s", ""]
    assert type(session_progress(quiet=True)) is Progress
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: None))
    assert type(session_progress(quiet=False)) is Progress


def test_images_are_let_go_after_the_call(pair):
    from crossdistill.images import arrays

    with source_of(pair, None, Progress(quiet=True)):
        assert arrays._held
    assert not arrays._held
