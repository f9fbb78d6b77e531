"""`plan.json`: what a study will do, as it is stamped into its folder before the first student starts."""

from collections.abc import Iterable, Mapping
from typing import Any

from crossdistill.core import registry
from crossdistill.core.config import ContrastConfig, PairConfig
from crossdistill.core.recipe import SHORTER
from crossdistill.core.types import UNLABELLED, Splits
from crossdistill.probes._build import ProbeSet
from crossdistill.study.graph import Node
from crossdistill.study.plan import Plan, Training, WarmUpTask

MATCHING = (
    "Run by run, teacher and control teacher are compared in validation accuracy. Within 3 points both teach with what they ended with; "
    "farther apart, the better one teaches with the epoch whose validation accuracy is nearest to the other's. The students of the arm "
    "matched_teacher, taught by the teacher, are to be compared with those of control_teacher; the method's own students always learn "
    "from the weights that the teacher ended with. What a student is taught thus depends on the two teachers of its run alone, and a "
    "further run changes no earlier one. Where each run is matched to 3 points so are the means over runs; the comparison is made only "
    "where these means are within 3 points, whatever single runs are."
)


def plan_json(
    plan: Plan, splits: Splits, contrasts: Iterable[ContrastConfig], observations: Mapping[str, str],
    probe_sets: Mapping[str, ProbeSet] = {}, answers: Iterable[Mapping[str, Any]] = (), graph: Iterable[Node] = (),
) -> dict[str, Any]:  # fmt: skip
    """`plan.json`: what is stamped into the study folder before the first student starts.

    `observations` are the names of the files that hold a network's answers, one for each test set. `ceilings` are trained only
    where no network of the study passes the signal gate of their probe. `answers` says of each arm whether its teacher's answers
    are stored. `graph` are all tasks of the study with their keys and what they read.
    """
    config = plan.config
    return {
        "format": 1,
        "name": config.name,
        "pairs": [_pair(plan, index, pair) for index, pair in enumerate(config.pairs)],
        "left_out": dict(plan.left_out),
        "no_control": dict(plan.no_control),
        "matching": MATCHING if any(training.rival for training in plan.trainings) else None,
        "primary": [contrast.model_dump() for contrast in contrasts],
        "wanted": dict(config.wanted),
        "tasks": [_task(t, "teacher" if t.arm == "teacher" else "student", plan.epochs(t)) for t in plan.trainings]
        + [_task(warm_up, "warm_up", warm_up.recipe.epochs) for warm_up in plan.warm_ups],
        "signal_gate": config.signal_gate,
        "ceilings": [{**_task(t, t.arm, plan.epochs(t)), "probe": t.probe, "level": t.level} for t in plan.ceilings],
        "no_ceilings": dict(plan.no_ceilings),
        "probes": {name: _probe_facts(probe_set, splits.test.size) for name, probe_set in probe_sets.items()},
        "observations": dict(observations),
        "answers": list(answers),
        "graph": [node.plain() for node in graph],
        "one_teacher_checkpoint": plan.one_teacher_checkpoint,
        "images": _images(plan, splits),
        "factors": _factors(plan, splits),
    }


def _pair(plan: Plan, index: int, pair: PairConfig) -> dict[str, Any]:
    return {
        "index": index,
        "teacher": pair.teacher,
        "student": pair.student,
        "control_teacher": pair.control_teacher,
        "methods": [method.arm for method in pair.methods],
        "controls": _controls(plan, pair),
    }


def _task(task: Training | WarmUpTask, kind: str, epochs: int) -> dict[str, Any]:
    return {"key": task.key, "kind": kind, "label": task.label, "run": task.run, "epochs": epochs}


def _images(plan: Plan, splits: Splits) -> dict[str, Any]:
    return {
        "source": plan.config.images.source,
        "train": len(splits.train),
        "unlabelled": int((splits.train.labels == UNLABELLED).sum()),
        "validation": len(splits.validation),
        "test": len(splits.test),
        "class_names": list(splits.test.class_names),
        "size": list(splits.test.size),
    }


def _factors(plan: Plan, splits: Splits) -> dict[str, Any]:
    """Which factor of drawn images is the label, and which went with it in training."""
    source = plan.config.images
    settings = registry.get("images", source.source).settings(**source.settings).model_dump(mode="json")
    return {name: settings[name] for name in ("label", "correlated") if splits.test.factors and name in settings}


def _probe_facts(probe_set: ProbeSet, size: tuple[int, int]) -> dict[str, Any]:
    """What the page says of a probe beside its manifest: whose control it is, of what its figures tell, and (height, width) of each
    level's tiles and images."""
    facts = registry.get("probe", probe_set.name).facts
    sizes = [level["size"] for level in probe_set.manifest["levels"]]
    levels = zip(probe_set.level_names, probe_set.levels, sizes, strict=True) if facts["tile"] else ()
    tiles = {name: {"tile": list(facts["tile"](size, level)), "size": shown} for name, level, shown in levels}
    return {"control_of": facts["control_of"], "about": list(facts["about"]), "tiles": tiles}


def _controls(plan: Plan, pair: PairConfig) -> dict[str, str | None]:
    """The control arms of a pair, each with the network that teaches it."""
    labels, teachers = {method.arm for method in pair.methods}, {pair.teacher, pair.control_teacher, None}
    of_student = [t for t in plan.students if t.network == pair.student and t.taught_by in teachers]
    return {t.arm: t.taught_by for t in of_student if t.arm in ("second_independent", *SHORTER) or (t.own and t.own.arm in labels)}
