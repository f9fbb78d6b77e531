"""The tasks of a study: train one network, observe one network. Each leaves its record, or nothing."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from crossdistill.compare.results import chance_level
from crossdistill.core import registry
from crossdistill.core.config import NetworkConfig, StudyConfig
from crossdistill.core.errors import StudyError, WeightsError
from crossdistill.core.observations import LevelDraw, save_observations
from crossdistill.core.progress import Progress, Stopwatch
from crossdistill.core.records import EpochRow, EstimateModel, RunRecord
from crossdistill.core.seeds import torch_seed
from crossdistill.core.store import digest, locked, write_atomically
from crossdistill.core.types import ImageSet, Observations, Splits
from crossdistill.metrics.accuracy import accuracy
from crossdistill.metrics.confidence import confidence
from crossdistill.models._build import build_network, load_network, save_network, saved_description
from crossdistill.observe import observe
from crossdistill.ops.modes import frozen
from crossdistill.ops.network import Network
from crossdistill.probes._build import ProbeSet
from crossdistill.study.environment import hardware, software
from crossdistill.study.plan import Training
from crossdistill.study.tables import predictions_file, write_predictions
from crossdistill.train.loop import Training as Trainer
from crossdistill.train.loop import refuse_class_mismatch
from crossdistill.train.objective import Objective, make_objective, method_weights, published_weights
from crossdistill.train.precision import resolved_precision

CHECKED_IMAGES = 500  # of validation, on which a finished checkpoint must show that its classes are in the right order
PROFILE_IMAGES = 2000  # of training, for a teacher's training accuracy and confidence


@dataclass
class Workshop:
    """What every task of a study shares."""

    config: StudyConfig
    splits: Splits
    out: Path
    store: Path
    device: torch.device
    progress: Progress
    probed_rows: np.ndarray  # of the test split
    probe_sets: Mapping[str, ProbeSet] = field(default_factory=dict)
    warm: dict[str, torch.nn.Module] = field(default_factory=dict)

    @property
    def observation_files(self) -> dict[str, str]:
        """{test set: file name}, the same for every network; the name of a probe's file says which set and which rows were seen."""
        rows = digest(self.probed_rows.tolist())
        files = {name: f"{name}.npz" for name in ("clean", *self.splits.extra)}
        return files | {name: f"{probe_set.folder.name}-{rows}.npz" for name, probe_set in self.probe_sets.items()}

    def folder(self, training: Training) -> Path:
        """Where a training works and leaves its weights: teachers in the store, which studies share."""
        return (self.store / "teachers" if training.arm == "teacher" else self.out / "runs") / training.run


def train(shop: Workshop, training: Training) -> RunRecord:
    """Train one network, or go on where it was stopped; returns its record, at once where it is finished."""
    folder = shop.folder(training)
    if not (folder / "record.json").exists():
        with locked(folder, f"another study is training {training.label} in {folder}: wait for it, then run the same command again"):
            if not (folder / "record.json").exists():
                _train(shop, training, folder)
    record = RunRecord.load(folder)
    if training.arm == "teacher":  # the study folder keeps what the page reads; the weights stay in the store
        for path in (folder / "log.jsonl", folder / "record.json"):
            if path.exists():
                content = path.read_bytes()
                write_atomically(shop.out / "runs" / training.run / path.name, lambda file, content=content: file.write(content))
    return record


def _train(shop: Workshop, training: Training, folder: Path) -> None:
    watch = Stopwatch()
    torch.set_num_threads(training.recipe.threads)
    network = build(shop, training)
    chosen = shop.config.networks[training.network]
    history: list[EpochRow] = []
    if chosen.checkpoint is None:
        teacher = load_trained(shop, training.teacher) if training.teacher else None
        objective = _objective(shop, training, network, teacher) if teacher else Objective()
        who = (shop.config.seed, training.role, training.seed)
        trainer = Trainer(
            network, shop.splits.train, shop.splits.validation, training.recipe, who=who, folder=folder, objective=objective,
            teacher=teacher, device=shop.device, progress=shop.progress, description=training.label,
        )  # fmt: skip
        history = trainer.run()
    save_network(network, folder / "network.safetensors", class_names=shop.splits.train.class_names, extra={"run": training.run})
    _record(shop, training, network, history, watch.seconds).save(folder)
    shutil.rmtree(folder / "checkpoint", ignore_errors=True)


