"""The tasks of a study: train one network, observe one network. Each leaves its record, or nothing."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import torch

from crossdistill.core import registry
from crossdistill.core.config import EXECUTION
from crossdistill.core.observations import LevelDraw, save_observations
from crossdistill.core.progress import Stopwatch
from crossdistill.core.records import EpochRow, EstimateModel, RunRecord
from crossdistill.core.store import locked, write_atomically
from crossdistill.core.types import ImageSet, Observations
from crossdistill.metrics.accuracy import accuracy
from crossdistill.metrics.confidence import confidence
from crossdistill.models._build import save_network
from crossdistill.observe import observe
from crossdistill.ops.network import Network
from crossdistill.study.environment import hardware, software
from crossdistill.study.gates import training_images
from crossdistill.study.matching import run_name, teaching_epoch
from crossdistill.study.networks import build, load_trained, spread
from crossdistill.study.objectives import objective_of, partners_of
from crossdistill.study.plan import Training
from crossdistill.study.probes import observe_probe
from crossdistill.study.tables import predictions_file, write_predictions
from crossdistill.study.workshop import Workshop
from crossdistill.train.loop import Training as Trainer
from crossdistill.train.precision import resolved_precision

PROFILE_IMAGES = 2000  # of training, for a teacher's training accuracy and confidence


def train(shop: Workshop, training: Training) -> RunRecord:
    """Train one network, or go on where it was stopped; returns its record, at once where it is finished."""
    folder = shop.folder(training)
    if not shop.finished(training):
        with locked(folder, f"another study is training {training.label} in {folder}: wait for it, then run the same command again"):
            if not shop.finished(training):
                _train(shop, training, folder)
            shutil.rmtree(folder / "checkpoint", ignore_errors=True)
    record = RunRecord.load(folder)
    if training.arm == "teacher":  # the study folder keeps what the page reads; the weights stay in the store
        for name in ("log.jsonl", "record.json"):
            copy_file(folder / name, shop.out / "runs" / training.run / name)
    return record


def copy_file(source: Path, target: Path) -> None:
    """Copy a file, whole or not at all; nothing where there is none."""
    if source.exists():
        content = source.read_bytes()
        write_atomically(target, lambda file: file.write(content))


def _train(shop: Workshop, training: Training, folder: Path) -> None:
    epoch, notes = teaching_epoch(shop, training)
    same = training.own if training.control == "matched_teacher" and epoch is None else None
    if same is not None and shop.finished(same):  # the teacher's last weights are the match: it is the method's own student
        for name in ("log.jsonl", "network.safetensors"):
            copy_file(shop.folder(same) / name, folder / name)
        own = {"run": training.run, "label": training.label, "arm": training.arm, "control": training.control}
        record = RunRecord.load(shop.folder(same)).model_copy(update=own)
    else:
        record = _trained(shop, training, folder, epoch)
    record.model_copy(update={"notes": [*record.notes, *notes]}).save(folder)


def _trained(shop: Workshop, training: Training, folder: Path, epoch: int | None) -> RunRecord:
    """Train the network from its start or its checkpoint, taught by the teacher as it was after `epoch`, and save its weights."""
    watch = Stopwatch()
    torch.set_num_threads(training.recipe.threads)
    network = build(shop, training)
    images, validation = training_images(shop, training)
    names = images.class_names
    history: list[EpochRow] = []

    def keep(epochs_done: int, kept: Network) -> None:
        save_network(kept, shop.weights(training, epochs_done), class_names=names, extra={"run": training.run})

    if shop.config.networks[training.network].checkpoint is None:
        teacher = load_trained(shop, training.teacher, epoch) if training.teacher else None
        trainer = Trainer(
            network, images, validation, training.recipe, who=(shop.config.seed, training.role, training.seed),
            folder=folder, objective=objective_of(shop, training, network, teacher, epoch), teacher=teacher, device=shop.device,
            partners=partners_of(shop, training), after_epoch=keep if training.key in shop.keeps_epochs else None,
            progress=shop.progress, description=training.label,
        )  # fmt: skip
        history = trainer.run()
    save_network(network, folder / "network.safetensors", class_names=names, extra={"run": training.run})
    taught = {"teacher_epoch": epoch, "teacher_run": run_name(training.teacher, epoch) if training.teacher else None}
    return _record(shop, training, network, history, validation, watch.seconds).model_copy(update=taught)


def _record(
    shop: Workshop, training: Training, network: Network, history: list[EpochRow], validation: ImageSet, seconds: float
) -> RunRecord:  # fmt: skip
    method = training.method
    estimates = {"validation_accuracy": _accuracy(network, validation, "validation", shop)}
    notes = list(network.notes)
    if training.arm == "teacher":
        shown = spread(shop.splits.train, PROFILE_IMAGES)
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
        control=training.control,
        method=method.name if method else None,
        method_settings=method.model_dump(mode="json", exclude={"name", "label"}) if method else {},
        teacher=training.teacher.network if training.teacher else None,
        teacher_run=training.teacher.run if training.teacher else None,
        student=training.network,
        model=network.model_name,
        family=network.family,
        readout=network.readout,
        patch_grid=network.patch_grid,
        seed=training.seed,
        parameters=network.n_parameters,
        training={
            **training.recipe.model_dump(mode="json", exclude=EXECUTION),
            "precision": resolved_precision(training.recipe.precision, shop.device),
        },
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
    """Observe one trained network, and the weights that taught it where these are not their teacher's last.

    Observed are the clean test images, the source's extra sets and every probe, or a ceiling's own probe; what exists is not redone.
    """
    record = RunRecord.load(shop.folder(training))
    if training.own and training.control == "matched_teacher" and record.teacher_epoch is None:  # the very same network
        for file in shop.observation_files.values():
            copy_file(shop.out / "observations" / training.own.run / file, shop.out / "observations" / training.run / file)
    _observe_run(shop, training, training.run)
    if record.teacher_epoch is None or training.teacher is None:
        return
    name = run_name(training.teacher, record.teacher_epoch)
    if not (shop.out / "runs" / name / "record.json").exists():
        teacher = RunRecord.load(shop.folder(training.teacher))
        after = [row for row in teacher.history if row.epoch <= record.teacher_epoch]
        accuracy_then = EstimateModel(value=after[-1].validation_accuracy, unit="share")
        changed = {"run": name, "label": f"{teacher.label}, after epoch {record.teacher_epoch}", "arm": "earlier_teacher", "history": after,
                   "estimates": {"validation_accuracy": accuracy_then}}  # fmt: skip
        teacher.model_copy(update=changed).save(shop.out / "runs" / name)
    _observe_run(shop, training.teacher, name, record.teacher_epoch)


def _observe_run(shop: Workshop, training: Training, name: str, epoch: int | None = None) -> None:
    folder = shop.out / "observations" / name
    files = {test_set: file for test_set, file in shop.observation_files.items() if training.probe in (None, test_set)}
    missing = {test_set: folder / file for test_set, file in files.items() if not (folder / file).exists()}
    if missing:
        network = load_trained(shop, training, epoch)
        torch.set_num_threads(training.recipe.threads)
        for test_set, path in missing.items():
            answers = _observe(shop, network, test_set, f"observing {training.label} on {test_set}")
            save_observations(path, {place: seen for place, seen in answers.items() if training.level in (None, place[0])})
    if missing or not predictions_file(shop.out, name).exists():
        write_predictions(shop.out, name, files)


def _observe(shop: Workshop, network: Network, name: str, description: str) -> dict[LevelDraw, Observations]:
    size = shop.config.observe.batch_size
    if name in shop.splits.extra:  # rows of its own split: never paired with the clean ones
        return {("", 0): observe(network, shop.splits.extra[name], device=shop.device, batch_size=size, split=name)}
    if name not in shop.probe_sets:
        return {("", 0): observe(network, shop.splits.test, device=shop.device, batch_size=size)}
    probe_set = shop.probe_sets[name]
    with shop.progress.bar(description, len(probe_set.levels) * probe_set.draws) as advance:
        return observe_probe(network, probe_set, device=shop.device, rows=shop.probed_rows, batch_size=size, advance=advance)
