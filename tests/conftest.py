import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crossdistill.cli import main
from crossdistill.core.records import TIMING

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in what a shell's script starts by `&`: the programs that tests stop inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _equal_part(value: Any) -> Any:
    if isinstance(value, dict):
        return [(name, _equal_part(item)) for name, item in value.items() if name not in TIMING]  # in their order
    return [_equal_part(item) for item in value] if isinstance(value, list) else value


UNEQUAL = ("report.html", "phases.json")


@pytest.fixture
def without_timing() -> Callable[[Path], dict[str, Any]]:
    """What must be equal of a study's folder or a store: each file's bytes, of records and logs all but the timing.

    Left out are the page, which shows times, the phases of the run, the measured speeds, and what a kill may leave: locks, halves of
    files, the checkpoint of a finished run.
    """

    def read(folder: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            inside = path.relative_to(folder)
            if any(part.startswith(".") or part in ("checkpoint", "timings") for part in inside.parts) or path.name in UNEQUAL:
                continue
            if path.name in ("record.json", "log.jsonl"):
                text = path.read_text()
                found[str(inside)] = [_equal_part(json.loads(part)) for part in (text.splitlines() if path.suffix == ".jsonl" else [text])]
            else:
                found[str(inside)] = path.read_bytes()
        return found

    return read


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., int]:
    """Run `crossdistill ARGUMENTS` in this process, with one cache for all tests of a worker; returns its exit code."""
    monkeypatch.setenv("CROSSDISTILL_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))

    def run(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["crossdistill", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0)

    return run


class Clock:
    """A clock that goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def stopwatch(self) -> "Watch":
        return Watch(self)


class Watch:
    def __init__(self, clock: Clock) -> None:
        self.clock, self.start = clock, clock.now

    @property
    def seconds(self) -> float:
        return self.clock.now - self.start


@pytest.fixture
def clock() -> Clock:
    """For what is timed by a Stopwatch: the test says when time goes on."""
    return Clock()
