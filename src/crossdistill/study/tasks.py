"""The first task of every training: the network trained, with its record and weights, or nothing. What is observed of it: `observing`."""

import glob
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch

from crossdistill.core import registry
from crossdistill.core.progress import Stopwatch
from crossdistill.core.recipe import EXECUTION
from crossdistill.core.records import EpochRow, EstimateModel, RunRecord
from crossdistill.core.store import file_sha256, locked, write_atomically
from crossdistill.core.types import ImageSet
from crossdistill.images._transfer import labelled
from crossdistill.metrics.accuracy import accuracy
from crossdistill.metrics.confidence import confidence
from crossdistill.models._build import save_network
from crossdistill.observe import observe
from crossdistill.ops.flops import forward_flops
from crossdistill.ops.network import Network
from crossdistill.study.answers import answers_of
from crossdistill.study.devices import alike, prepared, shared
from crossdistill.study.environment import hardware, software
from crossdistill.study.gates import training_images
from crossdistill.study.matching import run_name, teaching_epoch
from crossdistill.study.networks import build, load_trained, refuse_swapped_checkpoint, spread
from crossdistill.study.objectives import objective_of, partners_of
from crossdistill.study.plan import Training
from crossdistill.study.tables import predictions_file
from crossdistill.study.temperature import temperature
from crossdistill.study.timings import note_training
from crossdistill.study.workshop import Workshop, recorded
from crossdistill.train.checkpoint import clear_checkpoints
from crossdistill.train.expense import PeakMemory
from crossdistill.train.loop import Training as Trainer
from crossdistill.train.memory import enough_memory
from crossdistill.train.optimizers import settled
from crossdistill.train.precision import resolved_precision
from crossdistill.train.tracking import Tracking

PROFILE_IMAGES = 2000  # of training, for a teacher's training accuracy and confidence
TOO_LARGE = (
    "out of memory outside the training's steps: its images and networks do not fit. Take fewer or smaller images or smaller networks, "
    "or end other programs that use the memory."
)


def train(shop: Workshop, training: Training) -> RunRecord:
    """Train one network, or go on where it was stopped; returns its record, at once where it is finished."""
    folder, tracking, before = shop.folder(training), _tracking(shop, training), recorded(shop.out, training.run)
    if not shop.finished(training):
        with locked(folder, f"another process is training {training.label} in {folder}", waiting=shop.progress.line):
            if not shop.finished(training):
                with enough_memory(lambda: f"{training.label}: {TOO_LARGE}"):
                    _train(shop, training, folder, tracking)
    clear_checkpoints(folder)
    record = shop.record(training)
    if tracking:
        tracking.finish(record)  # also of a run that was finished elsewhere, such as a teacher of the store
    if training.arm == "teacher" and not _is_told(shop, training, record):
        for name in ("log.jsonl", "record.json"):
            copy_file(folder / name, shop.out / "runs" / training.run / name)
    now = recorded(shop.out, training.run)
    if before and now and before.weights != now.weights:
        _forget_observed(shop.out, training.run)
    return record


def _forget_observed(out: Path, run: str) -> None:
    """Remove what was observed of a run's former weights, and all that is told of what it was after an epoch."""
    for name in [run, *(folder.name for folder in (out / "runs").glob(f"{glob.escape(run)}@*"))]:
        predictions_file(out, name).unlink(missing_ok=True)
        for folder in ("observations", "instruments", *(("runs",) if name != run else ())):
            shutil.rmtree(out / folder / name, ignore_errors=True)


def _is_told(shop: Workshop, teacher: Training, record: RunRecord) -> bool:
    """Whether the study's folder, which keeps what the page reads, has the record of these weights, or of others that taught there.

    Weights stay in the store. Those that are made again for a student replace what is told of them, where they are not the same.
    """
    known = recorded(shop.out, teacher.run)
    return known is not None and known.weights is not None and (known.weights == record.weights or teacher.run not in shop.wanted)


