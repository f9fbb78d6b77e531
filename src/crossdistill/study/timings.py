"""How fast tasks were, kept in the store for the plans of later studies: small files under timings/, named by what decides the speed.

Not by study: two studies that train the same network by the same method on images of one size share their measurements.
"""

import contextlib
import math
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from crossdistill.core import registry
from crossdistill.core.config import NetworkConfig, ProbeConfig
from crossdistill.core.errors import CrossdistillError
from crossdistill.core.recipe import TrainingConfig
from crossdistill.core.records import EpochRow
from crossdistill.core.store import digest, read_json, write_json
from crossdistill.ops.parallel import world
from crossdistill.probes._build import Recipe
from crossdistill.study.environment import hardware
from crossdistill.study.keys import checkpoint_hash
from crossdistill.study.plan import Training, WarmUpTask
from crossdistill.study.workshop import Workshop
from crossdistill.train.loop import Training as Trainer
from crossdistill.train.precision import resolved_precision

FOLDER, FORMAT = "timings", 1
KEPT = 9  # measurements of one kind: their median is told, so that a busy hour does not spoil it
WITHOUT_EFFECT = {
    "epochs", "learning_rate", "weight_decay", "momentum", "schedule", "milestones", "warmup_epochs", "early_stopping", "label_smoothing",
    "cache", "checkpoint_every", "batch_size", "precision",
}  # fmt: skip
"""Settings of a training that change nothing about the time of its steps, and those that facts name as they are resolved."""

Facts = Mapping[str, Any]


def note(store: Path, facts: Facts, **measured: float) -> None:
    """Keep one measurement. A store that cannot be written loses it, and nothing else: no result depends on it."""
    path = _file(store, facts)
    with contextlib.suppress(OSError, CrossdistillError):
        write_json(path, {"format": FORMAT, "of": dict(facts), "measured": [*_measured(path), measured][-KEPT:]})


def known(store: Path, facts: Facts) -> dict[str, float] | None:
    """The medians of what was measured of the same kind; None where nothing was, or its file cannot be read."""
    measured = _measured(_file(store, facts))
    names = {name for row in measured for name in row}
    return {name: statistics.median(row[name] for row in measured if name in row) for name in sorted(names)} or None


def _measured(path: Path) -> list[dict[str, float]]:
    """What a file holds; nothing where it is missing, damaged or of another format, and it is then written anew."""
    try:
        found = read_json(path)
        return [row for row in found["measured"] if _is_measurement(row)] if found["format"] == FORMAT else []
    except (OSError, CrossdistillError, LookupError, TypeError):
        return []


def _is_measurement(row: Any) -> bool:
    """Whether it is {name: number}, and every speed can be divided by."""
    if not isinstance(row, dict) or not row:
        return False
    numbers = all(isinstance(value, int | float) and math.isfinite(value) and value >= 0 for value in row.values())
    return numbers and all(value > 0 for name, value in row.items() if name.endswith("_per_second"))


def _file(store: Path, facts: Facts) -> Path:
    return store / FOLDER / f"{facts['task']}-{digest(facts)}.json"


def machine(device: torch.device) -> dict[str, str]:
    """What of the machine decides a speed."""
    return {**hardware(device), "torch": torch.__version__}


def training_facts(shop: Workshop, training: Training, *, cached: bool) -> Facts:
    """What decides the speed of a training's steps; `cached`: its teacher's answers are read from a store.

    Ceilings and all independents of a network share one speed, and so do the seeds of an arm.
    """
    method, teacher = training.method, training.teacher
    taught = {}
    if method is not None:
        plugin = registry.get("method", method.name)
        taught = {"method": [plugin.name, plugin.identity, plugin.chosen(method.settings)], "until": method.until}
    return {
        "task": "training",
        "network": _network(shop.config.networks[training.network]),
        **_images(shop, training.recipe),
        **taught,
        "shuffled": training.control == "shuffled_teacher",
        "teacher": _network(shop.config.networks[teacher.network]) if teacher else None,
        "cached": cached if teacher else None,
        **machine(shop.device),
    }