def build(shop: Workshop, training: Training) -> Network:
    """The network of a training before its first step, on the device; its initialisation is keyed by role and run seed."""
    chosen, splits = shop.config.networks[training.network], shop.splits
    if chosen.checkpoint:
        network = load_network(
            chosen.checkpoint, model=chosen.model, n_classes=splits.train.n_classes, size=splits.train.size, class_map=chosen.class_map,
            settings=chosen.settings,
        )  # fmt: skip
        return placed(network, shop.device)
    torch.manual_seed(torch_seed(shop.config.seed, training.role, training.seed, "initialisation"))
    assert chosen.model is not None
    network = build_network(chosen.model, splits.train.n_classes, splits.train.size, pretrained=chosen.pretrained, settings=chosen.settings)
    if training.method:
        plugin = registry.get("method", training.method.name)
        if prepare := plugin.facts["prepare_student"]:
            prepare(network, plugin.complete(training.method.settings))
    return placed(network, shop.device)


def placed(network: Network, device: torch.device) -> Network:
    """The network on the device, convolutions in the channels-last layout that batches have."""
    layout = torch.channels_last if network.family == "cnn" else torch.contiguous_format
    return network.to(device, memory_format=layout)  # type: ignore[call-overload]


def load_trained(shop: Workshop, training: Training) -> Network:
    """A finished teacher, frozen and in eval mode, from the file that its own task left."""
    path = shop.folder(training) / "network.safetensors"
    if not path.exists():
        raise StudyError(f"the weights of {training.label} are not at {path}: delete {path.parent} to train it again")
    return frozen(placed(load_network(path), shop.device))


def _objective(shop: Workshop, training: Training, network: Network, teacher: Network) -> Objective:
    method = training.method
    assert method is not None
    assert training.teacher is not None
    refuse_class_mismatch(network, teacher)
    plugin = registry.get("method", method.name)
    settings = plugin.parse(method.settings)
    warm = None
    if warm_up := plugin.facts["warm_up"]:  # shared by all students of one teacher: its key holds no student
        place = f"{plugin.name}-{training.teacher.key}-{sorted(settings.items())}"
        if place not in shop.warm:
            torch.manual_seed(torch_seed(shop.config.seed, "warm_up", training.teacher.seed))
            shop.warm[place] = frozen(warm_up(teacher, shop.splits.train, settings))
        warm = shop.warm[place]
    rng = torch.Generator().manual_seed(torch_seed(shop.config.seed, training.role, training.seed, "objective"))
    torch.manual_seed(torch_seed(shop.config.seed, training.role, training.seed, "auxiliary"))
    weights = method_weights(published_weights(plugin, settings), weight=method.weight, weights=method.weights)
    return make_objective(
        plugin,
        settings,
        weights,
        student=network,
        teacher=teacher,
        images=shop.splits.train,
        rng=rng,
        warm=warm,
        ramp_epochs=method.ramp_epochs,
    )


def refuse_wrong_checkpoint(shop: Workshop, network: Network, chosen: NetworkConfig) -> None:
    """Classes in another order are silent otherwise: the top-1 on validation images must lie clearly above chance."""
    if chosen.checkpoint is None:
        return
    images = spread(shop.splits.validation, CHECKED_IMAGES)
    _refuse_other_order(chosen, images.class_names)
    answers = observe(network, images, device=shop.device, split="validation")
    estimate = accuracy(answers.logits, answers.labels)
    chance = chance_level(images.labels)
    assert estimate.low is not None
    if estimate.low <= chance:
        raise WeightsError(
            f"{chosen.checkpoint} is right on {100 * (estimate.value or 0):.1f} % of {len(images)} validation images, not clearly above "
            f"chance ({100 * chance:.1f} %). Its classes are probably in another order: give `class_map`, a list with the data set's "
            "class of each of its outputs."
        )


def _refuse_other_order(chosen: NetworkConfig, class_names: tuple[str, ...]) -> None:
    """A file that names its classes must name the images' classes, in their order; two swapped ones would pass the top-1 check."""
    assert chosen.checkpoint is not None
    saved = (saved_description(chosen.checkpoint) or {}).get("class_names")
    if saved is None or chosen.class_map is not None or tuple(saved) == class_names:
        return
    if sorted(saved) == sorted(class_names):
        hint = f"give `class_map: {[class_names.index(name) for name in saved]}`"
    else:
        hint = "give `class_map`, a list with the data set's class of each of its outputs, or other images"
    raise WeightsError(f"{chosen.checkpoint} tells the classes {', '.join(saved)}, the images have {', '.join(class_names)}: {hint}")