def copy_file(source: Path, target: Path) -> None:
    """Copy a file, whole or not at all; nothing where there is none."""
    if source.exists():
        content = source.read_bytes()
        write_atomically(target, lambda file: file.write(content))


def _tracking(shop: Workshop, training: Training) -> Tracking | None:
    """Who is told how a training goes, where the study asks for it."""
    if shop.config.tracker is None:
        return None
    facts = {
        "study": shop.config.name, "label": training.label, "arm": training.arm, "network": training.network, "seed": training.seed,
        "teacher": training.taught_by, "method": training.method.model_dump(mode="json") if training.method else None,
        "recipe": training.recipe.model_dump(mode="json"),
    }  # fmt: skip
    return Tracking(shop.config.tracker, training.run, facts, shop.out / "tracking" / training.run, shop.progress.line)


def _train(shop: Workshop, training: Training, folder: Path, tracking: Tracking | None) -> None:
    epoch, notes = teaching_epoch(shop, training)
    same = training.own if training.control == "matched_teacher" and epoch is None else None
    if same is not None and shop.finished(same) and shop.weights(same).exists():
        # The teacher's own weights are the match: it is the method's own student, unless that was published without weights.
        for name in ("log.jsonl", "network.safetensors"):
            copy_file(shop.folder(same) / name, folder / name)
        own = {"run": training.run, "label": training.label, "arm": training.arm, "control": training.control}
        record = RunRecord.load(shop.folder(same)).model_copy(update=own)
    else:
        record = _trained(shop, training, folder, epoch, tracking)
    teachers = {teacher.run: shop.record(teacher).weights for teacher in (training.teacher, training.rival) if teacher}
    record.model_copy(update={"notes": [*record.notes, *notes], "teacher_weights": teachers}).save(folder)


def _trained(shop: Workshop, training: Training, folder: Path, epoch: int | None, tracking: Tracking | None) -> RunRecord:
    """Train the network from its start or its checkpoint, taught by the teacher as it was after `epoch`, and save its weights."""
    watch = Stopwatch()
    if training.key in shop.keeps_epochs and not _all_kept(shop, training, folder):
        shutil.rmtree(folder / "checkpoint", ignore_errors=True)
    validation, names = shop.splits.validation, shop.splits.train.class_names
    history: list[EpochRow] = []
    told, spent = {}, {}
    if shop.config.networks[training.network].checkpoint is None:
        peak = PeakMemory(shop.device)
        with shared(shop, training, epoch):
            trainer = trained(shop, training, epoch, tracking)
        spent = {"peak_memory_mb": peak.mb}
        network, validation, history = trainer.network, trainer.validation, trainer.history
        told = {"evaluated_weights": trainer.evaluated_weights, "batch_norm": trainer.batch_norm}
        if trainer.teacher is not None:
            spent |= {"teacher_cached": getattr(trainer.answers, "cached_share", 0.0), "teacher_share": trainer.teacher_share.share}
    else:
        torch.set_num_threads(training.recipe.threads)  # whatever this process did before
        network = build(shop, training)
        refuse_swapped_checkpoint(training, shop.config.networks[training.network])
    save_network(network, folder / "network.safetensors", class_names=names, extra={"run": training.run})
    taught = {"teacher_epoch": epoch, "teacher_run": run_name(training.teacher, epoch) if training.teacher else None,
              "weights": file_sha256(folder / "network.safetensors"), **told}  # fmt: skip
    record = _record(shop, training, network, history, validation, watch.seconds)
    known = {name: value for name, value in spent.items() if value is not None}
    return record.model_copy(update={**taught, "timing": {**record.timing, **known}})


