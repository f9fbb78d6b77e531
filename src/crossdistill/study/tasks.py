"""The tasks of a study: train one network, observe one network. Each leaves its record, or nothing."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import torch

from crossdistill.core import registry
from crossdistill.core.observations import LevelDraw, save_observations
from crossdistill.core.progress import Stopwatch
from crossdistill.core.recipe import EXECUTION
from crossdistill.core.records import EARLIER_TEACHER, EpochRow, EstimateModel, RunRecord
from crossdistill.core.store import file_sha256, locked, write_atomically
from crossdistill.core.types import ImageSet, Observations
from crossdistill.images._transfer import labelled
from crossdistill.metrics.accuracy import accuracy
from crossdistill.metrics.confidence import confidence
from crossdistill.models._build import save_network
from crossdistill.observe import observe
from crossdistill.ops.network import Network
from crossdistill.study.answers import answers_of
from crossdistill.study.devices import alike, prepared, shared
from crossdistill.study.environment import hardware, software
from crossdistill.study.gates import training_images
from crossdistill.study.instruments import copy_measured, measure, unmeasured
from crossdistill.study.matching import run_name, teaching_epoch
from crossdistill.study.networks import build, load_trained, refuse_swapped_checkpoint, spread
from crossdistill.study.objectives import objective_of, partners_of
from crossdistill.study.plan import Training
from crossdistill.study.probes import observe_probe
from crossdistill.study.tables import predictions_file, write_predictions
from crossdistill.study.temperature import temperature
from crossdistill.study.workshop import Workshop
from crossdistill.train.checkpoint import clear_checkpoints
from crossdistill.train.loop import Training as Trainer
from crossdistill.train.memory import enough_memory
from crossdistill.train.optimizers import settled
from crossdistill.train.precision import resolved_precision

PROFILE_IMAGES = 2000  # of training, for a teacher's training accuracy and confidence
TOO_LARGE = (
    "out of memory outside the training's steps: its images and networks do not fit. Take fewer or smaller images or smaller networks, "
    "or end other programs that use the memory."
)


def train(shop: Workshop, training: Training) -> RunRecord:
    """Train one network, or go on where it was stopped; returns its record, at once where it is finished."""
    folder = shop.folder(training)
    if not shop.finished(training):
        with locked(folder, f"another process is training {training.label} in {folder}", waiting=shop.progress.line):
            if not shop.finished(training):
                with enough_memory(lambda: f"{training.label}: {TOO_LARGE}"):
                    _train(shop, training, folder)
    clear_checkpoints(folder)
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
    if same is not None and shop.finished(same):  # the teacher's own weights are the match: it is the method's own student
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
    if training.key in shop.keeps_epochs and not _all_kept(shop, training, folder):
        shutil.rmtree(folder / "checkpoint", ignore_errors=True)
    validation, names = shop.splits.validation, shop.splits.train.class_names
    history: list[EpochRow] = []
    told, served = {}, {}
    if shop.config.networks[training.network].checkpoint is None:
        with shared(shop, training, epoch):
            trainer = trained(shop, training, epoch)
        network, validation, history = trainer.network, trainer.validation, trainer.history
        told = {"evaluated_weights": trainer.evaluated_weights, "batch_norm": trainer.batch_norm}
        if trainer.teacher is not None:
            served = {"teacher_cached": getattr(trainer.answers, "cached_share", 0.0)}
    else:
        torch.set_num_threads(training.recipe.threads)  # whatever this process did before
        network = build(shop, training)
        refuse_swapped_checkpoint(training, shop.config.networks[training.network])
    save_network(network, folder / "network.safetensors", class_names=names, extra={"run": training.run})
    taught = {"teacher_epoch": epoch, "teacher_run": run_name(training.teacher, epoch) if training.teacher else None,
              "weights": file_sha256(folder / "network.safetensors"), **told}  # fmt: skip
    record = _record(shop, training, network, history, validation, watch.seconds)
    return record.model_copy(update={**taught, "timing": {**record.timing, **served}})


def trained(shop: Workshop, training: Training, epoch: int | None) -> Trainer:
    """The training, done. Where several devices share it, all their processes call this; the first keeps what is kept."""
    torch.set_num_threads(training.recipe.threads)
    recipe, folder = training.recipe, shop.folder(training)
    with prepared(), enough_memory(lambda: f"{training.label}: {TOO_LARGE}"):
        network = build(shop, training)
        images, validation = training_images(shop, training)
        teacher = load_trained(shop, training.teacher, epoch) if training.teacher else None
        objective = objective_of(shop, training, network, teacher, epoch)
        answers = answers_of(shop, training, teacher, objective.needs.teacher_taps, epoch)
        partners = partners_of(shop, training)

    def keep(epochs_done: int, kept: Network) -> None:
        extra = {"run": training.run, "epoch": epochs_done}
        save_network(kept, shop.weights(training, epochs_done), class_names=images.class_names, extra=extra)

    with alike(), enough_memory(lambda: f"{training.label}: {TOO_LARGE}"):
        trainer = Trainer(
            network, images, validation, recipe, who=(shop.config.seed, training.role, training.seed), folder=folder, objective=objective,
            teacher=teacher, answers=answers, device=shop.device, partners=partners,
            after_epoch=keep if training.key in shop.keeps_epochs else None, progress=shop.progress, description=training.label,
        )  # fmt: skip
        trainer.run()
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
    estimates = _validated(network, validation, shop)
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


def _validated(network: Network, validation: ImageSet, shop: Workshop) -> dict[str, EstimateModel]:
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


def observe_run(shop: Workshop, training: Training) -> None:
    """Observe one trained network, and the weights that taught it where these are not their teacher's last.

    Observed are the clean test images, the source's extra sets and every probe, or a ceiling's own probe; what exists is not redone.
    """
    record = RunRecord.load(shop.folder(training))
    if training.own and training.control == "matched_teacher" and record.teacher_epoch is None:  # the very same network
        for file in shop.observation_files.values():
            copy_file(shop.out / "observations" / training.own.run / file, shop.out / "observations" / training.run / file)
        copy_measured(shop, training.own.run, training.run)
    _observe_run(shop, training, training.run)
    if record.teacher_epoch is None or training.teacher is None:
        return
    name = run_name(training.teacher, record.teacher_epoch)
    if not (shop.out / "runs" / name / "record.json").exists():
        _earlier_teacher(shop, training.teacher, record.teacher_epoch).save(shop.out / "runs" / name)
    _observe_run(shop, training.teacher, name, record.teacher_epoch)


def _earlier_teacher(shop: Workshop, training: Training, epoch: int) -> RunRecord:
    """The record of a teacher as it was after an epoch, as far as it was trained by then."""
    teacher = RunRecord.load(shop.folder(training))
    after = [row for row in teacher.history if row.epoch <= epoch]
    torch.set_num_threads(training.recipe.threads)
    estimates = _validated(load_trained(shop, training, epoch), shop.splits.validation, shop)
    return teacher.model_copy(update={
        "run": run_name(training, epoch), "label": f"{teacher.label}, after epoch {epoch}", "arm": EARLIER_TEACHER, "history": after,
        "evaluated_weights": f"epoch {epoch}{', averaged' if training.recipe.ema else ''}", "estimates": estimates,
    })  # fmt: skip


def nothing_left(shop: Workshop, training: Training) -> bool:
    """Whether a training is finished, and all is observed of it and of the weights that taught it."""
    if not shop.finished(training):
        return False
    epoch = RunRecord.load(shop.folder(training)).teacher_epoch
    seen = {training.run: training}
    if epoch is not None and training.teacher is not None:
        seen[run_name(training.teacher, epoch)] = training.teacher
    return all(predictions_file(shop.out, name).exists() and not _left(shop, of, name) for name, of in seen.items())


def _left(shop: Workshop, training: Training, name: str) -> bool:
    """Whether a network is still to be observed or measured."""
    return bool(_missing(shop, training, name) or unmeasured(shop, training, name))


def _missing(shop: Workshop, training: Training, name: str) -> dict[str, Path]:
    """The test sets on which a network is still to be observed, each with the file of the answers."""
    files = {test_set: shop.out / "observations" / name / file for test_set, file in _files(shop, training).items()}
    return {test_set: path for test_set, path in files.items() if not path.exists()}


def _files(shop: Workshop, training: Training) -> dict[str, str]:
    return {test_set: file for test_set, file in shop.observation_files.items() if training.probe in (None, test_set)}


def _observe_run(shop: Workshop, training: Training, name: str, epoch: int | None = None) -> None:
    missing = _missing(shop, training, name)
    if _left(shop, training, name):
        network = load_trained(shop, training, epoch)
        torch.set_num_threads(training.recipe.threads)
        if missing:
            predictions_file(shop.out, name).unlink(missing_ok=True)  # they are of the observations that were, and would outlive a kill
        for test_set, path in missing.items():
            with enough_memory(lambda test_set=test_set: _observing_advice(shop, training, test_set)):
                answers = _observe(shop, network, test_set, f"observing {training.label} on {test_set}")
            save_observations(path, {place: seen for place, seen in answers.items() if training.level in (None, place[0])})
        measure(shop, training, name, network)
    if missing or not predictions_file(shop.out, name).exists():
        write_predictions(shop.out, name, _files(shop, training))


def _observing_advice(shop: Workshop, training: Training, test_set: str) -> str:
    return (
        f"{training.label}: out of memory while it was observed on {test_set}, {shop.config.observe.batch_size} images at a time: "
        "lower `observe: {batch_size}`, or `observe: {images}`."
    )


def _observe(shop: Workshop, network: Network, name: str, description: str) -> dict[LevelDraw, Observations]:
    size = shop.config.observe.batch_size
    if name in shop.splits.extra:  # rows of its own split: never paired with the clean ones
        return {("", 0): observe(network, shop.splits.extra[name], device=shop.device, batch_size=size, split=name)}
    if name not in shop.probe_sets:
        return {("", 0): observe(network, shop.splits.test, device=shop.device, batch_size=size)}
    probe_set = shop.probe_sets[name]
    with shop.progress.bar(description, len(probe_set.levels) * probe_set.draws) as advance:
        return observe_probe(network, probe_set, device=shop.device, rows=shop.probed_rows, batch_size=size, advance=advance)
