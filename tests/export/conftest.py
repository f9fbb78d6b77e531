"""Runs as a study leaves them, without a training: a network, its record, and the tables around it."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from crossdistill.core.records import RunRecord
from crossdistill.core.store import file_sha256
from crossdistill.models._build import build_network, save_network
from crossdistill.ops.network import Network

SIZE = (20, 28)  # of the images as they come, which is no network's input size
CLASSES = ("left", "right", "up")


def make_network(model: str, *, side: int = 32, prepare: Callable[[Network], None] | None = None, **settings: Any) -> Network:
    """A network whose logits differ from image to image, as a trained one's do: heads and norms are not as they start."""
    torch.manual_seed(0)
    network = build_network(model, len(CLASSES), (side, side), settings=settings)
    if prepare:
        prepare(network)
    for head in [*network.reader.classifiers(network.model).values(), *network.extra_heads.values()]:
        nn.init.normal_(head.weight, std=0.3)  # type: ignore[arg-type]
    images = torch.rand(8, 3, side, side, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        network.train()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None
        network(images)
    return network.eval()


@functools.cache
def small_student() -> Network:
    """A CNN of timm, whose export is quick (a torch.export program takes longer to make): one for all tests, which leave it as it is."""
    return make_network("timm/test_resnet")


def make_run(
    study: Path, run: str, network: Network, *, folder: Path | None = None, classes: tuple[str, ...] = CLASSES, **known: Any
) -> Path:
    """A finished run of `study`; `folder`: where the weights lie, if not beside the record. Returns the run's folder."""
    weights = (folder or study / "runs" / run) / "network.safetensors"
    save_network(network, weights, class_names=classes, extra={"run": run})
    facts: dict[str, Any] = dict(
        run=run, label=f"{run}, seed 0", arm="kd", method="kd", teacher="vit", teacher_run="teacher-1", student="cnn",
        model=network.model_name, family=network.family, readout=network.readout, seed=0, parameters=network.n_parameters,
        weights=file_sha256(weights), training={}, history=[], estimates={}, timing={}, software={"torch": "2"},
        hardware={"machine": "a machine"}, plugins={"method/kd": "0123abcd"},
    )  # fmt: skip
    RunRecord(**(facts | known)).save(study / "runs" / run)
    return study / "runs" / run


def make_study(study: Path, *, images: dict[str, Any] | None = None, networks: dict[str, Any] | None = None, name: str = "a study") -> None:
    """The plan and the resolved study file."""
    study.mkdir(parents=True, exist_ok=True)
    told = {"source": "trifeature", "train": 100, "size": list(SIZE), "class_names": list(CLASSES)}
    plan = {"name": name, "tasks": [], "pairs": [{"index": 0, "teacher": "vit", "student": "cnn", "methods": ["kd"]}], "images": told}
    (study / "plan.json").write_text(json.dumps(plan))
    written = {"name": name, "images": images or {"source": "trifeature"}, "networks": networks or {"vit": {"model": "small/vit"}}}
    (study / "study.yaml").write_text(yaml.safe_dump(written))


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A run of a small student, in a study."""
    make_study(tmp_path / "study")
    return make_run(tmp_path / "study", "kd-1", small_student())
