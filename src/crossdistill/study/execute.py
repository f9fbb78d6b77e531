"""Run a study: every task of its plan that is not done, then the tables and the page."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from crossdistill.core import registry
from crossdistill.core.config import StudyConfig
from crossdistill.core.errors import CrossdistillError, StudyError
from crossdistill.core.progress import Progress
from crossdistill.core.store import digest
from crossdistill.core.types import ImageSet, Splits
from crossdistill.images._splits import load_splits
from crossdistill.ops.network import Network
from crossdistill.report.page import build_page
from crossdistill.study.folder import claimed, declared_contrasts, read_failures, stamp, write_failures
from crossdistill.study.plan import Plan, Training, make_plan, plan_json
from crossdistill.study.probes import build_probes, keep_for_the_page, probed_rows
from crossdistill.study.tables import write_tables
from crossdistill.study.tasks import Workshop, build, observe_run, refuse_wrong_checkpoint, train
from crossdistill.train.loop import refuse_class_mismatch
from crossdistill.train.objective import method_weights, plugin_needs, published_weights


@dataclass(frozen=True)
class Outcome:
    """What a run of a study left: the page, and what failed (label -> reason)."""

    page: Path
    failures: Mapping[str, str]


def study_splits(config: StudyConfig, progress: Progress) -> Splits:
    """The images of a study, decoded once into the cache."""
    images = config.images
    return load_splits(
        images.source, images.settings, train_images=images.train_images, validation_images=images.validation_images,
        test_images=images.test_images, seed=config.seed, progress=_decoding(progress),
    )  # fmt: skip


def _decoding(progress: Progress):
    announced: set[str] = set()

    def tell(what: str, done: int, total: int) -> None:
        if what not in announced:
            announced.add(what)
            progress.line(f"{what}: {total:,} images")

    return tell


def run_study(config: StudyConfig, out: Path, *, store: Path, device: torch.device, progress: Progress, only: str | None = None) -> Outcome:
    """Run what is not done of a study into `out`; the same call goes on after any interruption.

    One failing training does not stop the others: it stands in `failures.json` and on the page. `only` limits the trainings to
    labels that contain it (what they read is run as well).
    """
    with claimed(out, config):
        splits = study_splits(config, progress)
        plan = make_plan(config, fingerprint(splits), device)
        contrasts = declared_contrasts(out, config)
        shop = Workshop(config, splits, out, store, device, progress, probed_rows(splits.test, config))
        refuse_what_cannot_work(shop, plan)
        shop.probe_sets = build_probes(config, splits.test, store, progress)
        stamp(out, config, plan_json(plan, splits, contrasts, shop.observation_files))
        keep_for_the_page(shop.probe_sets.values(), out)
        failures = _run_trainings(shop, plan, only)
        runs = [training.run for training in plan.trainings]
        write_tables(out, config, contrasts, runs, shop.observation_files)
        return Outcome(build_page(out), failures)


def refuse_what_cannot_work(shop: Workshop, plan: Plan) -> None:
    """Build every network once and ask every method about its pair, so that nothing is refused after hours of training."""
    config, built = shop.config, dict[str, Network]()
    for training in plan.trainings:
        if training.network not in built:
            built[training.network] = build(shop, replace(training, method=None))
            refuse_wrong_checkpoint(shop, built[training.network], config.networks[training.network])
    for training in plan.students:
        if training.method and training.teacher:
            plugin = registry.get("method", training.method.name)
            student, teacher = built[training.network], built[training.teacher.network]
            refuse_class_mismatch(student, teacher)
            settings = plugin.parse(training.method.settings)
            method_weights(published_weights(plugin, settings), weight=training.method.weight, weights=training.method.weights)
            plugin_needs(plugin, settings, student, teacher, shop.splits.train.size)


def fingerprint(splits: Splits) -> str:
    """Names the images that a study reads: the sources' content, and which of them, in which order, are in which split."""
    sets = {name: images for name, images in vars(splits).items() if isinstance(images, ImageSet)}
    return digest({name: [images.provenance["key"], images.ids.tolist(), images.labels.tolist()] for name, images in sets.items()})


def _run_trainings(shop: Workshop, plan: Plan, only: str | None) -> dict[str, str]:
    """Train and observe what is wanted; returns and writes down what failed, of this call and of earlier ones."""
    chosen = [training for training in plan.trainings if _wanted(training, plan, only)]
    waiting = {training.label for training in plan.trainings} - {training.label for training in chosen}
    failures = {label: reason for label, reason in read_failures(shop.out).items() if label in waiting}
    write_failures(shop.out, failures)
    for number, training in enumerate(chosen, start=1):
        try:
            if training.teacher and training.teacher.label in failures:
                raise CrossdistillError(f"its teacher failed ({training.teacher.label})")
            if not (shop.folder(training) / "record.json").exists():
                shop.progress.line(f"[{number}/{len(chosen)}] training {training.label}")
            train(shop, training)
            observe_run(shop, training)
        except StudyError:
            raise  # the folder itself: in use, full, read-only; no other task would do better
        except CrossdistillError as error:
            failures[training.label] = str(error)
            shop.progress.line(f"  failed: {error}")
            write_failures(shop.out, failures)
    return failures


def _wanted(training: Training, plan: Plan, only: str | None) -> bool:
    if only is None or only in training.label:
        return True
    return any(student.teacher == training and only in student.label for student in plan.students)