def _record(shop: Workshop, training: Training, network: Network, history: list[EpochRow], seconds: float) -> RunRecord:
    method, splits = training.method, shop.splits
    estimates = {"validation_accuracy": _accuracy(network, splits.validation, "validation", shop)}
    notes = list(network.notes)
    if training.arm == "teacher":
        shown = spread(splits.train, PROFILE_IMAGES)
        answers = observe(network, shown, device=shop.device, split="train")
        estimates["train_accuracy"] = EstimateModel.of(accuracy(answers.logits, answers.labels))
        estimates["mean_confidence"] = EstimateModel.of(confidence(answers.logits))
        notes += memorised(training.label, estimates)
    images_seen = sum(row.seconds * row.images_per_second for row in history)
    train_seconds = sum(row.seconds for row in history)
    plugins = {f"method/{method.name}": registry.get("method", method.name).source_hash} if method else {}
    return RunRecord(
        run=training.run,
        label=training.label,
        arm=training.arm,
        method=method.name if method else None,
        method_settings=method.model_dump(mode="json", exclude={"name", "label"}) if method else {},
        teacher=training.teacher.network if training.teacher else None,
        teacher_run=training.teacher.run if training.teacher else None,
        student=training.network,
        model=network.model_name,
        family=network.family,
        readout=network.readout,
        seed=training.seed,
        parameters=network.n_parameters,
        training={**training.recipe.model_dump(mode="json"), "precision": resolved_precision(training.recipe.precision, shop.device)},
        history=history,
        estimates=estimates,
        notes=notes,
        plugins=plugins,
        timing={
            "seconds": seconds,
            "seconds_per_epoch": train_seconds / len(history) if history else 0.0,
            "images_per_second": images_seen / train_seconds if history else 0.0,
        },
        software=software(),
        hardware=hardware(shop.device),
    )


def _accuracy(network: Network, images: ImageSet, split: str, shop: Workshop) -> EstimateModel:
    answers = observe(network, images, device=shop.device, split=split)
    return EstimateModel.of(accuracy(answers.logits, answers.labels))


def spread(images: ImageSet, count: int) -> ImageSet:
    """At most `count` images, evenly spread over the set: a source may keep its classes one after the other."""
    return images.subset(np.linspace(0, len(images) - 1, min(count, len(images))).astype(np.int64))


def memorised(label: str, estimates: Mapping[str, EstimateModel]) -> list[str]:
    """A sentence for a teacher that is right and certain on nearly every training image: its logits hold little but the labels."""
    right, sure = estimates["train_accuracy"].value or 0.0, estimates["mean_confidence"].value or 0.0
    if right < 0.99 or sure < 0.99:
        return []
    return [
        f"{label} has memorised its training images ({100 * right:.1f} % right, mean confidence {100 * sure:.1f} %): "
        "it has little to teach there beyond the labels. A shorter training or more images would leave softer answers."
    ]


def observe_run(shop: Workshop, training: Training) -> None:
    """Observe one trained network on the clean test images, the source's extra sets and every probe; what exists is not redone."""
    folder = shop.out / "observations" / training.run
    missing = {name: folder / file for name, file in shop.observation_files.items() if not (folder / file).exists()}
    if missing:
        network = load_trained(shop, training)
        torch.set_num_threads(training.recipe.threads)
        for name, path in missing.items():
            save_observations(path, _observe(shop, network, name, f"observing {training.label} on {name}"))
    if missing or not predictions_file(shop.out, training.run).exists():
        write_predictions(shop.out, training.run, shop.observation_files)


def _observe(shop: Workshop, network: Network, name: str, description: str) -> dict[LevelDraw, Observations]:
    size = shop.config.observe.batch_size
    if name in shop.splits.extra:  # rows of its own split: never paired with the clean ones
        return {("", 0): observe(network, shop.splits.extra[name], device=shop.device, batch_size=size, split=name)}
    if name not in shop.probe_sets:
        return {("", 0): observe(network, shop.splits.test, device=shop.device, batch_size=size)}
    probe_set, answers = shop.probe_sets[name], {}
    chosen = np.flatnonzero(np.isin(probe_set.kept_index, shop.probed_rows))
    with shop.progress.bar(description, len(probe_set.levels) * probe_set.draws) as advance:
        for level, level_name in enumerate(probe_set.level_names):
            for draw in range(probe_set.draws):
                images = probe_set.images(level, draw)
                shown = images if len(chosen) == len(images) else images.subset(chosen)
                index = probe_set.kept_index[chosen]
                answers[level_name, draw] = observe(network, shown, index=index, device=shop.device, batch_size=size)
                advance(1, level_name)
    return answers
