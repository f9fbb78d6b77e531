"""What a study will do and cost, before it does it: every task, what of it is done already, and how long the others will take."""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from crossdistill.core import registry
from crossdistill.core.config import StudyConfig
from crossdistill.core.progress import Progress
from crossdistill.core.types import Splits, Views
from crossdistill.ops.network import Network
from crossdistill.study.answer_plans import AnswerPlan, affordable, answer_plans, answers_json
from crossdistill.study.answers import are_stored
from crossdistill.study.encoders import encoder_visits
from crossdistill.study.estimates import BEFORE, Estimator
from crossdistill.study.execute import with_ceilings
from crossdistill.study.folder import declared_contrasts, refuse_another_study
from crossdistill.study.foreseen import foreseen_probe_sets
from crossdistill.study.graph import FOUND, STAGES, Node, study_graph
from crossdistill.study.grid_cost import cost_with_choosing
from crossdistill.study.keys import KeyMaker
from crossdistill.study.needed import want_weights
from crossdistill.study.networks import chosen_network, placed
from crossdistill.study.plan import Plan, Training, make_plan
from crossdistill.study.possible import what_can_work
from crossdistill.study.probes import probed_rows
from crossdistill.study.reuse import changed_labels, refuse_no_folder, with_states
from crossdistill.study.splits import fingerprint, study_splits, training_fingerprint
from crossdistill.study.workshop import Workshop
from crossdistill.train.objective import plugin_views

NO_FOLDER = ".no-study"  # of a plan without --out: a folder that nobody makes


@torch.random.fork_rng(devices=[])  # networks are built and steps are tried: no generator of the caller moves
def planned_cost(
    config: StudyConfig, *, store: Path, progress: Progress, device: torch.device, out: Path | None = None,
    made_before: Collection[str] = (),
) -> dict[str, Any]:  # fmt: skip
    """Every task of a study as plain JSON, with its state and its seconds on this machine, one task at a time.

    With `out`, what stands in that folder counts as done; without, only what studies share. Nothing is trained but trials, and nothing
    is downloaded. What has one of the keys `made_before` is in the store by the time that this study starts. Where a method's weight is
    a grid, the choosing comes first. Raises StudyError where `out` is no folder, holds no study, or another one.
    """
    if out is not None:
        refuse_no_folder(out)
        if out.exists():
            refuse_another_study(out, config)
    if config.has_grids:
        return cost_with_choosing(config, planned_cost, store=store, progress=progress, device=device, out=out)
    splits = study_splits(config, progress)
    trained_on = training_fingerprint(splits)
    plan = make_plan(config, trained_on, device)
    built = _built(plan, splits, device)
    plan = what_can_work(plan, splits, built, progress)
    shop = Workshop(config, splits, out or store / NO_FOLDER, store, device, progress, probed_rows(splits.test, config))
    shop.keeps_epochs = plan.keeps_epochs
    shop.probe_sets = foreseen_probe_sets(config, splits, store)
    shop.answers = _as_carried_out(shop, plan, built, answer_plans(plan, built, splits))
    plan = with_ceilings(plan, shop, KeyMaker(config, trained_on, device))
    want_weights(shop, plan)
    contrasts = declared_contrasts(out, config) if out else config.contrasts
    estimator = Estimator(shop, plan)
    nodes = with_states(study_graph(plan, shop, fingerprint(splits), contrasts), plan, shop, built)
    nodes = [replace(node, state="in store") if node.key in made_before and node.state == "left" else node for node in nodes]
    graph = [estimator.estimated(node) for node in nodes]
    if out:
        changed = changed_labels(graph, out)
        again = {node.key for node in graph if node.label in changed and node.state not in FOUND}
        graph = [replace(node, note="made again: a setting was changed") if node.key in again else node for node in graph]
    return {
        "name": config.name,
        "device": str(device),
        "trainings": _training_rows(graph, estimator),
        "answers": [_answer_seconds(row, graph, estimator) for row in answers_json(plan, shop.answers)],
        "ceilings": _ceiling_rows(graph, estimator),
        "observation": _observation(graph, shop, plan),
        "primary": [contrast.model_dump() for contrast in contrasts],
        "graph": [{**asdict(node), "reads": list(node.reads)} for node in graph],
        **totals(graph),
    }


def totals(graph: Iterable[Node]) -> dict[str, Any]:
    """Tasks and seconds of each stage and of all, done one after the other (`jobs`: 1); what is only perhaps needed is summed apart."""
    graph, stages = list(graph), []
    for kind in STAGES:
        if nodes := [node for node in graph if node.kind == kind]:
            counts = {state.replace(" ", "_"): sum(node.state == state for node in nodes) for state in ("done", "in store", "left")}
            stages.append({"stage": STAGES[kind], "tasks": len(nodes), **counts, **_sums(nodes)})
    return {"stages": stages, "total": {"jobs": 1, **_sums(graph)}}


