"""How fast a task will be, tried: 20 optimiser steps of that very training, or a few passes, on the device that the study would use.

Networks carry no published weights here, since a plan downloads nothing; their speed does not depend on them. Nothing is kept.
"""

import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from crossdistill.core import registry
from crossdistill.core.errors import DivergedError
from crossdistill.core.method_config import MethodConfig
from crossdistill.core.progress import Stopwatch
from crossdistill.core.recipe import TrainingConfig
from crossdistill.core.types import Activations, Batch, ImageSet, Needs
from crossdistill.models._build import build_network
from crossdistill.observe import observe
from crossdistill.ops.modes import frozen
from crossdistill.ops.network import Network
from crossdistill.study.encoders import MODEL, RECIPE, SETTINGS, trained_images
from crossdistill.study.networks import chosen_network, placed, spread
from crossdistill.study.objectives import labels_alone, partners_of, taught_objective
from crossdistill.study.plan import Training, WarmUpTask
from crossdistill.study.workshop import Workshop
from crossdistill.train.loop import Training as Trainer
from crossdistill.train.memory import batch_advice, enough_memory
from crossdistill.train.objective import Objective
from crossdistill.train.state import save_state
from crossdistill.train.teacher import LiveTeacher

STEPS, UNTIMED = 20, 2  # the first ones allocate memory and choose kernels
CAP_S = 2.0  # of one trial: a slow training is judged by fewer steps, at least by one behind the first
VALIDATED = 256, 16  # images that show how long validation takes: at most, and at least where networks are slow


@dataclass(frozen=True)
class Trial:
    """What was tried, in words, and what it showed, under the names of a measurement of `timings`."""

    words: str
    measured: dict[str, float]


def training_trial(shop: Workshop, training: Training, *, cached: bool) -> Trial:
    """Steps of a training; `cached`: with the teacher's answers to the batch at hand, as from a store."""
    network = untaught(shop, training.network)
    if training.method and (prepare := registry.get("method", training.method.name).facts["prepare_student"]):
        prepare(network, registry.get("method", training.method.name).complete(training.method.settings))
        network = placed(network, shop.device)
    teacher = frozen(untaught(shop, training.teacher.network)) if training.teacher else None
    objective = _objective(shop, training.method, network, teacher)
    recalled = _Recalled(LiveTeacher(teacher, objective.needs.teacher_taps, training.recipe.cache_dtype)) if teacher and cached else None
    about = {"objective": objective, "teacher": teacher, "answers": recalled, "partners": partners_of(shop, training)}
    return _steps(shop, network, training.recipe, shop.splits.train, **about)


def warm_up_trial(shop: Workshop, task: WarmUpTask) -> Trial:
    """Steps of what a method trains on a teacher."""
    teacher, warm_up = untaught(shop, task.teacher.network), registry.get("method", task.method).facts["warm_up"]
    module = warm_up.make(teacher, task.settings).to(shop.device)
    objective = Objective(module, None, Needs(student_taps=warm_up.taps), warm_up.views)
    return _steps(shop, teacher, task.recipe, shop.splits.train, objective=objective)


def encoder_trial(shop: Workshop) -> Trial:
    """Steps of the training of the encoder for probes."""
    images = trained_images(shop.splits)
    network = placed(build_network(MODEL, images.n_classes, images.size, settings=SETTINGS), shop.device)
    return _steps(shop, network, RECIPE, images)


def untaught(shop: Workshop, network: str) -> Network:
    """A network of the study before any training, and without published weights."""
    return placed(chosen_network(shop.config.networks[network], shop.splits.train, pretrained=False), shop.device)


def typical(call: Callable[[], object], times: int, device: torch.device) -> tuple[float, int]:
    """(median seconds of a call, how many calls were timed): `times`, or fewer once they have taken long; one before is not timed."""
    watch, seconds = Stopwatch(), []
    call()
    while len(seconds) < times and (not seconds or watch.seconds < CAP_S):
        _wait(device)
        each = Stopwatch()
        call()
        _wait(device)
        seconds.append(each.seconds)
    return max(statistics.median(seconds), 1e-9), len(seconds)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _objective(shop: Workshop, method: MethodConfig | None, student: Network, teacher: Network | None) -> Objective:
    """The objective of a training, with an untrained module in the place of one that is warmed up."""
    if method is None or teacher is None:
        return labels_alone(method)
    plugin = registry.get("method", method.name)
    warm_up = plugin.facts["warm_up"]
    untrained = frozen(warm_up.make(teacher, plugin.complete(method.settings)).to(shop.device)) if warm_up else None
    return taught_objective(method, student, teacher, shop.splits.train, rng=torch.Generator().manual_seed(0), warm=untrained)


@dataclass
class _Recalled:
    """A teacher that is asked once about each micro-batch of the trial's one batch, and then remembers."""

    live: LiveTeacher
    answers: dict[int, Activations] = field(default_factory=dict)

    def __call__(self, batch: Batch) -> Activations:
        first = int(batch.index[0])
        if first not in self.answers:
            self.answers[first] = self.live(batch)
        return self.answers[first]


def _steps(shop: Workshop, network: Network, recipe: TrainingConfig, images: ImageSet, **about: Any) -> Trial:
    """The same batch, step after step; then what stands between two epochs: validation, and a checkpoint in a folder of its own.

    Of a training that several devices share one device's part is tried, uncompiled where the recipe compiles.
    """
    torch.set_num_threads(recipe.threads)
    alone = recipe.model_copy(update={"devices": 1, "compile": False, "batch_size": max(1, recipe.batch_size // recipe.devices)})
    with tempfile.TemporaryDirectory() as aside, enough_memory(lambda: batch_advice(recipe, recipe.batch_size, images.size)):
        trainer = Trainer(
            network, images, shop.splits.validation, alone, who=(0, "trial", 0), folder=Path(aside), device=shop.device, **about
        )
        rows = trainer.batches.order(0)[: trainer.batch_size]
        seconds = _step_seconds(trainer, rows)
        each = max(statistics.median(seconds), 1e-9)
        most, fewest = VALIDATED
        watch, shown = Stopwatch(), spread(shop.splits.validation, min(most, max(fewest, int(CAP_S / each * len(rows)))))
        observe(trainer.kept, shown, device=shop.device, split="validation")
        validating = watch.seconds * len(shop.splits.validation) / len(shown)
        watch = Stopwatch()
        save_state(trainer)
        between = validating + watch.seconds
    uncompiled = ", uncompiled" if recipe.compile else ""
    speed = recipe.devices * len(rows) / each
    measured = {"images_per_second": speed, "between_epochs": between, "validation_images": float(len(shop.splits.validation))}
    return Trial(f"{len(seconds)} step{'s' if len(seconds) != 1 else ''}{uncompiled}", measured)


def _step_seconds(trainer: Trainer, rows: torch.Tensor) -> list[float]:
    """The seconds of each timed step: 20, or as many as the time allows, at least one."""
    watch, seconds = Stopwatch(), []
    while len(seconds) < STEPS + UNTIMED and (len(seconds) < 2 or watch.seconds < CAP_S):
        _wait(trainer.device)
        each = Stopwatch()
        try:
            trainer.step(rows, 0)
        except DivergedError:  # random weights, and the same batch again and again: of no matter to the time
            trainer.sums.first_bad.fill_(-1)
        _wait(trainer.device)
        seconds.append(each.seconds)
    return seconds[min(UNTIMED, len(seconds) - 1) :]
