"""Small networks, images and a ready training for the tests of the loop."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from crossdistill.core.recipe import TrainingConfig
from crossdistill.core.types import ImageSet
from crossdistill.models._build import build_network
from crossdistill.ops.modes import frozen
from crossdistill.train.loop import Training

CLASSES = 3


def image_set(n: int, seed: int) -> ImageSet:
    random = np.random.default_rng(seed)
    labels = np.arange(n) % CLASSES
    images = random.integers(0, 256, (n, 3, 16, 16), dtype=np.uint8)
    images[:, 0] = (images[:, 0] // 4) + (60 * labels)[:, None, None].astype(np.uint8)  # the red channel tells the class
    return ImageSet(images, labels.astype(np.int64), np.arange(n).astype(str), tuple("abc"))


@dataclass
class Bench:
    """Makes trainings on one small problem; `folder` keeps the checkpoints."""

    folder: Path
    train: ImageSet = field(default_factory=lambda: image_set(24, 1))
    validation: ImageSet = field(default_factory=lambda: image_set(9, 2))

    def student(self, seed: int = 0) -> Any:
        torch.manual_seed(seed)
        return build_network("small/resnet8", CLASSES, (16, 16))

    def teacher(self) -> Any:
        torch.manual_seed(99)
        return frozen(build_network("small/vit", CLASSES, (16, 16), settings={"width": 16, "depth": 2, "heads": 2}))

    def training(self, objective: Any = None, *, folder: str = "run", network: Any = None, teacher: Any = None, **recipe: Any) -> Training:
        settings = {"epochs": 2, "batch_size": 8, "precision": "fp32", "threads": 1, "learning_rate": 1e-2} | recipe
        return Training(
            network or self.student(), self.train, self.validation, TrainingConfig(**settings), who=(0, "student", 0),
            folder=self.folder / folder, objective=objective, teacher=teacher,
        )  # fmt: skip


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def weights(network: Any) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


@pytest.fixture
def copied_weights() -> Any:
    return weights


@pytest.fixture
def same_bytes() -> Any:
    def check(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
        return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)

    return check