def trained(shop: Workshop, training: Training, epoch: int | None, tracking: Tracking | None = None) -> Trainer:
    """The training, done, and `tracking` told of each epoch. Where several devices share it, all their processes call this; the first
    keeps what is kept."""
    torch.set_num_threads(training.recipe.threads)
    recipe, folder = training.recipe, shop.folder(training)
    with prepared(), enough_memory(lambda: f"{training.label}: {TOO_LARGE}"):
        network = build(shop, training)
        images, validation = training_images(shop, training)
        teacher = load_trained(shop, training.teacher, epoch) if training.teacher else None
        objective = objective_of(shop, training, network, teacher, epoch)
        answers = answers_of(shop, training, teacher, objective.needs.teacher_taps, epoch)
        partners = partners_of(shop, training)

    def after_epoch(epochs_done: int, kept: Network) -> None:
        if training.key in shop.keeps_epochs:
            extra = {"run": training.run, "epoch": epochs_done}
            save_network(kept, shop.weights(training, epochs_done), class_names=images.class_names, extra=extra)
        if tracking:
            tracking.rows(trainer.history)

    with alike(), enough_memory(lambda: f"{training.label}: {TOO_LARGE}"):
        trainer = Trainer(
            network, images, validation, recipe, who=(shop.config.seed, training.role, training.seed), folder=folder, objective=objective,
            teacher=teacher, answers=answers, device=shop.device, partners=partners,
            after_epoch=after_epoch, progress=shop.progress, description=training.label,
        )  # fmt: skip
        resumed, watch = any((folder / "checkpoint").glob("step-*")), Stopwatch()
        trainer.run()
        note_training(shop, training, trainer, watch.seconds, resumed=resumed)
    return trainer


def _all_kept(shop: Workshop, training: Training, folder: Path) -> bool:
    """Whether the weights of all epochs so far are there: a study that did not want them may have come so far with the same teacher."""
    log = folder / "log.jsonl"
    n_epochs = len(log.read_text(encoding="utf-8").splitlines()) if log.exists() else 0
    return all(shop.weights(training, epoch).exists() for epoch in range(1, n_epochs + 1))


def _record(
    shop: Workshop, training: Training, network: Network, history: list[EpochRow], validation: ImageSet, seconds: float
) -> RunRecord:  # fmt: skip
    method = training.method
    estimates = validated(network, validation, shop)
    if training.probe is not None:
        del estimates["temperature"]  # a ceiling's validation images are not clean
    notes = list(network.notes)
    if training.arm == "teacher":
        shown = spread(labelled(shop.splits.train), PROFILE_IMAGES)
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
        flops=forward_flops(network),
        training={
            **settled(training.recipe, network.family).model_dump(mode="json", exclude=EXECUTION),
            "precision": resolved_precision(training.recipe.precision, shop.device),
        },
        history=history,
        estimates=estimates,
        notes=notes,
        plugins=plugins,
        timing={
            "seconds": seconds,
            "seconds_per_epoch": train_seconds / len(history) if history else 0.0,
            "images_per_second": images_seen / train_seconds if train_seconds else 0.0,
        },
        software=software(),
        hardware=hardware(shop.device),
    )


def validated(network: Network, validation: ImageSet, shop: Workshop) -> dict[str, EstimateModel]:
    """What a network's answers to validation images tell of it."""
    answers = observe(network, validation, device=shop.device, split="validation")
    return {"validation_accuracy": EstimateModel.of(accuracy(answers.logits, answers.labels)), "temperature": temperature(answers)}


def memorised(label: str, estimates: Mapping[str, EstimateModel]) -> list[str]:
    """A sentence for a teacher that is right and certain on nearly every training image: its logits hold little but the labels."""
    right, sure = estimates["train_accuracy"].value or 0.0, estimates["mean_confidence"].value or 0.0
    if right < 0.99 or sure < 0.99:
        return []
    return [
        f"{label} has memorised its training images ({100 * right:.1f} % right, mean confidence {100 * sure:.1f} %): "
        "it has little to teach there beyond the labels. A shorter training or more images would leave softer answers."
    ]
