"""Requests to stop (Ctrl-C, or SIGTERM as a scheduler sends it), which let a step be finished and the state be saved."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any


class StopRequest(threading.Event):
    """Set by the first signal, so that a step is finished before the state is saved; `at_once()` marks work that need not be finished."""

    def __init__(self) -> None:
        super().__init__()
        self.breaks_off = False

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """In this block a signal raises KeyboardInterrupt where it comes; so does one that came before it."""
        self.breaks_off = True
        try:
            if self.is_set():
                raise KeyboardInterrupt
            yield
        finally:
            self.breaks_off = False

    def signalled(self, number: int, frame: FrameType | None) -> None:
        """The handler: remembers the first signal; a second one, and any in an `at_once` block, raises KeyboardInterrupt."""
        again = self.is_set()
        self.set()
        if again or self.breaks_off:
            raise KeyboardInterrupt


@contextlib.contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """An event that SIGINT and SIGTERM set, so that a step is finished before the state is saved. A second signal stops at once."""
    request = StopRequest()
    with _handled(request.signalled, signal.SIGINT, signal.SIGTERM):
        yield request


@contextlib.contextmanager
def ended_like_ctrl_c() -> Iterator[None]:
    """In this block SIGTERM raises KeyboardInterrupt, as Ctrl-C does, so that what is open is closed. A second one ends the process."""

    def end(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        raise KeyboardInterrupt

    with _handled(end, signal.SIGTERM):
        yield


@contextlib.contextmanager
def _handled(handler: Any, *numbers: signal.Signals) -> Iterator[None]:
    """Handle these signals in the block; only the main thread can, elsewhere nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
