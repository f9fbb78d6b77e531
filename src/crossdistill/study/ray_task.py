"""What a task on a Ray cluster does, in a worker process there: one training with its observation, or a look at what the machine has."""

import contextlib
import os
import pickle
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from crossdistill.core.errors import CrossdistillError, StudyError
from crossdistill.core.store import LOCK, is_locked
from crossdistill.study.environment import hardware, software
from crossdistill.study.plan import Training
from crossdistill.study.workers import LabelledProgress, open_study
from crossdistill.study.workshop import Workshop

APPEARS_S = 5.0  # for a file that the driver wrote
LAST_WORDS_S = 5.0  # for a training's last line to be on its way before the training counts as done


@dataclass(frozen=True)
class SentStudy:
    """What a worker needs to hold the driver's study open."""

    shop: Workshop
    images: str  # their fingerprint
    marks: tuple[Path, ...]  # folders that the driver holds while it runs, one in each folder that is shared
    cwd: str  # of the driver, from which relative paths of the study file are read


class ReportedProgress(LabelledProgress):
    """Lines that go to the driver's terminal."""

    reports: Any = None

    def line(self, text: str) -> None:
        if not self.quiet:
            self.reports.line.remote(self.labelled(text))


def carry_out(study: bytes, reports: Any, training: Training) -> CrossdistillError | None:
    """Train and observe; gives the error that is the training's own, or that ends the study."""
    try:
        shop, work = _opened(study)
        assert isinstance(shop.progress, ReportedProgress)
        shop.progress.reports = reports
        reports.start.remote(training.label)
        work(training)
    except CrossdistillError as error:
        return error
    except OSError as error:  # said in one sentence, as the command line does where it meets one itself
        if error.strerror is None:
            raise
        return StudyError(f"{training.label}: {os.uname().nodename} cannot use {error.filename or 'a file'}: {error.strerror}")
    finally:
        _wait_for_the_last_line(reports)
    return None


def _wait_for_the_last_line(reports: Any) -> None:
    import ray
    from ray.exceptions import RayError

    with contextlib.suppress(RayError):  # lines may be lost, results never
        ray.get(reports.end.remote(), timeout=LAST_WORDS_S)


@lru_cache(maxsize=1)
def _opened(study: bytes) -> tuple[Workshop, Any]:
    """The study, opened once in each worker process."""
    sent: SentStudy = pickle.loads(study)
    if reason := unshared(sent.marks) or missing_device(sent.shop.device):
        raise StudyError(f"{os.uname().nodename} cannot take part in this study: {reason}")
    if Path(sent.cwd).is_dir():
        os.chdir(sent.cwd)
    return sent.shop, open_study(sent.shop, sent.images)


def look_around(marks: Sequence[Path]) -> tuple[str | None, dict[str, str], str]:
    """Why this machine does not share the study's folders (None: it does), its packages' versions, and its processor."""
    return unshared(marks), software(), hardware(torch.device("cpu"))["processor"]


def unshared(marks: Sequence[Path]) -> str | None:
    """Why the driver's folders are not shared with this machine: they are not there, not to be written, or their locks are not seen."""
    for mark in marks:
        folder = mark.parent
        if not _appears(mark / LOCK):
            return f"{folder} is not there as the driver sees it; --out and --store must be on a file system that all machines share"
        if not os.access(folder, os.W_OK):
            return f"{folder} cannot be written there; its processes must be allowed to write where the driver writes"
        if not is_locked(mark):
            return f"locks in {folder} are not shared; mount its file system so that flock holds between machines"
    return None


def _appears(path: Path) -> bool:
    """Whether a file is there; network file systems may show it a little later."""
    deadline = time.monotonic() + APPEARS_S
    while not path.exists():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def missing_device(device: torch.device) -> str | None:
    """Why the study's device cannot be had in this process."""
    if device.type == "cuda" and not torch.cuda.is_available():
        return "the study runs on GPUs and this process was given none; ask for one with `resources: {gpus: 1}`"
    return None
