"""How the trainings of a study are carried out: one after the other in this process, or several side by side in worker processes.

Who carries a training out changes no byte of it: every worker holds the same study open, and thread counts come from the recipe.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

from crossdistill.core.errors import CrossdistillError, StudyError
from crossdistill.core.progress import Progress
from crossdistill.core.records import RunRecord
from crossdistill.core.workers import WorkerEnded, Workers
from crossdistill.study.plan import Plan, Training
from crossdistill.study.tasks import nothing_left, observe_run, train
from crossdistill.study.workshop import Workshop
from crossdistill.train.memory import free_garbage
from crossdistill.train.precision import settle_kernels
from crossdistill.train.signals import stop_requests

PATIENCE_S = 10.0  # in which a worker may finish its step and save its state
LOOK_S = 0.2  # between two looks at whether a stop was requested
_NOTHING: Any = None


class Schedule(Protocol):
    """Which trainings are to be carried out, in which order."""

    def next(self) -> Training | None:
        """A training that can start now, given once; None where there is none, or none before another is settled."""
        ...

    def refusal(self, training: Training) -> CrossdistillError | None:
        """Why it cannot be carried out, where what it reads has failed."""
        ...

    def announced(self, training: Training) -> str:
        """The line that says that it starts."""
        ...

    def settle(self, training: Training, error: CrossdistillError | None) -> str:
        """Note that a training is finished and observed, or that it failed; gives how many are, as in "3/12"."""
        ...


CarryOut = Callable[[Schedule], None]
"""Carries out a whole schedule. A StudyError ends it: the folder is in use, full or read-only, and no other training would do better."""


@contextlib.contextmanager
def carrying_out(shop: Workshop, plan: Plan, images: str, jobs: int) -> Iterator[CarryOut]:
    """Carries out schedules of this study with `jobs` trainings at once; `images` is the fingerprint of what all of them read.

    Worker processes start when they are first needed.
    """
    if jobs == 1:
        yield partial(one_after_the_other, shop)
        return
    recipes = [training.recipe for training in (*plan.trainings, *plan.ceilings)]
    threads, cores = max(recipe.threads for recipe in recipes), os.cpu_count() or 1
    if shop.device.type == "cpu" and (warning := too_many(jobs, threads, cores)):
        shop.progress.line(warning)
    sent = replace(shop, splits=_NOTHING, progress=LabelledProgress(quiet=shop.progress.quiet))
    with Workers(jobs, open_study, sent, images, threads=None, on_demand=True, patience_s=PATIENCE_S) as workers:
        yield partial(side_by_side, shop, workers, jobs)


def too_many(jobs: int, threads: int, cores: int) -> str | None:
    """What to say of more threads than cores; None where they are not.

    >>> too_many(4, 2, 6)
    '4 jobs of 2 threads each share 6 cores: the numbers are the same, but fewer jobs may be faster'
    """
    if jobs * threads <= cores:
        return None
    return f"{jobs} jobs of {threads} threads each share {cores} cores: the numbers are the same, but fewer jobs may be faster"


def one_after_the_other(shop: Workshop, schedule: Schedule) -> None:
    """Train and observe in this process."""
    while (training := schedule.next()) is not None:
        error = schedule.refusal(training)
        if not error:
            if not shop.finished(training):
                shop.progress.line(schedule.announced(training))
            error = attempted(shop, training)
        schedule.settle(training, error)
        if error:
            shop.progress.line(f"  failed: {error}")


def side_by_side(shop: Workshop, workers: Workers, jobs: int, schedule: Schedule) -> None:
    """Give every idle worker the next training that can start; what is done already is only looked at, here.

    A training whose worker process ends is tried once more, from its checkpoint, in a new one. Raises KeyboardInterrupt on Ctrl-C and
    SIGTERM; it is for the caller to let the workers save their state.
    """
    running: dict[Future[None], Training] = {}
    tried_again: set[str] = set()

    def start(training: Training) -> None:
        running[workers.submit(training)] = training

    with stop_requests() as stop:
        while True:
            while len(running) < jobs and (training := schedule.next()) is not None:
                if (error := schedule.refusal(training)) or nothing_left(shop, training):
                    error = error or attempted(shop, training)
                    _settle(shop, schedule, training, error)
                else:
                    shop.progress.line(schedule.announced(training))
                    start(training)
            if not running:
                return
            for future in wait(running, timeout=LOOK_S, return_when=FIRST_COMPLETED).done:
                training = running.pop(future)
                try:
                    _settle(shop, schedule, training, _failure(future.result))
                except WorkerEnded as ended:
                    if training.label in tried_again:
                        _settle(shop, schedule, training, _given_up(ended))
                    else:
                        shop.progress.line(f"{training.label}: its process has ended (exit code {ended.code}) and is started once more")
                        tried_again.add(training.label)
                        start(training)
            if stop.is_set():
                shop.progress.line("stopping: what is being trained is saved after its step; another Ctrl-C stops at once")
                raise KeyboardInterrupt


def train_and_observe(shop: Workshop, training: Training) -> None:
    """Both tasks of a training; what is done of them is not done again."""
    train(shop, training)
    observe_run(shop, training)


def attempted(shop: Workshop, training: Training) -> CrossdistillError | None:
    """Train and observe; gives what went wrong, where that fails this training alone, and keeps nothing else of it in memory."""
    error = _failure(partial(train_and_observe, shop, training))
    if error:
        free_garbage()
    return error


def _failure(call: Callable[[], object]) -> CrossdistillError | None:
    """What a call raised, where that fails its training alone: its words only, since its traceback holds networks and images."""
    try:
        call()
    except StudyError:
        raise
    except CrossdistillError as error:
        return CrossdistillError(str(error))
    return None


def _given_up(ended: WorkerEnded) -> CrossdistillError:
    return CrossdistillError(
        f"its process has ended twice (exit code {ended.code}), perhaps because the memory was full: give fewer --jobs, and the same "
        "command goes on from what is done"
    )


def _settle(shop: Workshop, schedule: Schedule, training: Training, error: CrossdistillError | None) -> None:
    done = schedule.settle(training, error)
    if error:
        outcome = f"failed: {error}" if str(error).startswith(training.label) else f"failed: {training.label}: {error}"
    else:
        outcome = f"done: {training.label}: {_result(shop, training)}"
    shop.progress.line(f"[{done}] {outcome}")


def _result(shop: Workshop, training: Training) -> str:
    record = RunRecord.load(shop.folder(training))
    share = record.estimates["validation_accuracy"].value
    return f"validation {100 * (share or 0.0):.1f} %, trained in {record.timing['seconds']:.0f} s"


class LabelledProgress(Progress):
    """Plain lines that name the training at hand, for one of several processes that write to one terminal."""

    label = ""

    def __init__(self, *, quiet: bool) -> None:
        super().__init__(quiet=quiet)
        self.interactive = False

    def line(self, text: str) -> None:
        super().line(text.strip() if self.label in text else f"{self.label}: {text.strip()}")


def open_study(shop: Workshop, images: str) -> Callable[[Training], None]:
    """What a worker process does with a training, in the workshop that it is sent; it maps the images from the cache itself.

    Raises StudyError where these are no longer those of the study.
    """
    from crossdistill.study.execute import fingerprint, study_splits  # which imports this module

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
