"""How long the phases of a study's run took: `phases.json`, for its page and for whoever asks what the run cost beside its trainings."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from crossdistill.core.errors import RunError
from crossdistill.core.store import read_json, write_json

FORMAT = 1
PHASES_FILE, TIMINGS = "phases.json", "timings"
PHASES = ("images", "probes", "trainings", "tables", "page")


@contextlib.contextmanager
def timed(out: Path, run: str) -> Iterator[dict[str, float]]:
    """Keep the seconds of a run's tasks that the block notes, in `timings/RUN.json`: of the first call that came to its end."""
    seconds: dict[str, float] = {}
    yield seconds
    path = out / TIMINGS / f"{run}.json"
    if not path.exists():
        write_json(path, {"format": FORMAT, "timing": {name: round(value, 3) for name, value in seconds.items()}})


def seconds_of_writing(out: Path) -> float:
    """What tables and page took in the last run of the study in `out`, all that it wrote; 0 where that is not known."""
    try:
        timing = read_json(out / PHASES_FILE)["timing"]
        return timing["tables"] + timing["page"]
    except (FileNotFoundError, RunError, LookupError, TypeError):  # damaged: written anew with the next tables
        return 0.0


class Phases:
    """Seconds of each phase of a run. A phase within another interrupts it: no second counts twice.

    `total` counts from the start, and holds what is in no phase as well: networks that are tried, locks, workers that start.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = dict.fromkeys(PHASES, 0.0)
        self._started = self._since = time.monotonic()
        self._at: list[str] = []

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the block's time as this phase's."""
        self._note()
        self._at.append(name)
        try:
            yield
        finally:
            self._note()
            self._at.pop()

    def _note(self) -> None:
        now = time.monotonic()
        if self._at:
            self.seconds[self._at[-1]] += max(0.0, now - self._since)  # clocks have been seen to run backwards
        self._since = now

    def write(self, out: Path, *, executor: str, jobs: int) -> None:
        """Write `phases.json`: of the run so far, with who carried the trainings out and how many at once."""
        self._note()
        timing = {**self.seconds, "total": time.monotonic() - self._started}
        timing = {name: round(seconds, 3) for name, seconds in timing.items()}
        write_json(out / PHASES_FILE, {"format": FORMAT, "timing": timing, "executor": executor, "jobs": jobs})
