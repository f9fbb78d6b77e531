"""How the trainings of a study are carried out: one after the other in this process, or several side by side elsewhere.

Who carries a training out changes no byte of it: every worker holds the same study open, and thread counts come from the recipe.
"""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch

from crossdistill.core.errors import CrossdistillError
from crossdistill.core.workers import WorkerEnded, Workers
from crossdistill.study.observing import nothing_left
from crossdistill.study.plan import Plan, Training
from crossdistill.study.workers import LabelledProgress, attempted, failure, open_study, sent
from crossdistill.study.workshop import Workshop
from crossdistill.train.signals import stop_requests

PATIENCE_S = 10.0  # in which a worker may finish its step and save its state
LOOK_S = 0.2  # between two looks at whether a stop was requested


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


class Pool(Protocol):
    """Carries trainings out somewhere else."""

    def submit(self, training: Training, /) -> Future[None]:
        """A future that runs once the training is at work; its error is the training's, or WorkerEnded."""
        ...


CarryOut = Callable[[Schedule], None]
"""Carries out a whole schedule. A StudyError ends it: the folder is in use, full or read-only, and no other training would do better."""


class Executor(Protocol):
    """Where the trainings of a study are carried out. It places them, and changes no byte of them."""

    @property
    def name(self) -> str: ...

    def ready(self) -> AbstractContextManager[None]:
        """The block in which it can be used; before anything else is done, so that what cannot be is said at once."""
        ...

    def room(self, plan: Plan, device: torch.device) -> int:
        """How many trainings it has room for at once. Raises SettingError where it never has room for one of them."""
        ...

    def carrying_out(self, shop: Workshop, plan: Plan, images: str) -> AbstractContextManager[CarryOut]:
        """The block in which it carries out schedules of this study; `images` is the fingerprint of what all trainings read."""
        ...


@dataclass(frozen=True)
class LocalProcesses:
    """This process, or `jobs` worker processes of this machine, which start when they are first needed."""

    jobs: int
    name = "local"

    def ready(self) -> AbstractContextManager[None]:
        return contextlib.nullcontext()

    def room(self, plan: Plan, device: torch.device) -> int:
        return self.jobs

    @contextlib.contextmanager
    def carrying_out(self, shop: Workshop, plan: Plan, images: str) -> Iterator[CarryOut]:
        if self.jobs == 1:
            yield partial(one_after_the_other, shop)
            return
        recipes = [training.recipe for training in (*plan.trainings, *plan.ceilings)]
        threads, cores = max(recipe.threads for recipe in recipes), os.cpu_count() or 1
        if shop.device.type == "cpu" and (warning := too_many(self.jobs, threads, cores)):
            shop.progress.line(warning)
        study = sent(shop, LabelledProgress(quiet=shop.progress.quiet or shop.progress.viewed))
        with Workers(self.jobs, open_study, study, images, threads=None, on_demand=True, patience_s=PATIENCE_S) as workers:
            yield partial(side_by_side, shop, workers, self.jobs)


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


def side_by_side(shop: Workshop, pool: Pool, jobs: float, schedule: Schedule, look: Callable[[], Iterable[str]] = tuple) -> None:
    """Give the pool the trainings that can start, at most `jobs` of them at once; what is done already is only looked at, here.

    A training whose worker process ends is tried once more, from its checkpoint, in a new one. Raises KeyboardInterrupt on Ctrl-C and
    SIGTERM; it is for the caller to let the workers save their state. `look` gives lines that workers wrote, where these do not do so
    themselves: it is called several times a second, and whenever a training has ended.
    """
    running: dict[Future[None], Training] = {}
    quiet: dict[Future[None], Training] = {}  # those that are not announced: where workers are few, a training waits for one
    tried_again: set[str] = set()

    def settle(training: Training, error: CrossdistillError | None) -> None:
        with suppress(KeyboardInterrupt), stop.at_once():  # the study's tables and page may be written meanwhile, which takes minutes
            _settle(shop, schedule, training, error)

    def ended(training: Training, how: WorkerEnded) -> None:
        if training.label in tried_again:
            settle(training, _given_up(how))
            return
        shop.progress.line(f"{training.label}: its process has ended ({_words(how)}) and is started once more")
        tried_again.add(training.label)
        running[pool.submit(training)] = training

    with stop_requests() as stop:
        while True:
            while len(running) < jobs and not stop.is_set() and (training := schedule.next()) is not None:
                if (error := schedule.refusal(training)) or nothing_left(shop, training):
                    settle(training, error or attempted(shop, training))
                else:
                    future = pool.submit(training)
                    running[future] = quiet[future] = training
            if stop.is_set():
                shop.progress.line("stopping: what is being trained is saved after its step; another Ctrl-C stops at once")
                raise KeyboardInterrupt
            if not running:
                return
            done = wait(running, timeout=LOOK_S, return_when=FIRST_COMPLETED).done
            lines = look()
            for future in [future for future in quiet if future.running() or future.done()]:
                shop.progress.line(schedule.announced(quiet.pop(future)))
            for line in lines:
                shop.progress.line(line)
            for future in done:
                training = running.pop(future)
                try:
                    settle(training, failure(future.result))
                except WorkerEnded as how:
                    ended(training, how)


def _words(ended: WorkerEnded) -> str:
    return str(ended) if ended.code is None else f"exit code {ended.code}"


def _given_up(ended: WorkerEnded) -> CrossdistillError:
    return CrossdistillError(
        f"its process has ended twice ({_words(ended)}), perhaps because the memory was full: give fewer --jobs, and the same "
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
    record = shop.record(training)
    share = record.estimates["validation_accuracy"].value
    return f"validation {100 * (share or 0.0):.1f} %, trained in {record.timing['seconds']:.0f} s"
