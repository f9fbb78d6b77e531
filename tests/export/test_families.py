"""Networks of every source, exported, loaded by the lines of their README in a process without crossdistill: the same logits."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from crossdistill.core import registry
from crossdistill.export import Exported, export_student
from crossdistill.export.program import random_images
from crossdistill.ops.network import Network

from .conftest import SIZE, make_network, make_run, make_study

OWN_MODEL = """
from torch import nn

def conv_net(n_classes, size, *, width):
    channels = [3, width, 2 * width, 3 * width, 4 * width]
    stages = [nn.Sequential(nn.Conv2d(a, b, 3, stride=2, padding=1), nn.BatchNorm2d(b), nn.ReLU()) for a, b in zip(channels, channels[1:])]
    return nn.Sequential(*stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, n_classes))
"""

TINY_VIT = dict(
    model_type="vit", hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48, image_size=32, patch_size=8
)


def prepared_for(method: str) -> Callable[[Network], None]:
    """What the method adds to its student before training."""

    def prepare(network: Network) -> None:
        plugin = registry.get("method", method)
        plugin.facts["prepare_student"](network, plugin.complete({}))

    return prepare


@dataclass(frozen=True)
class Case:
    model: str
    library: str  # whose lines load it
    prepare: Callable[[Network], None] | None = None
    onnx: bool = False
    settings: dict[str, Any] = field(default_factory=dict)


CASES = {
    "small-cnn": Case("small/resnet8", "pytorch"),
    "small-vit": Case("small/vit", "pytorch", settings=dict(width=32, depth=1)),
    "timm-cnn": Case("timm/test_resnet", "timm", settings=dict(options=dict(drop_rate=0.1))),
    "timm-vit": Case("timm/test_vit", "timm", settings=dict(options=dict(global_pool="avg"))),
    "timm-two-heads": Case("timm/deit_tiny_distilled_patch16_224", "timm", settings=dict(options=dict(embed_dim=24, depth=1))),
    "timm-vit-cskd": Case("timm/test_vit", "pytorch", prepared_for("cskd"), onnx=True, settings=dict(options=dict(depth=1))),
    "timm-cnn-deit": Case("timm/test_resnet", "pytorch", prepare=prepared_for("deit")),
    "torchvision": Case("torchvision/mobilenet_v3_small", "torchvision"),
    "huggingface": Case("huggingface/example/tiny-vit", "transformers", onnx=True, settings=dict(config=TINY_VIT)),
    "own": Case("python:own_model_to_take_away:conv_net", "pytorch", settings=dict(options=dict(width=8))),
}
PLACES = [(name, format) for name, case in CASES.items() for format in ("safetensors", *(["onnx"] if case.onnx else []))]

LOAD_ALL = """
import json, sys
import numpy as np, torch

asked = json.load(open(sys.argv[1]))
for each in asked:
    images = np.load(each["images"])
    names = {"images": images if "onnxruntime" in each["code"] else torch.from_numpy(images)}
    with torch.no_grad():
        exec(each["code"], names)
    np.save(each["logits"], np.asarray(names["logits"]))
assert "crossdistill" not in sys.modules
"""


@dataclass(frozen=True)
class Taken:
    """An export, what the network itself says to the test images, and what the loaded export says."""

    export: Exported
    network: Network
    own: np.ndarray
    loaded: np.ndarray


@pytest.fixture(scope="module")
def taken(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Taken]:
    pytest.importorskip("transformers", reason="the extra `hf` is not installed")
    pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")
    folder = tmp_path_factory.mktemp("families")
    (folder / "own_model_to_take_away.py").write_text(OWN_MODEL)
    images = random_images(3, SIZE)
    np.save(folder / "images.npy", images.numpy())
    make_study(folder / "study")
    exports: dict[tuple[str, str], tuple[Exported, Network]] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        for name, case in CASES.items():
            network = make_network(case.model, prepare=case.prepare, **case.settings)
            run = make_run(folder / "study", name, network)
            for format in (format for of, format in PLACES if of == name):
                out = folder / f"{name}-{format}"
                exports[name, format] = export_student(run, format, out, store=folder / "store", latency=False), network
    asked = [
        {"images": str(folder / "images.npy"), "logits": str(export.folder / "logits.npy"), "code": documented(export)}
        for export, _ in exports.values()
    ]
    (folder / "asked.json").write_text(json.dumps(asked))
    subprocess.run([sys.executable, "-c", LOAD_ALL, str(folder / "asked.json")], check=True, cwd=folder)
    with torch.no_grad():
        return {
            place: Taken(export, network, network(images).logits.numpy(), np.load(export.folder / "logits.npy"))
            for place, (export, network) in exports.items()
        }


def documented(export: Exported) -> str:
    """The code of the export's README, for its folder."""
    found = re.search(r"```python\n(.*?)```", (export.folder / "README.md").read_text(), re.DOTALL)
    assert found
    return found[1].replace("FOLDER", str(export.folder))


