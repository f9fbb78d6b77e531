"""Tables and page while a study still runs, for whoever looks in on it."""

from collections.abc import Callable
from dataclasses import dataclass

from crossdistill.core.progress import Stopwatch

SHARE = 0.01  # of the study's time that may go into tables and pages which the next ones replace
FIRST_AFTER = 60.0  # seconds


@dataclass
class Interim:
    """Calls `write` so seldom that it takes about a hundredth of the time: after a minute, then after a hundred times what it last took."""

    write: Callable[[dict[str, str]], object]
    wait: float = FIRST_AFTER

    def __post_init__(self) -> None:
        self.since = Stopwatch()

    def __call__(self, failures: dict[str, str]) -> None:
        """Write, if it is time; `failures` are those of the study so far."""
        if self.since.seconds < self.wait:
            return
        watch = Stopwatch()
        self.write(failures)
        self.wait = max(FIRST_AFTER, watch.seconds / SHARE)
        self.since = Stopwatch()
