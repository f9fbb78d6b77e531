"""Run a study: every task of its plan that is not done, then the tables and the page."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from crossdistill.core import registry
from crossdistill.core.config import StudyConfig
from crossdistill.core.errors import ImageError, SettingError
from crossdistill.core.progress import Progress
from crossdistill.core.records import subject
from crossdistill.core.store import digest
from crossdistill.core.types import ImageSet, Splits
from crossdistill.images._splits import load_splits
from crossdistill.ops.network import Network
from crossdistill.ops.parallel import refuse_uneven
from crossdistill.report.page import build_page
from crossdistill.study.answer_plans import answer_plans, answers_json
from crossdistill.study.ceilings import finished_runs, run_ceilings
from crossdistill.study.folder import claimed, declared_contrasts, stamp
from crossdistill.study.gates import possible_ceilings, without_masks
from crossdistill.study.jobs import carrying_out
from crossdistill.study.keys import KeyMaker
from crossdistill.study.networks import build, refuse_wrong_checkpoint
from crossdistill.study.plan import Plan, Training, make_plan, plan_json
from crossdistill.study.probes import build_probes, keep_for_the_page, probed_rows
from crossdistill.study.tables import write_tables
from crossdistill.study.trainings import run_trainings
from crossdistill.study.workshop import Workshop
from crossdistill.train.freezing import frozen_names, frozen_refusal
from crossdistill.train.objective import method_weights, plugin_needs, published_weights, refuse_class_mismatch
from crossdistill.train.partners import same_class_partners


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
        test_images=images.test_images, cue_conflict=images.cue_conflict, transfer=images.transfer, transfer_images=images.transfer_images,
        seed=config.seed, progress=_decoding(progress),
    )  # fmt: skip


def _decoding(progress: Progress):
    announced: set[str] = set()

    def tell(what: str, done: int, total: int) -> None:
        if what not in announced:
            announced.add(what)
            progress.line(f"{what}: {total:,} images")

    return tell


def run_study(
    config: StudyConfig, out: Path, *, store: Path, device: torch.device, progress: Progress, only: str | None = None, jobs: int = 1
) -> Outcome:  # fmt: skip
    """Run what is not done of a study into `out`; the same call goes on after any interruption.

    One failing training does not stop the others: it stands in `failures.json` and on the page. `only` limits the trainings to
    labels that contain it (what they read is run as well). `jobs` trainings run at once, each in a process of its own; their bytes do
    not depend on it.
    """
    with claimed(out, config):
        splits = study_splits(config, progress)
        images = fingerprint(splits)
        plan = make_plan(config, images, device)
        contrasts = declared_contrasts(out, config)
        shop = Workshop(config, splits, out, store, device, progress, probed_rows(splits.test, config))
        built = checked_networks(shop, plan)
        plan = what_can_work(plan, splits, built, progress)
        shop.keeps_epochs = plan.keeps_epochs
        shop.answers = answer_plans(plan, built, splits)
        shop.probe_sets = build_probes(config, splits.test, store, progress, splits=splits, device=device)
        refuse_unseen_probes(shop)
        plan = with_ceilings(plan, shop, KeyMaker(config, images, device))
        stamp(out, config, plan_json(plan, splits, contrasts, shop.observation_files, shop.probe_sets, answers_json(plan, shop.answers)))
        keep_for_the_page(shop.probe_sets.values(), out)

        def written() -> Path:
            write_tables(shop, plan, contrasts, finished_runs(out, plan))
            return build_page(out)

        with carrying_out(shop, plan, images, jobs) as carry_out:
            failures = run_trainings(shop, plan, only, carry_out)
            if plan.ceilings:  # they may take long: what is known without them should stand, whatever happens to them
                run_ceilings(shop, plan, failures, only, carry_out, before_the_first=written)
        return Outcome(written(), failures)


def refuse_unseen_probes(shop: Workshop) -> None:
    """Raises ImageError for a probe of which no network would see an image: it kept none of those that are to be probed."""
    for name, probe_set in shop.probe_sets.items():
        kept = probe_set.kept_index
        if not np.isin(kept, shop.probed_rows).any():
            raise ImageError(
                f"probe '{name}' can treat {len(kept)} of the {len(shop.splits.test)} test images, and none of these is among the "
                f"{len(shop.probed_rows)} that are to be probed (`observe: images:`): ask for more of them, or leave the probe out"
            )


def with_ceilings(plan: Plan, shop: Workshop, keys: KeyMaker) -> Plan:
    """The plan with the trainings that the signal gate may ask for, and why some probes have none."""
    reasons = without_masks(shop.config, shop.splits)
    for probe, reason in reasons.items():
        shop.progress.line(f"signal gate of {probe} not run where no network passes it: {reason}")
    return replace(plan, ceilings=possible_ceilings(shop.config, keys, shop.probe_sets, reasons), no_ceilings=reasons)


def checked_networks(shop: Workshop, plan: Plan) -> dict[str, Network]:
    """Every network of the plan, built once; refuses a checkpoint that cannot be right."""
    built: dict[str, Network] = {}
    for training in plan.trainings:
        if training.network not in built:
            built[training.network] = build(shop, replace(training, method=None))
            refuse_wrong_checkpoint(shop, built[training.network], shop.config.networks[training.network])
    return built


def what_can_work(plan: Plan, splits: Splits, built: Mapping[str, Network], progress: Progress) -> Plan:
    """Ask every method about its pair, so that nothing is refused after hours of training.

    Returns the plan without what is refused for good reason: methods that teach features, where the student's backbone is frozen,
    and controls by a control teacher of methods that exist across families only. Raises SettingError where no method is left, and
    where a contrast with a control teacher is declared that cannot be.
    """
    _refuse_uneven_batches(plan, splits)
    _refuse_freezing(plan, built)
    if any(training.control == "shuffled_teacher" for training in plan.students):
        same_class_partners(np.asarray(splits.train.labels))
    refused: dict[str, str] = {}
    for training in {training.subject: training for training in plan.students}.values():  # seeds do not differ in this
        if training.method is None or training.teacher is None:
            continue
        student, teacher = built[training.network], built[training.teacher.network]
        refuse_class_mismatch(student, teacher)
        _refuse_other_family(training, student, teacher)
        method, plugin = training.method, registry.get("method", training.method.name)
        settings = plugin.parse(method.settings)
        method_weights(published_weights(plugin, settings), weight=method.weight, weights=method.weights)
        try:
            needs = plugin_needs(plugin, settings, student, teacher, splits.train.size)
            if (reason := frozen_refusal(needs, training.recipe)) and training.control is None:
                controls = (t for t in plan.students if t.own and t.own.subject == training.subject)
                refused |= {t.subject: reason for t in (training, *controls)}
        except SettingError as error:
            if training.control != "control_teacher":
                raise
            matched = (t for t in plan.students if t.control == "matched_teacher" and t.own == training.own)
            refused |= {t.subject: "there is no control_teacher to be matched with" for t in matched} | {training.subject: str(error)}
    plan = replace(plan.without(refused), no_control=without_control(plan.config, splits, built))
    _refuse_impossible_contrasts(plan)
    for arm, reason in plan.left_out.items():
        progress.line(f"left out: {arm}: {reason}")
    if not any(training.method and not training.control for training in plan.students):
        raise SettingError(f"no method of this study can be used: {'; '.join(f'{arm}: {reason}' for arm, reason in refused.items())}")
    return plan


def without_control(config: StudyConfig, splits: Splits, built: Mapping[str, Network]) -> dict[str, str]:
    """{subject of a method's students: why no network of the student's own family can teach it}, for every method of every pair.

    Asked is the pair's control teacher, where the study has that arm, and else the student's own network as its teacher.
    """
    found = {}
    for pair in config.pairs:
        student = built[pair.student]
        named = pair.control_teacher if "control_teacher" in config.arms else None
        control = built[named] if named else student
        for method in pair.methods:
            plugin = registry.get("method", method.name)
            try:
                plugin_needs(plugin, plugin.parse(method.settings), student, control, splits.train.size)
            except SettingError as error:
                found[subject(method.arm, pair.teacher, pair.student)] = str(error)
    return found


def _refuse_impossible_contrasts(plan: Plan) -> None:
    """Raises SettingError for a declared contrast with a control teacher that the method refuses."""
    for number, contrast in enumerate(plan.config.contrasts):
        pair = plan.config.pairs[contrast.pair]
        reason = plan.no_control.get(subject(contrast.method, pair.teacher, pair.student))
        if contrast.against == "control_teacher" and reason:
            raise SettingError(
                f"primary.{number}.against: no control teacher can teach by '{contrast.method}', so that nothing can be declared against "
                f"one: {reason}"
            )


def _refuse_uneven_batches(plan: Plan, splits: Splits) -> None:
    """Raises SettingError where a batch cannot be shared evenly by the devices of its training."""
    for recipe in (training.recipe for training in plan.trainings):
        refuse_uneven(min(recipe.batch_size, len(splits.train)), recipe.accumulate, recipe.devices)


def _refuse_freezing(plan: Plan, built: Mapping[str, Network]) -> None:
    """Raises SettingError for a `freeze` that names what the network has not, or leaves nothing to train."""
    for training in plan.trainings:
        if plan.config.networks[training.network].checkpoint is None:
            frozen_names(built[training.network], training.recipe)


def _refuse_other_family(training: Training, student: Network, teacher: Network) -> None:
    if training.control == "control_teacher" and student.family != teacher.family:
        raise SettingError(
            f"the control teacher '{training.taught_by}' is a {teacher.family} network and the student '{training.network}' a "
            f"{student.family} network: name one of the student's own family"
        )


def fingerprint(splits: Splits) -> str:
    """Names the images that a study reads: the sources' content, and which of them, in which order, are in which split."""
    sets = {name: images for name, images in vars(splits).items() if isinstance(images, ImageSet)}
    return digest({name: [images.provenance["key"], images.ids.tolist(), images.labels.tolist()] for name, images in sets.items()})
