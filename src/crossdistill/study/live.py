"""How a study goes, drawn on a terminal: `study status`, and what stands there while several trainings run at once."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from time import sleep
from typing import TYPE_CHECKING, Any

from crossdistill.core.errors import StudyError
from crossdistill.study.remaining import AT_WORK, duration, summary, with_times
from crossdistill.study.status import TaskStatus, study_status

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from crossdistill.core.progress import Progress

LOOK_S = 1.0  # between two looks at the folder
COLUMNS = ("stage", "training", "state", "epochs", "validation", "time", "left")
COLOURS = {"running": "cyan", "observing": "cyan", "failed": "red", "done": "green"}
FIRST = {"running": 0, "observing": 0, "failed": 1, "started": 2, "waiting": 3, "done": 4, "not needed": 5}
SHOWN_FAILURES = 5


def read_rows(folder: Path, store: Path | None) -> list[TaskStatus]:
    """The state of every task, with the time that it still needs."""
    return with_times(study_status(folder, store), folder)


def status_table(rows: Sequence[TaskStatus], *, most: int | None = None) -> "RenderableType":
    """The tasks as a table with a summary below it; where there are more than `most`, those at work and the failed come first."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    shown = rows if most is None or len(rows) <= most else sorted(rows, key=lambda row: FIRST[row.state])[: max(most, 1)]
    table = Table(*COLUMNS, box=None, pad_edge=False)
    for row in shown:
        table.add_row(*_cells(row))
    more = [Text(f"... and {len(rows) - len(shown)} more", style="dim")] if len(shown) < len(rows) else []
    return Group(table, *more, *_failures(shown), Text(summary(rows), style="bold"))


def watch_status(folder: Path, store: Path | None) -> list[TaskStatus]:
    """Draw the table on the terminal until nothing is left to do, or Ctrl-C; returns the last rows."""
    from rich.console import Console
    from rich.live import Live

    console = Console()
    rows = read_rows(folder, store)
    with contextlib.suppress(KeyboardInterrupt), Live(console=console, transient=True, auto_refresh=False) as live:
        while any(_is_left(row) for row in rows):
            live.update(status_table(rows, most=console.height - 4), refresh=True)
            sleep(LOOK_S)
            rows = read_rows(folder, store)
    return rows


@contextlib.contextmanager
def live_view(folder: Path, store: Path, progress: "Progress", *, several: bool) -> Iterator[None]:
    """While the body runs trainings, several at once: one view on the terminal, in place of their own bars and lines.

    It shows an overall bar, what is at work and what failed. Lines of this process appear above it. Nothing is drawn where
    `progress` writes plain lines.
    """
    if not (several and progress.interactive):
        yield
        return
    from rich.console import Console
    from rich.live import Live

    view = _View(folder, store)
    progress.interactive, progress.viewed = False, True
    try:
        with Live(view, console=Console(stderr=True), transient=True, refresh_per_second=1 / LOOK_S):
            yield
    finally:
        progress.interactive, progress.viewed = True, False


class _View:
    """What rich draws, again and again: the folder as it is at that moment."""

    def __init__(self, folder: Path, store: Path) -> None:
        self.folder, self.store = folder, store
        self.rows: list[TaskStatus] = []

    def __rich__(self) -> "RenderableType":
        with contextlib.suppress(StudyError, OSError):  # a view must not end what it shows: what was seen last stays
            self.rows = read_rows(self.folder, self.store)
        return run_view(self.rows)


def run_view(rows: Sequence[TaskStatus]) -> "RenderableType":
    """An overall bar, a row for each training at work, and the failures."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    at_work = Table.grid(padding=(0, 2))
    for row in rows:
        if row.state in AT_WORK:
            at_work.add_row(*_cells(row)[1:])
    head = Table.grid(padding=(0, 2))
    head.add_row(
        ProgressBar(total=max(1.0, *map(_size, rows), sum(map(_size, rows))), completed=sum(map(_done, rows)), width=40), summary(rows)
    )
    return Group(head, at_work, *_failures(rows)[-SHOWN_FAILURES:])


def _failures(rows: Sequence[TaskStatus]) -> list["Text"]:
    from rich.text import Text

    return [Text(f"failed: {row.label}: {row.reason}", style="red") for row in rows if row.state == "failed"]


def _is_left(row: TaskStatus) -> bool:
    return row.state in (*AT_WORK, "started") or (row.state == "waiting" and row.kind != "ceiling")


def _size(row: TaskStatus) -> float:
    """A task's part of the overall bar: its epochs, of which a finished network has one."""
    return 0.0 if row.state == "not needed" or (row.kind == "ceiling" and row.state == "waiting") else float(row.of_epochs or 1)


def _done(row: TaskStatus) -> float:
    return _size(row) if row.state in ("done", "failed") else min(float(row.epochs), _size(row))


def _cells(row: TaskStatus) -> list[Any]:
    """A row as rich draws it; text is never read as markup."""
    from rich.text import Text

    state = Text(row.state, style=COLOURS.get(row.state, ""))
    label = Text(row.label, overflow="fold")
    if row.reason and row.state != "failed":
        label.append(f"\n{row.reason}", style="dim")
    epochs = f"{row.epochs}" if row.of_epochs is None else f"{row.epochs}/{row.of_epochs}"
    accuracy = "" if row.validation_accuracy is None else f"{100 * row.validation_accuracy:.1f} %"
    left = "" if not row.seconds_left else duration(row.seconds_left)
    return [row.kind.replace("_", "-"), label, state, epochs, accuracy, duration(row.seconds) if row.seconds else "", left]


def as_json(rows: Sequence[TaskStatus]) -> list[dict[str, Any]]:
    """The rows for other programs."""
    return [asdict(row) for row in rows]
