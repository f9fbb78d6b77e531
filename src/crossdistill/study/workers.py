"""What carries out one training: in this process, or in a worker that holds the same study open."""

import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from crossdistill.core.errors import CrossdistillError, RunError, StudyError
from crossdistill.core.progress import Progress, Stopwatch
from crossdistill.core.store import write_text
from crossdistill.ops.parallel import world
from crossdistill.study.observing import observe_run
from crossdistill.study.phases import timed
from crossdistill.study.plan import Training
from crossdistill.study.splits import fingerprint, study_splits
from crossdistill.study.tasks import train
from crossdistill.study.workshop import Workshop
from crossdistill.train.memory import free_garbage
from crossdistill.train.precision import settle_kernels

_NOTHING: Any = None


class LabelledProgress(Progress):
    """Plain lines that name the training at hand, for one of several processes that write to one terminal."""

    label = ""

    def __init__(self, *, quiet: bool) -> None:
        super().__init__(quiet=quiet)
        self.interactive = False

    def line(self, text: str) -> None:
        super().line(self.labelled(text))

    def labelled(self, text: str) -> str:
        """The line as it is written: with the training's label, where that is not in it."""
        return text.strip() if self.label in text else f"{self.label}: {text.strip()}"


def sent(shop: Workshop, progress: LabelledProgress) -> Workshop:
    """The workshop as a worker is sent it: without the images, which it maps itself."""
    return replace(shop, splits=_NOTHING, progress=progress)


def open_study(shop: Workshop, images: str) -> Callable[[Training], None]:
    """What a worker process does with a training, in the workshop that it is sent; it maps the images from the cache itself.

    Raises StudyError where these are no longer those of the study.
    """
    settle_kernels(shop.device)
    opened = replace(shop, splits=study_splits(shop.config, Progress(quiet=True)))
    if fingerprint(opened.splits) != images:
        raise StudyError("the images changed while the study ran: start the same command again, which takes them as they are then")

    def work(training: Training) -> None:
        if isinstance(shop.progress, LabelledProgress):
            shop.progress.label = training.label
        if error := attempted(opened, training):
            raise error

    return work


def train_and_observe(shop: Workshop, training: Training) -> None:
    """Both tasks of a training; what is done of them is not done again. A defect, such as a plug-in's, fails this training alone."""
    try:
        with timed(shop.out, training.run) as seconds:
            watch = Stopwatch()
            train(shop, training)
            seconds["training"] = watch.seconds
            observe_run(shop, training)
            seconds["observation"] = watch.seconds - seconds["training"]
    except (CrossdistillError, OSError):
        raise
    except Exception as error:
        if world().size > 1:  # the other processes wait in the middle of a step
            raise
        path = shop.out / "runs" / training.run / "traceback.txt"
        write_text(path, traceback.format_exc())
        raise CrossdistillError(f"{type(error).__name__}: {error} (not foreseen: {path} says where)") from error


def attempted(shop: Workshop, training: Training) -> CrossdistillError | None:
    """Train and observe; gives what went wrong, where that fails this training alone, and keeps nothing else of it in memory."""
    error = failure(partial(train_and_observe, shop, training))
    if error:
        free_garbage()
    return error


def failure(call: Callable[[], object]) -> CrossdistillError | None:
    """What a call raised, where that fails its training alone: its words only, since its traceback holds networks and images."""
    try:
        call()
    except StudyError as error:
        if world().size > 1 or not isinstance(error, RunError):  # other processes of this training may not have met it
            raise
        return CrossdistillError(str(error))
    except CrossdistillError as error:
        return CrossdistillError(str(error))
    return None
