"""Tables and page while a study still runs, for whoever looks in on it."""

from collections.abc import Callable
from dataclasses import dataclass

from crossdistill.core.progress import Stopwatch

SHARE = 0.01  # of the study's time that may go into tables and pages which the next ones replace
FIRST_AFTER = 60.0  # seconds


@dataclass
class Interim:
    """Calls `write` so seldom that it takes about a hundredth of the time: after a hundred times what it last took, and at least a minute.

    `last_took`: seconds that an earlier run of the same study needed, whose tables and page are there to be looked at.
    """

    write: Callable[[dict[str, str]], object]
    last_took: float = 0.0

    def __post_init__(self) -> None:
        self._start_waiting(self.last_took)

    def __call__(self, failures: dict[str, str]) -> None:
        """Write, if it is time; `failures` are those of the study so far."""
        if self.since.seconds < self.wait:
            return
        watch = Stopwatch()
        self.write(failures)
        self._start_waiting(watch.seconds)

    def _start_waiting(self, seconds: float) -> None:
        self.wait, self.since = max(FIRST_AFTER, seconds / SHARE), Stopwatch()
