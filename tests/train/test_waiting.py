"""No step reads a value from the device, which would make every step wait for a GPU. Tensors of the meta device have no values to read."""

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from crossdistill.core import registry
from crossdistill.core.errors import SettingError
from crossdistill.core.recipe import TrainingConfig
from crossdistill.core.types import Clock, ImageSet
from crossdistill.models._build import build_network
from crossdistill.ops.modes import frozen
from crossdistill.train.loop import Training
from crossdistill.train.objective import make_objective, published_weights

NOWHERE = torch.device("meta")
PAIRS = {"to-cnn": ("small/vit", "small/resnet8"), "to-vit": ("small/resnet8", "small/vit")}
SETTINGS = {"small/vit": {"width": 16, "depth": 4, "heads": 2}}
RECIPES: list[dict[str, Any]] = [
    {"views": "free"}, {"views": "none"}, {"views": "free", "mixup": 0.2}, {"views": "free", "cutmix": 1.0},
    {"views": "free", "crop": "resized"}, {"views": "free", "random_erasing": 0.5}, {"ema": 0.9}, {"accumulate": 3},
    {"cache_dtype": "float16"}, {"freeze": "backbone"},
]  # fmt: skip
WAITS = {("capd", "to-cnn"): "nonzero"}  # for the rows that drew a change: to treat all of them would take longer


@pytest.fixture(autouse=True)
def meta_device_goes_without_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Training, "autocast", lambda self: contextlib.nullcontext())
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device=None: False)


def network(name: str) -> Any:
    return build_network(name, 4, (32, 32), settings=SETTINGS.get(name))


def step(method: str, pair: tuple[str, str], folder: Path, **recipe: Any) -> None:
    """A training step on the meta device, the second one: the first look at the losses is behind it."""
    random = np.random.default_rng(0)
    data = ImageSet(random.integers(0, 256, (32, 3, 32, 32), dtype=np.uint8), np.arange(32) % 4, np.arange(32).astype(str), tuple("abcd"))
    plugin, (teacher, student) = registry.get("method", method), map(network, pair)
    settings = plugin.complete({})
    if prepare := plugin.facts["prepare_student"]:
        prepare(student, settings)
    warm_up = plugin.facts["warm_up"]
    warm = frozen(warm_up.make(teacher, settings)) if warm_up else None
    weights, rng = published_weights(plugin, {}), torch.Generator()
    objective = make_objective(plugin, {}, weights, student=student, teacher=teacher, images=data, rng=rng, warm=warm)
    for module in (teacher, student, objective.module):
        if module is not None:
            module.to(NOWHERE)
    training = Training(
        student, data, data, TrainingConfig(epochs=2, batch_size=16, precision="fp32", optimizer="sgd", **recipe),
        who=(0, "student", 0), folder=folder, objective=objective, teacher=frozen(teacher), device=NOWHERE,
    )  # fmt: skip
    training.clock = Clock(1, training.clock.steps, 0, 2)
    training.step(training.batches.order(0)[:16], 0)


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("method", registry.names("method"))
def test_a_methods_step_reads_nothing_from_the_device(method: str, pair: str, tmp_path: Path) -> None:
    if known := WAITS.get((method, pair)):
        with pytest.raises(NotImplementedError, match=known):
            step(method, PAIRS[pair], tmp_path)
        return
    with contextlib.suppress(SettingError):  # a pair that the method refuses
        step(method, PAIRS[pair], tmp_path)


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_no_recipe_reads_from_the_device(recipe: dict[str, Any], tmp_path: Path) -> None:
    step("kd", PAIRS["to-cnn"], tmp_path, **recipe)


def test_what_does_read_from_it_is_seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Training, "_refuse_bad_loss", lambda self: self.sums.bad_step())
    monkeypatch.setattr("crossdistill.train.loop.CHECK_EVERY", 1)
    with pytest.raises(RuntimeError, match="item"):
        step("kd", PAIRS["to-cnn"], tmp_path)