@pytest.mark.parametrize("place", PLACES, ids="-".join)
def test_the_documented_lines_give_the_networks_logits_without_crossdistill(taken, place):
    found = taken[place]
    assert np.ptp(found.own, axis=0).max() > 0.1, "the images must be told apart, else equal logits say nothing"
    # 5e-5: what float32 sums in another order leave of logits of 1 to 6; another mean or resize would leave 1e-2 and more.
    np.testing.assert_allclose(found.loaded, found.own, rtol=0, atol=5e-5)
    assert max(found.export.differences.values()) < 5e-5
    assert set(found.export.differences) == {"1", "2", "7"}


@pytest.mark.parametrize("name", CASES)
def test_an_export_names_the_library_that_loads_it(taken, name):
    folder = taken[name, "safetensors"].export.folder
    about = json.loads((folder / "export.json").read_text())
    assert about["library"] == CASES[name].library
    assert (folder / "student.pt2").exists() == (CASES[name].library == "pytorch")
    assert set(about["files"]) == {path.name for path in folder.iterdir()} - {"export.json", "logits.npy"}


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.library == "timm"])
def test_a_timm_students_tensors_have_timms_own_names(taken, name):
    found = taken[name, "safetensors"]
    with safe_open(found.export.folder / "model.safetensors", framework="pt") as file:
        assert set(file.keys()) == set(found.network.model.state_dict())
    config = json.loads((found.export.folder / "config.json").read_text())
    assert config["architecture"] == CASES[name].model.removeprefix("timm/")
    assert config["pretrained_cfg"]["input_size"] == [3, 32, 32]
    assert config["label_names"] == ["left", "right", "up"]


def test_timms_own_transform_resizes_the_whole_image(taken):
    import timm
    from PIL import Image

    model = timm.create_model(f"local-dir:{taken['timm-cnn', 'safetensors'].export.folder}", pretrained=True)
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    assert transform(Image.fromarray(random_images(1, SIZE)[0].permute(1, 2, 0).numpy())).shape == (3, 32, 32)


def test_a_prepared_student_keeps_its_token_and_its_readout(taken):
    found = taken["timm-vit-cskd", "safetensors"]
    assert found.network.readout == "mean_heads_dense"
    with torch.no_grad():
        heads = found.network(random_images(3, SIZE)).heads
    assert not np.allclose(found.loaded, heads["class"].numpy(), atol=1e-2), "the class head alone makes another prediction"
    assert "dense logits" in (found.export.folder / "README.md").read_text()


def test_an_onnx_file_takes_any_number_of_images(taken):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(taken["huggingface", "onnx"].export.folder / "student.onnx"))
    (given,) = session.get_inputs()
    assert given.shape == ["batch", 3, *SIZE]


def test_crossdistill_reads_its_own_weights_again(taken):
    from crossdistill.models._build import load_network

    found = taken["small-vit", "safetensors"]
    with torch.no_grad():
        again = load_network(found.export.folder / "model.safetensors").eval()(random_images(3, SIZE)).logits
    np.testing.assert_array_equal(again.numpy(), found.own)


def test_transformers_own_processor_knows_the_normalisation(taken):
    processor = json.loads((taken["huggingface", "safetensors"].export.folder / "preprocessor_config.json").read_text())
    assert processor["size"] == {"height": 32, "width": 32}
    assert processor["image_mean"] == [0.5, 0.5, 0.5]
