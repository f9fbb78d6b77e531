"""What of a study's tasks is done: in its own folder, or in the store that studies share."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from crossdistill.core.errors import StudyError
from crossdistill.core.published import DECISIONS
from crossdistill.core.store import read_json
from crossdistill.ops.network import Network
from crossdistill.study.answers import are_stored
from crossdistill.study.folder import DRIVER_FILE, PLAN_FILE, read_failures
from crossdistill.study.foreseen import is_built
from crossdistill.study.graph import Node, State
from crossdistill.study.instruments import unmeasured
from crossdistill.study.plan import Plan, Training
from crossdistill.study.tables import predictions_file
from crossdistill.study.workshop import Workshop

TABLES = ("results.parquet", "inheritance.parquet", "transfer.parquet", "similarity.parquet")


def with_states(nodes: Iterable[Node], plan: Plan, shop: Workshop, built: Mapping[str, Network]) -> tuple[Node, ...]:
    """The nodes, each with its state. The shop's folder need not exist: then only the store tells.

    Tables and page are done where all that they are made of is, and they are younger than the plan of the call that wrote them.
    """
    trainings = {training.run: training for training in (*plan.trainings, *plan.ceilings)}
    nodes = list(nodes)
    stored = _stored(nodes, shop, plan, built)
    told = [replace(node, state=_of_run(node, shop, trainings[node.run]) if node.run else stored.get(node.key, "left")) for node in nodes]
    read = {key for node in told if node.kind == "student" and node.state == "left" for key in node.reads}
    told = [replace(node, state="not needed") if _is_unread(node, read) else node for node in told]
    if not _is_whole(shop, told):
        return tuple(told)
    failed = read_failures(shop.out)
    undecided = {run for run, training in trainings.items() if training.label in failed}
    return tuple(_of_whole(node, undecided) for node in told)


def _is_unread(node: Node, read: Collection[str]) -> bool:
    """Whether a node is made for students alone, and none of those that read it is left."""
    return node.kind in ("warm_up", "answers") and node.state == "left" and node.key not in read


def changed_labels(nodes: Iterable[Node], out: Path) -> set[str]:
    """The labels of trainings that stand in the folder's plan under another key, and were done: a setting of theirs was changed."""
    if not (out / PLAN_FILE).exists():
        return set()
    now = {node.label: node.key for node in nodes if node.kind in ("teacher", "student", "warm_up")}
    tasks: list[dict[str, Any]] = read_json(out / PLAN_FILE).get("tasks", [])
    return {
        task["label"]
        for task in tasks
        if now.get(task["label"], task["key"]) != task["key"] and (out / "runs" / task["run"] / "record.json").exists()
    }


def refuse_no_folder(out: Path) -> None:
    """Raise StudyError where `--out` names a file."""
    if out.exists() and not out.is_dir():
        raise StudyError(f"{out} is a file: give the folder that is, or will be, --out of `crossdistill study run`")


def _stored(nodes: Iterable[Node], shop: Workshop, plan: Plan, built: Mapping[str, Network]) -> dict[str, State]:
    """{key: "in store"} of what stands there and belongs to no study; the images were decoded in order to plan."""
    found = [node.key for node in nodes if node.kind == "images"]
    found += [probe_set.folder.name for probe_set in shop.probe_sets.values() if is_built(probe_set)]
    found += [n.key for n in nodes if n.kind == "encoder" and (shop.store / "encoders" / n.key / "network.safetensors").exists()]
    found += [task.key for task in plan.warm_ups if (shop.folder(task) / "module.safetensors").exists()]
    readers = {answers.group: t for t in plan.students if (answers := shop.answers.get(t.label)) and answers.cached}
    found += [group for group, t in readers.items() if t.teacher and are_stored(shop, t, built[t.teacher.network])]
    return dict.fromkeys(found, "in store")


def _of_run(node: Node, shop: Workshop, training: Training) -> State:
    """The state of a training, or of something that is observed of it: that is not done again where only the network is made again."""
    if node.kind in ("teacher", "student"):
        here = (shop.out / "runs" / training.run / "record.json").exists()
        return "left" if not shop.finished(training) else "done" if here else "in store"
    if _is_there(shop, training, node):
        return "done"
    return "left" if training.probe is None else "only if needed"


def _is_there(shop: Workshop, training: Training, node: Node) -> bool:
    """Whether the files of an observation are there, or a ceiling is trained."""
    if node.kind == "observation":
        test_set = node.label.partition(" by ")[0]
        file = shop.observation_files[test_set]
        return (shop.out / "observations" / training.run / file).exists() or file in shop.published(training.run)
    if node.kind == "instruments":
        return not unmeasured(shop, training, training.run)
    if node.kind == "ceiling":
        return shop.finished(training)
    return predictions_file(shop.out, training.run).exists() or bool(shop.published(training.run))


def _of_whole(node: Node, undecided: Collection[str]) -> Node:
    """A node of a study whose tables are made: what was not trained by then was not needed, unless it failed."""
    if node.kind in ("metric", "tables", "page"):
        return replace(node, state="done")
    return replace(node, state="not needed") if node.state == "only if needed" and node.run not in undecided else node


def _is_whole(shop: Workshop, nodes: Iterable[Node]) -> bool:
    """Whether tables and page stand, made by the metrics and contrasts of today, and nothing that they are made of is left."""
    files, plan, nodes = [shop.out / name for name in (*TABLES, "report.html")], shop.out / PLAN_FILE, list(nodes)
    as_published = (shop.out / DECISIONS).is_dir() and not (shop.out / DRIVER_FILE).exists()  # by git, which keeps no times
    written = plan.exists() and all(file.exists() and (as_published or file.stat().st_mtime >= plan.stat().st_mtime) for file in files)
    if not written or any(node.state == "left" for node in nodes if node.run):
        return False
    planned = {(task["kind"], task["key"]) for task in read_json(plan).get("graph", ())}
    return all((node.kind, node.key) in planned for node in nodes if node.kind == "tables")
