"""Progress for people: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

Advance = Callable[[int, str], None]

WIDTH = 160  # of a table that goes to a file or through a pipe, where no terminal says how wide it is


def tables() -> Console:
    """Where tables are printed: standard output, as wide as the terminal, or as COLUMNS says."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else WIDTH)


class Progress:
    """Prints lines and draws bars on standard error; silent when `quiet`."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self.interactive = not quiet and sys.stderr.isatty()
        self.viewed = False  # whether a view of the whole study is drawn, in place of each training's own bars and lines

    def line(self, text: str) -> None:
        """Print one line."""
        if not self.quiet:
            print(f"{text}\n", end="", file=sys.stderr, flush=True)  # in one piece: other processes may write to the same terminal

    @contextlib.contextmanager
    def bar(self, description: str, total: int) -> Iterator[Advance]:
        """A bar of `total` units; the body calls `advance(units, note)`. Shows units a second and time left."""
        if not self.interactive:
            yield lambda units, note="": None
            return
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        columns = [TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[note]}"), TimeRemainingColumn()]
        with RichProgress(*columns, console=Console(stderr=True), transient=True) as bars:
            task = bars.add_task(description, total=total, note="")
            yield lambda units, note="": bars.update(task, advance=units, note=note)


class Stopwatch:
    """Seconds since it was made, never negative: the clock should not run backwards, and it has been seen to."""

    def __init__(self) -> None:
        self.start = time.perf_counter()

    @property
    def seconds(self) -> float:
        return max(0.0, time.perf_counter() - self.start)