def warm_up_facts(shop: Workshop, task: WarmUpTask) -> Facts:
    """What decides the speed of a warm-up's steps."""
    network = _network(shop.config.networks[task.teacher.network])
    about = {"method": [task.method, {name: str(value) for name, value in task.settings.items()}], "network": network}
    return {"task": "warm-up", **about, **_images(shop, task.recipe), **machine(shop.device)}


def answer_facts(shop: Workshop, training: Training, taps: Iterable[str]) -> Facts:
    """What decides how fast a training's teacher answers the views that are stored."""
    assert training.teacher is not None
    assert training.method is not None
    about = {"network": _network(shop.config.networks[training.teacher.network]), "taps": sorted(taps), "views": training.method.name}
    return {"task": "answers", **about, **_images(shop, training.recipe), **machine(shop.device)}


def observation_facts(shop: Workshop, network: str, threads: int) -> Facts:
    """What decides how fast a network is observed."""
    about = {"network": _network(shop.config.networks[network]), "size": list(shop.splits.test.size), "threads": threads}
    return {"task": "observation", **about, "batch_size": shop.config.observe.batch_size, **machine(shop.device)}


def instrument_facts(shop: Workshop, network: str, threads: int, names: Iterable[str]) -> Facts:
    """What decides how long the instruments take on a network."""
    count = min(shop.config.observe.instrument_images, len(shop.splits.test))
    return {**observation_facts(shop, network, threads), "task": "instruments", "names": sorted(names), "images": count}


def probe_facts(probe: ProbeConfig, recipe: Recipe, size: tuple[int, int], device: torch.device) -> Facts:
    """What decides how fast a probe set is built."""
    levels = [{name: str(value) for name, value in level.items()} for level in recipe.levels]
    about = {"probe": [recipe.plugin.name, recipe.plugin.identity, levels, recipe.draws], "size": list(size)}
    return {"task": "probe", **about, "given": [probe.masks, probe.encoder, probe.styles], **machine(device)}


def encoder_facts(size: tuple[int, int], n_classes: int, device: torch.device) -> Facts:
    """What decides how fast the encoder for probes is trained."""
    return {"task": "encoder", "size": list(size), "n_classes": n_classes, **machine(device)}


def writing_facts(task: str) -> Facts:
    """What decides how fast tables and page are made: the machine, as far as these do not say it themselves."""
    return {"task": task, **machine(torch.device("cpu"))}


def note_epochs(store: Path, facts: Facts, history: Iterable[EpochRow], seconds: float, *, resumed: bool, n_validation: int) -> None:
    """Keep the speed of a training that ran through in `seconds`, validation and checkpoints included.

    One that was resumed tells the speed of its steps alone.
    """
    rows = [row for row in history if row.seconds > 0 and row.images_per_second > 0]
    if not rows:
        return
    in_steps, n_images = sum(row.seconds for row in rows), sum(row.seconds * row.images_per_second for row in rows)
    beside = {} if resumed else {"between_epochs": max(0.0, seconds - in_steps) / len(rows), "validation_images": float(n_validation)}
    note(store, facts, images_per_second=n_images / in_steps, **beside)


def _network(chosen: NetworkConfig) -> dict[str, Any]:
    settings = {name: str(value) for name, value in chosen.settings.items()}
    return {"model": chosen.model, "settings": settings, "checkpoint": checkpoint_hash(chosen.checkpoint)}


def _images(shop: Workshop, recipe: TrainingConfig) -> dict[str, Any]:
    """The images of a training, as far as they decide its speed, and how its recipe shows them."""
    train = shop.splits.train
    shown = recipe.model_dump(mode="json", exclude=WITHOUT_EFFECT)
    precision = resolved_precision(recipe.precision, shop.device)
    batch = min(recipe.batch_size, len(train))
    return {"size": list(train.size), "n_classes": train.n_classes, "batch_size": batch, "precision": precision, "recipe": shown}


def note_training(shop: Workshop, training: Training, trainer: Trainer, seconds: float, *, resumed: bool) -> None:
    """Keep the speed of a finished training; of several processes that shared it, the first does."""
    if world().rank:
        return
    cached = getattr(trainer.answers, "cached_share", 0.0) > 0.5
    facts = training_facts(shop, training, cached=cached)
    note_epochs(shop.store, facts, trainer.history, seconds, resumed=resumed, n_validation=len(trainer.validation))
