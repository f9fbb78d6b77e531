"""The page's section "Provenance": how to run the study again, and what made it."""

from collections.abc import Sequence
from typing import Any

from crossdistill.core.records import RunRecord
from crossdistill.report.study_files import StudyFiles
from crossdistill.report.tables import Cell, Column, Table
from crossdistill.report.words import count, listed

TITLE, PLACE = "Provenance", 110


def contents(study: StudyFiles) -> dict[str, Any]:
    """What the template prints."""
    sources = _sources(study.records)
    return dict(
        versions=_distinct(study.records, "software"),
        machines=_distinct(study.records, "hardware"),
        plugins=[(name, source) for name, found in sources.items() for source in found],
        mixed=_mixed(sources),
        keys=_keys(study),
    )


def _distinct(records: Sequence[RunRecord], name: str) -> list[dict[str, str]]:
    """The different values of a mapping that every record carries; one where all runs were made alike."""
    found: list[dict[str, str]] = []
    for record in records:
        if (value := getattr(record, name)) not in found:
            found.append(value)
    return found


def _sources(records: Sequence[RunRecord]) -> dict[str, list[str]]:
    """{plug-in: the hashes of its source with which runs were made}, in the order of their names."""
    found = sorted({(name, source) for record in records for name, source in record.plugins.items()})
    return {name: [source for other, source in found if other == name] for name, _ in found}


def _mixed(sources: dict[str, list[str]]) -> str:
    """A warning where runs of one study were made by different code; empty where they were not."""
    mixed = [name for name, found in sources.items() if len(found) > 1]
    return f"Not all runs were made by the same source: {listed(mixed)} changed between them." if mixed else ""


def _keys(study: StudyFiles) -> Table | None:
    """Each planned training with its content-addressed key, whether it is there, and its weights; None without a plan."""
    tasks = [task for task in study.plan.get("tasks", ()) if task.get("run")]
    if not tasks:
        return None
    done = {record.run: record for record in study.records}
    table = Table(
        "Trainings with their keys", [Column(name) for name in ("Training", "Folder under runs/", "State", "SHA-256 of the weights")]
    )
    for place, task in enumerate(tasks):
        record = done.get(task["run"])
        state = "finished" if record else "warm-up, in the store" if task.get("kind") == "warm_up" else "not there"
        weights = (record.weights or "not recorded")[:16] if record else "not there"
        cells = [
            Cell(str(task.get("label") or task["run"]), place),
            Cell(task["run"], task["run"]),
            Cell(state, state),
            Cell(weights, weights),
        ]
        facts = dict(seed=record.seed, **({"method": record.arm} if record.method else {})) if record else {}
        table.add(cells, **facts)
    table.caption += f", {count(len(tasks), 'task')}"
    return table
