"""A study on several devices: rank 0 drives it, and the other ranks take part in the trainings to which it calls them."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from crossdistill.core.config import StudyConfig
from crossdistill.core.errors import CrossdistillError, DivergedError, SettingError, StudyError
from crossdistill.core.progress import Progress
from crossdistill.ops.parallel import World, alone, first_ahead, started, together, told, world
from crossdistill.study.launch import LAST_WORDS, LIFELINE, RENDEZVOUS, is_launched, refuse_other_count
from crossdistill.study.plan import Training
from crossdistill.study.workshop import Workshop


@dataclass(frozen=True)
class Call:
    """What rank 0 calls the others to: a training, taught by its teacher as it was after an epoch (None: at the end)."""

    training: Training
    epoch: int | None
    answers: Any  # the study's plan for the teacher's answers


@contextmanager
def crew(devices: int, device: torch.device) -> Iterator[tuple[World, torch.device]]:
    """This process's place among those of a study on that many devices, and its own device; each goes about its own work at first.

    Raises SettingError where other processes were started than the study asks for, or there are not as many GPUs.
    """
    refuse_other_count(devices)
    if not is_launched():
        yield World(), device
        return
    _watch_the_lifeline()
    place = own_device(device)
    with started(place, init_method=os.environ.get(RENDEZVOUS, "env://")) as everyone, alone():
        yield everyone, place
        if everyone.rank == 0:  # not after an error: then this process ends, which the others notice
            _call(None)


def own_device(device: torch.device) -> torch.device:
    """The device of this process: on GPUs the one of its number on this machine. Rank 0 raises SettingError where there are fewer."""
    if device.type != "cuda":
        return device
    number, here = int(os.environ["LOCAL_RANK"]), int(os.environ.get("LOCAL_WORLD_SIZE", os.environ["WORLD_SIZE"]))
    if here > torch.cuda.device_count():
        if int(os.environ["RANK"]):
            sys.exit(2)
        raise SettingError(
            f"{here} devices were asked for and this machine has {torch.cuda.device_count()} GPUs: ask for that many, or use --device cpu"
        )
    return torch.device("cuda", number)


@contextmanager
def shared(shop: Workshop, training: Training, epoch: int | None) -> Iterator[None]:
    """The block in which rank 0 trains a network: by itself, or with the other ranks, called to it, where its recipe has devices."""
    if training.recipe.devices == 1:
        yield
        return
    _call(Call(training, epoch, shop.answers))
    with together():
        yield


def prepared() -> AbstractContextManager[None]:
    """The context in which each rank prepares a training, rank 0 first: a warm-up or stored answers are made once, by it alone."""
    return first_ahead()


@contextmanager
def alike() -> Iterator[None]:
    """The block in which ranks train together. A loss that is not finite is so on all of them, and the study may go on.

    Any other error may be one rank's alone, while the others wait in the middle of a step: raised as StudyError, it ends the study.
    """
    try:
        yield
    except (DivergedError, StudyError):
        raise
    except CrossdistillError as error:
        if world().size == 1:
            raise
        raise StudyError(f"{error} The study ends here, since its other processes may not have met this.") from error


def follow(config: StudyConfig, out: Path, *, store: Path, device: torch.device) -> None:
    """Take part in every training to which rank 0 calls, until it says that all is done or has ended."""
    shop: Workshop | None = None
    try:
        while (call := _heard()) is not None:
            shop = shop or _workshop(config, out, store, device)
            _take_part(shop, call)
    except KeyboardInterrupt:
        sys.exit(130)  # rank 0 says the rest


def _take_part(shop: Workshop, call: Call) -> None:
    from crossdistill.study.probes import build_probes
    from crossdistill.study.tasks import trained

    shop.answers = call.answers
    if call.training.probe and not shop.probe_sets:
        shop.probe_sets = build_probes(shop.config, shop.splits.test, shop.store, shop.progress, splits=shop.splits, device=shop.device)
    try:
        with together():
            trained(shop, call.training, call.epoch)
    except StudyError:
        raise
    except CrossdistillError:
        pass  # rank 0 met it too, and writes it down


def _workshop(config: StudyConfig, out: Path, store: Path, device: torch.device) -> Workshop:
    """What rank 0 has, from the images that it decoded."""
    from crossdistill.study.probes import probed_rows
    from crossdistill.study.splits import study_splits

    quiet = Progress(quiet=True)
    splits = study_splits(config, quiet)
    return Workshop(config, splits, out, store, device, quiet, probed_rows(splits.test, config))


def _call(message: Call | None) -> None:
    with together():
        told(message)


def _heard() -> Call | None:
    """What rank 0 calls to next; None where all is done. Ends this process quietly where rank 0 has ended, which has said why."""
    message: Call | None = None
    try:
        with together():
            return told(message)
    except StudyError:
        sys.exit(1)


def _watch_the_lifeline() -> None:
    """End this process when the one that launched it is gone, however it went: as a stop request first, which saves the state."""
    descriptor = os.environ.get(LIFELINE)
    if descriptor is None:
        return

    def watch() -> None:
        os.read(int(descriptor), 1)  # nothing is ever written: it returns when the pipe breaks
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(LAST_WORDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
