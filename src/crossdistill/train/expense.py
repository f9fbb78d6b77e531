"""What a training takes of its machine, measured in passing: the teacher's part of the time, and the most memory held."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from crossdistill.core.progress import Stopwatch

WARM_UP = 2  # steps of a process that are not timed: kernels are chosen in them and memory is asked for
TIMED = 8  # steps of each epoch that are timed, so that waiting for a GPU costs next to nothing


class TeacherShare:
    """The share of the steps' seconds in which the teacher answers, or its stored answers are read; from a few steps of each epoch."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.steps, self.timing = 0, False
        self.seconds, self.of_teacher = 0.0, 0.0

    @contextmanager
    def step(self, position: int) -> Iterator[None]:
        """Around the step at that place of its epoch."""
        self.timing = self.steps >= WARM_UP and position < WARM_UP + TIMED
        self.steps += 1
        with self._timed() as watch:
            yield
        self.seconds += watch()
        self.timing = False

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Around the teacher's answer, inside a step."""
        with self._timed() as watch:
            yield
        self.of_teacher += watch()

    @property
    def share(self) -> float | None:
        """0 to 1; None where no step was timed."""
        return min(1.0, self.of_teacher / self.seconds) if self.seconds > 0 else None

    @contextmanager
    def _timed(self) -> Iterator[Callable[[], float]]:
        """Gives what says, after the block, the seconds that it took; 0 where this step is not timed."""
        found = 0.0
        if not self.timing:
            yield lambda: 0.0
            return
        self._wait()
        watch = Stopwatch()
        yield lambda: found
        self._wait()
        found = watch.seconds

    def _wait(self) -> None:
        """A GPU works behind the program's back: only when it is done, the clock says how long it took."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


class PeakMemory:
    """The most memory held since this was made, in MB (2^20 bytes): on a GPU by torch's tensors, else by the whole process (Linux)."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        self.counts = device.type == "cuda" or _forgotten()

    @property
    def mb(self) -> float | None:
        """None where the system cannot say it."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 2**20
        return _most_resident() if self.counts and self.device.type == "cpu" else None


STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def _forgotten() -> bool:
    """Whether the kernel forgot how much memory this process once held (proc(5): 5 resets it): it may have trained larger networks."""
    with suppress(OSError):
        CLEAR.write_text("5")
        return True
    return False


def _most_resident() -> float | None:
    """The largest resident set of this process since then, in MB."""
    with suppress(OSError):
        if found := re.search(r"^VmHWM:\s+(\d+) kB", STATUS.read_text(), re.MULTILINE):
            return int(found[1]) / 2**10
    return None
