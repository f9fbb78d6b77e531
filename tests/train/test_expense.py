"""What a training takes: the teacher's part of a step's time, and the most memory that was held."""

import subprocess
import sys
from typing import Any

import pytest
import torch

from crossdistill.train import expense
from crossdistill.train.expense import TIMED, WARM_UP, PeakMemory, TeacherShare

CPU = torch.device("cpu")


@pytest.fixture
def clock(clock: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(expense, "Stopwatch", clock.stopwatch)
    return clock


def step(share: TeacherShare, clock: Any, position: int, *, teacher: float, student: float) -> None:
    with share.step(position):
        with share.answering():
            clock.now += teacher
        clock.now += student


def test_the_share_is_the_teachers_part_of_the_timed_steps(clock: Any) -> None:
    share = TeacherShare(CPU)
    assert share.share is None
    for position in range(WARM_UP):  # the first steps of a process are slow, and say nothing
        step(share, clock, position, teacher=100.0, student=1.0)
    assert share.share is None
    for position in range(WARM_UP, WARM_UP + TIMED + 5):  # only the first of an epoch are timed
        step(share, clock, position, teacher=1.0 if position < WARM_UP + TIMED else 100.0, student=3.0)
    assert share.share == pytest.approx(0.25)
    step(share, clock, 0, teacher=3.0, student=1.0)  # the next epoch
    assert share.share == pytest.approx((TIMED + 3) / (4 * TIMED + 4))


def test_several_micro_batches_of_a_step_add_up(clock: Any) -> None:
    share = TeacherShare(CPU)
    share.steps = WARM_UP
    with share.step(0):
        for _ in range(2):
            with share.answering():
                clock.now += 1
            clock.now += 1
    assert share.share == pytest.approx(0.5)


def test_a_step_that_fails_is_not_counted(clock: Any) -> None:
    share = TeacherShare(CPU)
    share.steps = WARM_UP

    def fails() -> None:
        with share.step(0):
            clock.now += 1
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        fails()
    assert share.share is None


PEAKS = """
import time

import numpy as np
import torch

from crossdistill.train.expense import PeakMemory

np.ones(300 * 2**20, np.uint8)  # long gone, and forgotten
before = PeakMemory(torch.device("cpu"))
print(before.mb)
larger = np.ones(100 * 2**20, np.uint8)
print(before.mb)
del larger
time.sleep(0.05)
print(PeakMemory(torch.device("cpu")).mb)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not forget what a process once held")
def test_peak_memory_is_of_the_time_since_it_was_asked_for() -> None:
    """In a process of its own: one that runs many tests frees memory of theirs at any time."""
    said = subprocess.run([sys.executable, "-c", PEAKS], capture_output=True, text=True, check=True).stdout.split()
    if said[0] == "None":
        pytest.skip("/proc/self/clear_refs cannot be written here")
    first, grown, again = map(float, said)
    assert 85 < grown - first < 150
    assert again < grown - 70


def test_memory_that_no_one_can_tell_is_not_recorded(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr(expense, "CLEAR", tmp_path / "nowhere" / "clear_refs")
    assert PeakMemory(CPU).mb is None
    assert PeakMemory(torch.device("meta")).mb is None
