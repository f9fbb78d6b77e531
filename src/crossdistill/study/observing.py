"""The second task of every training: its network is shown the test images, and measured. Each file is there whole, or not at all."""

from pathlib import Path

import torch

from crossdistill.core.errors import RunError
from crossdistill.core.observations import LevelDraw, save_observations
from crossdistill.core.progress import Stopwatch
from crossdistill.core.records import EARLIER_TEACHER, RunRecord
from crossdistill.core.store import locked
from crossdistill.core.types import Observations
from crossdistill.observe import observe
from crossdistill.ops.network import Network
from crossdistill.study.instruments import copy_measured, measure, unmeasured
from crossdistill.study.matching import run_name
from crossdistill.study.networks import load_trained
from crossdistill.study.plan import Training
from crossdistill.study.probes import observe_probe
from crossdistill.study.tables import predictions_file, write_predictions
from crossdistill.study.tasks import copy_file, validated
from crossdistill.study.timings import instrument_facts, note, observation_facts
from crossdistill.study.workshop import Workshop
from crossdistill.train.memory import enough_memory


def observe_run(shop: Workshop, training: Training) -> None:
    """Observe one trained network, and the weights that taught it where these are not their teacher's last.

    Observed are the clean test images, the source's extra sets and every probe, or a ceiling's own probe; what exists is not redone.
    """
    record = shop.record(training)
    own = training.own if training.control == "matched_teacher" and record.teacher_epoch is None else None  # the very same network
    if own and not _is_observed(shop, training, training.run):
        for file in shop.observation_files.values():
            copy_file(shop.out / "observations" / own.run / file, shop.out / "observations" / training.run / file)
        copy_measured(shop, own.run, training.run)
    _observe_run(shop, training, training.run)
    if record.teacher_epoch is None or training.teacher is None:
        return
    name = run_name(training.teacher, record.teacher_epoch)
    if not (shop.out / "runs" / name / "record.json").exists():
        _earlier_teacher(shop, training.teacher, record.teacher_epoch).save(shop.out / "runs" / name)
    _observe_run(shop, training.teacher, name, record.teacher_epoch)


def _earlier_teacher(shop: Workshop, training: Training, epoch: int) -> RunRecord:
    """The record of a teacher as it was after an epoch, as far as it was trained by then."""
    teacher = shop.record(training)
    after = [row for row in teacher.history if row.epoch <= epoch]
    torch.set_num_threads(training.recipe.threads)
    estimates = validated(load_trained(shop, training, epoch), shop.splits.validation, shop)
    return teacher.model_copy(update={
        "run": run_name(training, epoch), "label": f"{teacher.label}, after epoch {epoch}", "arm": EARLIER_TEACHER, "history": after,
        "evaluated_weights": f"epoch {epoch}{', averaged' if training.recipe.ema else ''}", "estimates": estimates,
    })  # fmt: skip


def nothing_left(shop: Workshop, training: Training) -> bool:
    """Whether a training is finished, and all is observed of it and of the weights that taught it."""
    try:
        if not shop.finished(training):
            return False
        epoch = shop.record(training).teacher_epoch
    except RunError:
        return False  # whoever is to do it says what is damaged
    seen = {training.run: training}
    if epoch is not None and training.teacher is not None:
        seen[run_name(training.teacher, epoch)] = training.teacher
    return all(_is_observed(shop, of, name) for name, of in seen.items())


def needs_weights(shop: Workshop, training: Training, name: str) -> bool:
    """Whether a network (a training's, or a teacher's as it was after an epoch, by name) is still to be observed or measured."""
    return bool(_missing(shop, training, name) or unmeasured(shop, training, name))


def _is_observed(shop: Workshop, training: Training, name: str) -> bool:
    """Whether nothing is left to do with a network; published decisions need no table of predictions beside them."""
    return not needs_weights(shop, training, name) and (predictions_file(shop.out, name).exists() or bool(shop.published(name)))


def _missing(shop: Workshop, training: Training, name: str) -> dict[str, Path]:
    """The test sets on which a network is still to be observed, each with the file of the answers."""
    files = {test_set: shop.out / "observations" / name / file for test_set, file in _files(shop, training).items()}
    told = shop.published(name)
    return {test_set: path for test_set, path in files.items() if not path.exists() and path.name not in told}


def _files(shop: Workshop, training: Training) -> dict[str, str]:
    return {test_set: file for test_set, file in shop.observation_files.items() if training.probe in (None, test_set)}


def _observe_run(shop: Workshop, training: Training, name: str, epoch: int | None = None) -> None:
    """Held while it lasts, so that everyone can see that it is at work, and two that share a teacher's earlier weights take turns."""
    if _is_observed(shop, training, name):
        return
    folder = shop.out / "observations" / name
    with locked(folder, f"another process is observing {name}", waiting=shop.progress.line):
        _observe_what_is_left(shop, training, name, epoch)


def _observe_what_is_left(shop: Workshop, training: Training, name: str, epoch: int | None) -> None:
    missing = _missing(shop, training, name)
    if needs_weights(shop, training, name):
        network = load_trained(shop, training, epoch)
        torch.set_num_threads(training.recipe.threads)
        watch, n_seen = Stopwatch(), 0
        if missing:
            predictions_file(shop.out, name).unlink(missing_ok=True)  # they are of the observations that were, and would outlive a kill
        for test_set, path in missing.items():
            with enough_memory(lambda test_set=test_set: _observing_advice(shop, training, test_set)):
                answers = _observe(shop, network, test_set, f"observing {training.label} on {test_set}")
            save_observations(path, {place: seen for place, seen in answers.items() if training.level in (None, place[0])})
            n_seen += sum(len(seen.labels) for seen in answers.values())
        who = (shop, training.network, training.recipe.threads)
        if n_seen:
            note(shop.store, observation_facts(*who), images_per_second=n_seen / max(watch.seconds, 1e-9))
        instruments, watch = list(unmeasured(shop, training, name)), Stopwatch()
        measure(shop, training, name, network)
        if instruments:
            note(shop.store, instrument_facts(*who, instruments), seconds=watch.seconds)
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
