"""Progress in a notebook's cell: lines as elsewhere, and below them one bar that is drawn over again."""

import contextlib
import html
import sys
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from crossdistill.core.progress import Advance, Progress, Stopwatch

SECONDS_BETWEEN = 0.25  # two drawings: each is a message to the browser


def session_progress(*, quiet: bool) -> Progress:
    """Bars in a notebook, else what the command line shows."""
    ipython = sys.modules.get("IPython")
    in_kernel = ipython is not None and hasattr(ipython.get_ipython(), "kernel")
    return CellProgress() if in_kernel and not quiet else Progress(quiet=quiet)


class CellProgress(Progress):
    """Draws the bar as HTML in the output of the cell that runs; needs no widgets."""

    def __init__(self) -> None:
        super().__init__()
        self.interactive = False  # what knows of terminals only is told in lines
        self.handle: Any = None

    @contextlib.contextmanager
    def bar(self, description: str, total: int) -> Iterator[Advance]:
        watch, done, drawn_at = Stopwatch(), 0, -SECONDS_BETWEEN

        def advance(units: int, note: str = "") -> None:
            nonlocal done, drawn_at
            done += units
            if watch.seconds - drawn_at >= SECONDS_BETWEEN:
                drawn_at = watch.seconds
                self._draw(f'<progress value="{done}" max="{total}"></progress> {html.escape(f"{description} {note}".strip())}')

        try:
            yield advance
        finally:
            self._draw("")

    def _draw(self, text: str) -> None:
        display = import_module("IPython.display")
        if self.handle is not None:
            self.handle.update(display.HTML(text))
        elif text:
            self.handle = display.display(display.HTML(text), display_id=True)
