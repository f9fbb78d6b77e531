"""What of a plan can be carried out: networks, methods and controls are asked, so that nothing is refused after hours of training."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from crossdistill.core import registry
from crossdistill.core.config import StudyConfig
from crossdistill.core.errors import SettingError
from crossdistill.core.progress import Progress
from crossdistill.core.records import subject
from crossdistill.core.types import Splits
from crossdistill.ops.network import Network
from crossdistill.ops.parallel import refuse_uneven
from crossdistill.study.networks import build, refuse_wrong_checkpoint
from crossdistill.study.plan import Plan, Training
from crossdistill.study.workshop import Workshop
from crossdistill.train.freezing import frozen_names, frozen_refusal
from crossdistill.train.objective import method_weights, plugin_needs, published_weights, refuse_class_mismatch
from crossdistill.train.partners import same_class_partners


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
        method_weights(published_weights(plugin, settings), weight=method.one_weight, weights=method.weights)
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
