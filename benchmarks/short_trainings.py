"""Trainings of a few seconds or minutes for benchmarks that ask what a network learnt: by the library's own loop, on one thread."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from crossdistill.core import registry
from crossdistill.core.progress import Progress
from crossdistill.core.recipe import TrainingConfig
from crossdistill.core.seeds import Part, torch_seed
from crossdistill.core.types import ImageSet
from crossdistill.models._build import build_network
from crossdistill.ops.modes import frozen
from crossdistill.ops.network import Network
from crossdistill.study.networks import placed, spread
from crossdistill.train.loop import Training
from crossdistill.train.objective import Objective, make_objective, published_weights

CPU = torch.device("cpu")


def seeded(who: tuple[Part, ...], build: Callable[[], Network]) -> Network:
    """An untrained network, whose start depends on `who` = (study seed, role, run seed) alone."""
    torch.manual_seed(torch_seed(*who, "initialisation"))
    return placed(build(), CPU)


def started(model: str, images: ImageSet, who: tuple[Part, ...], weights: Path | None = None) -> Network:
    """A network by model name for these images, untrained or with the weights of a file."""
    network = seeded(who, lambda: build_network(model, images.n_classes, images.size))
    if weights is not None:
        network.load_state_dict(torch.load(weights, weights_only=True))
    return network


def trained(
    network: Network, train: ImageSet, validation: ImageSet, recipe: dict[str, Any], who: tuple[Part, ...], *,
    progress: Progress, description: str, teacher: Network | None = None,
) -> tuple[Network, float]:  # fmt: skip
    """The network, trained on the labels or with kd where there is a teacher, and its validation accuracy after the last epoch."""
    objective = Objective()
    if teacher is not None:
        teacher, kd = frozen(teacher), registry.get("method", "kd")
        made = {"student": network, "teacher": teacher, "images": train, "rng": torch.Generator()}
        objective = make_objective(kd, {}, published_weights(kd, {}), **made)
    with tempfile.TemporaryDirectory() as folder:
        training = Training(
            network, train, spread(validation, 500), TrainingConfig(**recipe), who=who, folder=Path(folder),
            objective=objective, teacher=teacher, progress=progress, description=description,
        )  # fmt: skip
        history = training.run()
    return network, history[-1].validation_accuracy
