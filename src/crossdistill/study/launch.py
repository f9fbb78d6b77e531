"""The processes of a study that trains on several devices: how many there are to be, how they are started here, and how they end."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from crossdistill.core.config import StudyConfig
from crossdistill.core.errors import SettingError

RENDEZVOUS = "CROSSDISTILL_RENDEZVOUS"  # where the processes that `launch` starts meet: a file, so that no port can be taken; not quoted
LIFELINE = "CROSSDISTILL_LIFELINE"  # a pipe that breaks when the process that started them ends, however it ends
LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"
LAST_WORDS = 15.0  # seconds that a process has to end by itself once another has, or once it was told to


def with_devices(config: StudyConfig, devices: int) -> StudyConfig:
    """The study with all its trainings on that many devices, whatever its file says."""

    def without(settings: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in settings.items() if name != "devices"}

    networks = {name: chosen.model_copy(update={"training": without(chosen.training)}) for name, chosen in config.networks.items()}
    return config.model_copy(update={
        "training": config.training.model_copy(update={"devices": devices}),
        "teachers": config.teachers.model_copy(update={"settings": without(config.teachers.settings)}),
        "networks": networks,
    })  # fmt: skip


def device_count(config: StudyConfig) -> int:
    """How many processes the trainings of a study share; some of them may use one alone. Raises SettingError for two other numbers.

    So it does for another number where a weight is still to be chosen: that is done before these processes start.
    """
    teachers = {name for pair in config.pairs for name in (pair.teacher, pair.control_teacher) if name}
    recipes = [config.recipe(name, teacher=True) for name in teachers if config.networks[name].checkpoint is None]
    recipes += [config.recipe(pair.student) for pair in config.pairs]
    counts = sorted({recipe.devices for recipe in recipes} - {1})
    if len(counts) > 1:
        raise SettingError(f"the trainings of a study use 1 device or one other number, got `devices` {' and '.join(map(str, counts))}")
    if counts and config.has_grids:
        raise SettingError(
            f"a weight is chosen from a list by trainings on one device each, and this study has `devices: {counts[0]}`: give each method "
            "one `weight`, or choose it first in a study on one device"
        )
    return counts[0] if counts else 1


def is_launched() -> bool:
    """Whether this process is one of several that were started together, by `launch` or by torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ


def refuse_other_count(devices: int) -> None:
    """Raise SettingError where another number of processes was started together than the study's trainings use; in rank 0 alone."""
    size = int(os.environ["WORLD_SIZE"]) if is_launched() else 1
    if size == devices:
        return
    if int(os.environ["RANK"]):
        sys.exit(2)  # rank 0 says it
    raise SettingError(
        f"{size} processes were started together and the trainings of this study use {devices}: start {devices} "
        f"(torchrun --nproc-per-node {devices}), or say `--devices {size}`"
    )


def launch(arguments: Sequence[str], n_processes: int) -> int:
    """Run `crossdistill ARGUMENTS` in that many processes of this machine, which find one another; returns the exit code of the first.

    SIGINT and SIGTERM reach all of them, once each. Where one ends with an error, or the first has ended, the others are ended.
    """
    with tempfile.TemporaryDirectory(prefix="crossdistill-") as folder, _lifeline() as line:
        common = {
            **os.environ, "WORLD_SIZE": str(n_processes), "LOCAL_WORLD_SIZE": str(n_processes), LIFELINE: str(line),
            RENDEZVOUS: f"file://{Path(folder, 'rendezvous')}", "GLOO_SOCKET_IFNAME": os.environ.get("GLOO_SOCKET_IFNAME", LOOPBACK),
        }  # fmt: skip
        processes = [
            # In a session of its own: Ctrl-C on a terminal would reach it twice, and the second request stops without saving.
            subprocess.Popen(
                [sys.executable, "-m", "crossdistill", *arguments], env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                pass_fds=[line], start_new_session=True, stdout=None if rank == 0 else subprocess.DEVNULL,
            )
            for rank in range(n_processes)
        ]  # fmt: skip
        with _forwarded(processes):
            _wait_for_an_end(processes)
            _name_the_killed(processes)
            for last in (signal.SIGTERM, signal.SIGKILL):
                if _all_ended(processes, within=LAST_WORDS):
                    break
                _send(processes, last)
        code = processes[0].wait()
    return code if code >= 0 else 128 - code


def _wait_for_an_end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Until the first process has ended, or another with an error."""
    while processes[0].poll() is None and not any(process.poll() for process in processes):
        time.sleep(0.05)


def _name_the_killed(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """A line on standard error for each process that a signal ended: it could not say so itself."""
    for number, process in enumerate(processes, start=1):
        if (code := process.poll() or 0) < 0:
            why = f"process {number} of {len(processes)} was ended by {signal.Signals(-code).name}, perhaps because the memory was full"
            print(f"crossdistill: {why}; the others stop, and what was saved is kept", file=sys.stderr)


def _all_ended(processes: Sequence[subprocess.Popen[bytes]], *, within: float) -> bool:
    deadline = time.monotonic() + within
    while any(process.poll() is None for process in processes) and time.monotonic() < deadline:
        time.sleep(0.05)
    return all(process.poll() is not None for process in processes)


def _send(processes: Sequence[subprocess.Popen[bytes]], number: int) -> None:
    for process in processes:
        if process.poll() is None:
            process.send_signal(number)


@contextmanager
def _forwarded(processes: Sequence[subprocess.Popen[bytes]]) -> Iterator[None]:
    """Within the block SIGINT and SIGTERM are passed on, and do nothing else here."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda number, frame: _send(processes, number)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _lifeline() -> Iterator[int]:
    """The reading end of a pipe whose writing end only this process holds."""
    read, write = os.pipe()
    try:
        yield read
    finally:
        os.close(read)
        os.close(write)
