"""The page's section "Cost": what each arm cost, and where the time of the whole run went."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from crossdistill.core.errors import StudyError
from crossdistill.core.records import EARLIER_TEACHER, RunRecord
from crossdistill.core.store import read_json
from crossdistill.report.epoch_cost import beside_independents
from crossdistill.report.study_files import StudyFiles
from crossdistill.report.tables import Cell, Column, Table
from crossdistill.report.words import count, duration, known, percent

TITLE, PLACE = "Cost", 90

NOT_RECORDED = Cell("not recorded", None, mark="muted")


def contents(study: StudyFiles) -> dict[str, Any]:
    """What the template prints."""
    phases, damage = read_phases(study)
    return dict(cost=cost_table(study.records) if study.records else None, phases=phases, damage=damage)


def cost_table(records: Sequence[RunRecord]) -> Table:
    """What each arm cost: mean over its runs. The weights of a teacher after an epoch cost nothing of their own."""
    small = {"FLOPs": "one image, forward", "Teacher's share": "of a step's time", "Peak memory": "while training"}
    columns = ["Network", "Arm", "Runs", "Parameters", "FLOPs", "Seconds an epoch", "Images a second", *list(small)[1:], "Training"]
    table = Table("Cost of each arm, mean over its runs", [Column(name, small.get(name, "")) for name in columns])
    arms: dict[tuple[str, str, str | None, str], list[RunRecord]] = {}
    own = [record for record in records if record.arm != EARLIER_TEACHER]
    for record in sorted(own, key=lambda record: (record.arm != "teacher", record.arm != "independent")):
        arms.setdefault((record.student, record.arm, record.teacher, record.model), []).append(record)
    alone = {student: runs for (student, arm, *_), runs in arms.items() if arm == "independent"}
    for (student, arm, teacher, model), runs in arms.items():
        cells = [
            Cell(student, student, model),
            Cell(arm, arm, f"from {teacher}" if teacher else ""),
            Cell(str(len(runs)), len(runs)),
            Cell(f"{runs[0].parameters:,}", runs[0].parameters),
            _flops(runs[0].flops),
            _per_epoch(_mean(runs, "seconds_per_epoch"), [] if arm == "independent" else beside_independents(runs, alone.get(student, []))),
            _number(_mean(runs, "images_per_second") or None, "{:,.0f}"),
            _teacher_share(runs),
            _number(_mean(runs, "peak_memory_mb"), "{:,.0f} MB"),
            Cell(duration(_mean(runs, "seconds")), _mean(runs, "seconds")),
        ]
        table.add(cells, **({"method": runs[0].arm.split("+")[0]} if runs[0].method else {}))
    return table


def _mean(runs: Sequence[RunRecord], name: str) -> float | None:
    values = [run.timing[name] for run in runs if known(run.timing.get(name))]
    return fmean(values) if values else None


def _number(value: float | None, shape: str) -> Cell:
    return NOT_RECORDED if value is None else Cell(shape.format(value), value)


def _flops(flops: int | None) -> Cell:
    return NOT_RECORDED if flops is None else Cell(in_thousands(flops), flops)


def in_thousands(number: float) -> str:
    """A large count in three digits.

    >>> in_thousands(25129984), in_thousands(35127656448), in_thousands(640)
    ('25.1 million', '35.1 billion', '640')
    """
    for size, name in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million")):
        if number >= size:
            digits = 2 if number < 10 * size else 1 if number < 100 * size else 0
            return f"{number / size:,.{digits}f} {name}"
    return f"{number:,.0f}"


def _per_epoch(seconds: float | None, ratios: Sequence[float]) -> Cell:
    """With the mean over the seeds of what it is beside the independent of the seed."""
    if not seconds:
        return NOT_RECORDED if seconds is None else Cell("not trained here", None, mark="muted")
    return Cell(f"{seconds:.2f}", seconds, f"{fmean(ratios):.2f} times the independent" if ratios else "")


def _teacher_share(runs: Sequence[RunRecord]) -> Cell:
    if runs[0].teacher is None:
        return Cell("no teacher", 0.0, mark="muted")
    share, stored = _mean(runs, "teacher_share"), _mean(runs, "teacher_cached")
    if share is None:
        return NOT_RECORDED
    return Cell(percent(share), share, f"{percent(stored)} of the answers stored" if stored else "asked at every step")


PHASES = {
    "images": "decoding the images",
    "probes": "building the probes",
    "trainings": "training and observing the networks",
    "tables": "writing the tables and pictures",
    "page": "drawing the page",
}


def read_phases(study: StudyFiles) -> tuple[Table | None, str | None]:
    """Where the time of the last run went, and what is wrong with its file, if anything."""
    path = study.folder / "phases.json"
    if not path.exists():
        return None, None
    try:
        found = read_json(path)
        return phases_table(found["timing"], f"{found['executor']} executor, {count(int(found['jobs']), 'job')} at once"), None
    except (StudyError, KeyError, TypeError, ValueError):
        return None, f"{path.name} is damaged: the phases of the run are not shown. `crossdistill study run` writes it again."


def phases_table(timing: Mapping[str, float], how: str) -> Table:
    """Seconds and shares of the phases of a run; what is in none of them stands last. The page that is being drawn has no time yet."""
    total = float(timing["total"])
    rest = total - sum(float(timing.get(name, 0.0)) for name in PHASES)
    table = Table(f"Phases of the last run ({how})", [Column("Phase"), Column("Time"), Column("Share")])
    for place, (name, words) in enumerate([*PHASES.items(), ("", "everything else: checks, locks, starting workers")]):
        seconds = float(timing.get(name, 0.0)) if name else max(rest, 0.0)
        if name == "page" and not seconds:
            continue
        share = Cell(percent(seconds / total) if total else "", seconds)
        table.rows.append([Cell(words, place), Cell(duration(seconds), seconds), share])
    table.rows.append([Cell("all", len(PHASES) + 1), Cell(duration(total), total), Cell("")])
    return table
