"""How long a study will still take, from how long its finished trainings took."""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, median

from crossdistill.core.errors import StudyError
from crossdistill.study.status import TaskStatus, study_status

AT_WORK = ("running", "observing")
LEFT = ("running", "observing", "started", "waiting")


def with_times(rows: Sequence[TaskStatus], folder: Path) -> list[TaskStatus]:
    """The rows, each with the seconds that it will still take, as far as anything like it is known.

    What is left of a training is told by the mean of its own epochs; where it has none, by the finished ones of the same network,
    method and teacher, else by those of its kind. Observing takes as long as the median of the networks observed so far.
    """
    done = [row for row in rows if row.state == "done" and row.seconds]
    observing = _observing_seconds([row for row in rows if row.state == "done"], folder)
    return [replace(row, seconds_left=_left(row, done, observing)) if row.state in LEFT else row for row in rows]


def _left(row: TaskStatus, done: Sequence[TaskStatus], observing: float) -> float | None:
    """Seconds; None where nothing is known. Ceilings that wait may never be needed, and count nothing."""
    if row.kind == "ceiling" and row.state == "waiting":
        return None
    after = 0.0 if row.kind == "warm_up" else observing
    if (row.of_epochs is not None and row.epochs >= row.of_epochs) or row.state == "observing" or row.reason:
        return after
    if row.epochs and row.of_epochs:
        return (row.of_epochs - row.epochs) * row.seconds / row.epochs + after
    alike = [other.seconds for other in done if other.subject == row.subject] or [other.seconds for other in done if other.kind == row.kind]
    return mean(alike) + after if alike else None


def _observing_seconds(done: Iterable[TaskStatus], folder: Path) -> float:
    """The median time from a network's record to its predictions, which are written once all is observed; 0 where none is known."""
    files = [(folder / "runs" / row.run / "record.json", folder / "predictions" / f"{row.run}.parquet") for row in done]
    spans = [after.stat().st_mtime - before.stat().st_mtime for before, after in files if before.exists() and after.exists()]
    return max(0.0, median(spans)) if spans else 0.0


def seconds_left(rows: Sequence[TaskStatus]) -> float | None:
    """Of the whole study, with as many tasks at once as are at work now; None where that is not known of every task."""
    left = [row.seconds_left for row in rows if row.state in LEFT and not (row.kind == "ceiling" and row.state == "waiting")]
    known = [seconds for seconds in left if seconds is not None]
    if len(known) < len(left):
        return None
    at_once = max(1, sum(row.state in AT_WORK for row in rows))
    return max([sum(known) / at_once, *known], default=0.0)


def duration(seconds: float) -> str:
    """Seconds for people.

    >>> [duration(seconds) for seconds in (8.2, 312, 5400)]
    ['8 s', '5 min', '1.5 h']
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def summary(rows: Sequence[TaskStatus]) -> str:
    """One line: how many are done, failed and at work, and how long the rest will take."""
    wanted = [row for row in rows if row.state != "not needed" and not (row.kind == "ceiling" and row.state == "waiting")]
    count = Counter(row.state for row in wanted)
    parts = [f"{count['done']} of {len(wanted)} done"]
    parts += [f"{count[state]} {state}" for state in ("failed", "running", "observing", "started", "waiting") if count[state]]
    left = seconds_left(wanted)
    if left:
        parts.append(f"about {duration(left)} left")
    elif left is None:
        parts.append("time left not known yet")
    return ", ".join(parts)


def about_left(folder: Path, store: Path, labels: Collection[str]) -> str:
    """`, about 12 min left` for these trainings; nothing where it is not known."""
    try:
        rows = [row for row in with_times(study_status(folder, store), folder) if row.label in labels]
    except StudyError:
        return ""
    left = seconds_left(rows)
    return f", about {duration(left)} left" if left else ""