def _sums(nodes: Iterable[Node]) -> dict[str, Any]:
    nodes = list(nodes)
    perhaps = [node for node in nodes if node.state == "only if needed"]
    left = [node for node in nodes if node.state == "left"]
    return {
        "only_if_needed": len(perhaps),
        "seconds": round(sum(node.seconds or 0.0 for node in left), 1),
        "seconds_if_needed": round(sum(node.seconds or 0.0 for node in perhaps), 1),
        "unknown": sum(node.seconds is None for node in (*left, *perhaps)),
        "measured": sorted({node.basis.partition(":")[0] for node in left if node.seconds and node.basis.startswith((BEFORE, "trial"))}),
    }


def _built(plan: Plan, splits: Splits, device: torch.device) -> dict[str, Network]:
    """Every network of the plan, without published weights: a plan downloads nothing."""
    names = dict.fromkeys(training.network for training in plan.trainings)
    return {name: placed(chosen_network(plan.config.networks[name], splits.train, pretrained=False), device) for name in names}


def _as_carried_out(
    shop: Workshop, plan: Plan, built: Mapping[str, Network], planned: Mapping[str, AnswerPlan]
) -> dict[str, AnswerPlan]:  # fmt: skip
    """The plans as they would be carried out now: what is in the store already is read, however full the disk is."""
    shop.answers = planned
    found = affordable(planned, shop.store)
    for training in plan.students:
        answers = planned.get(training.label)
        if answers and training.teacher and training.recipe.cache != "off" and are_stored(shop, training, built[training.teacher.network]):
            found[training.label] = replace(answers, cached=True, cached_forwards=0, why=f"they are in the store; {answers.why}")
    return found


def _training_rows(graph: Iterable[Node], estimator: Estimator) -> list[dict[str, Any]]:
    """A row for every encoder, warm-up, teacher and student."""
    plan, splits = estimator.plan, estimator.shop.splits
    trainings = {training.run: training for training in plan.trainings}
    rows = []
    for node in graph:
        if node.kind in ("teacher", "student"):
            training = trainings[node.run]
            visits = estimator.epochs(training) * len(splits.train) * _student_rows(training, splits)
        elif node.kind == "warm_up":
            task = estimator.warm_ups[node.key]
            views = registry.get("method", task.method).facts["warm_up"].views
            visits = task.recipe.epochs * len(splits.train) * _view_rows(views, splits)
        elif node.kind == "encoder":
            visits = encoder_visits(splits)
        else:
            continue
        done = node.state in FOUND
        about = {"seconds": node.seconds, "state": node.state, "basis": node.basis, "note": node.note}
        rows.append({"label": node.label, "run": node.run or node.key, "done": done, "image_visits": visits, **about})
    return rows


def _answer_seconds(row: dict[str, Any], graph: Iterable[Node], estimator: Estimator) -> dict[str, Any]:
    """What an arm's teacher takes to answer, with each batch answered afresh and as planned; nothing where no student of it is left."""
    readers = {training.run: training for training in estimator.plan.students if training.subject == row["arm"]}
    left = [readers[node.run] for node in graph if node.kind == "student" and node.run in readers and node.state not in FOUND]
    speed, basis = estimator.answering(left[0]) if left else (math.inf, "")
    live, planned = (round(row[name] / speed, 1) if speed else None for name in ("live_forwards", "cached_forwards"))
    saved = None if live is None or planned is None else round(live - planned, 1)
    return {**row, "left": len(left), "live_seconds": live, "seconds": planned, "seconds_saved": saved, "basis": basis}


def _ceiling_rows(graph: Iterable[Node], estimator: Estimator) -> list[dict[str, Any]]:
    """What the signal gate may cost: its trainings, all of them."""
    by_run = {node.run: node for node in graph if node.kind == "ceiling"}
    return [_ceiling_row(ceiling, by_run[ceiling.run], estimator) for ceiling in estimator.plan.ceilings]


def _ceiling_row(ceiling: Training, node: Node, estimator: Estimator) -> dict[str, Any]:
    where = {"label": ceiling.label, "probe": ceiling.probe, "student": ceiling.network, "level": ceiling.level}
    visits = ceiling.recipe.epochs * len(estimator.shop.splits.train)
    return {**where, "state": node.state, "image_visits": visits, "seconds": node.seconds, "basis": node.basis}


def _observation(graph: Iterable[Node], shop: Workshop, plan: Plan) -> dict[str, Any]:
    """Forward passes of all networks on all test sets, and the seconds of those that are left."""
    forwards = sum(shop.images_shown.values())
    left = [node for node in graph if node.kind == "observation" and node.state == "left"]
    seconds = round(sum(node.seconds or 0.0 for node in left), 1)
    return {"forwards_per_network": forwards, "forwards": forwards * len(plan.trainings), "seconds": seconds}


def _student_rows(training: Training, splits: Splits) -> int:
    """How many rows a student sees of each image."""
    if training.method is None:
        return 1
    plugin = registry.get("method", training.method.name)
    return _view_rows(plugin_views(plugin, plugin.parse(training.method.settings)), splits)


def _view_rows(expand: Views | None, splits: Splits) -> int:
    """How many rows a method's views make of each image."""
    if expand is None:
        return 1
    return len(expand(torch.from_numpy(splits.train.images[:1].copy()), torch.zeros(1, dtype=torch.int64))[0])
