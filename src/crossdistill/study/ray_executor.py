"""The trainings of a study on a Ray cluster: one task each, which Ray places, and results through folders that all machines share."""

import contextlib
import os
import pickle
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from typing import Any

import torch

from crossdistill.core.errors import CrossdistillError, StudyError
from crossdistill.core.workers import WorkerEnded
from crossdistill.study.jobs import PATIENCE_S, CarryOut, side_by_side
from crossdistill.study.plan import Plan, Training
from crossdistill.study.ray_cluster import (
    connected,
    last_words,
    marked,
    ray_module,
    refuse_impossible,
    refuse_unfit_machines,
    request,
    task_environment,
)
from crossdistill.study.ray_reports import Reports
from crossdistill.study.ray_task import ReportedProgress, SentStudy, carry_out
from crossdistill.study.workers import sent
from crossdistill.study.workshop import Workshop

TAKE_S = 5.0  # for the driver to be told what the tasks have told


class RayTasks:
    """Trainings as tasks of a Ray cluster."""

    def __init__(self, shop: Workshop, study: SentStudy) -> None:
        ray = ray_module()
        self._ray, self._shop = ray, shop
        self._study = ray.put(pickle.dumps(study))
        self._task = ray.remote(max_retries=0)(carry_out)  # whether it is tried once more is not for Ray to say
        self._reports = ray.remote(Reports).options(num_cpus=0, max_restarts=-1, runtime_env=task_environment()).remote()
        self._running: dict[Future[None], tuple[str, Any]] = {}  # label and Ray's reference
        self._turn = threading.Lock()  # Ray tells that a task has ended in a thread of its own

    def submit(self, training: Training, /) -> Future[None]:
        """A future that runs once Ray has found a place for the training."""
        asked = request(self._shop.config, training.recipe, self._shop.device)
        given = {"num_cpus": asked["CPU"], "num_gpus": asked["GPU"], "name": training.label, "runtime_env": task_environment()}
        task = self._task.options(**given)
        reference, future = task.remote(self._study, self._reports, training), Future[None]()
        self._running[future] = training.label, reference
        reference.future().add_done_callback(partial(self._end, future, training.label))
        return future

    def _end(self, future: Future[None], label: str, answer: "Future[Any]") -> None:
        error = how_it_ended(label, answer)
        with self._turn:
            del self._running[future]
            future.set_exception(error) if error else future.set_result(None)

    def look(self) -> list[str]:
        """The lines that tasks wrote since the last look; notes which of them have started."""
        if not self._ray.is_initialized():  # the cluster is lost, and Ray would look for another one
            return []
        try:
            started, lines = self._ray.get(self._reports.take.remote(), timeout=TAKE_S)
        except (self._ray.exceptions.RayError, ConnectionError):  # lines are lost, no result is
            return []
        with self._turn:
            for future, (label, _) in self._running.items():
                if label in started and not future.running() and not future.done():
                    future.set_running_or_notify_cancel()
        return lines

    def stop(self) -> None:
        """Have tasks that are at work save their state and stop, then end those that do not."""
        for force, seconds in ((False, PATIENCE_S), (True, 1.0)):
            with self._turn:
                left = {future: reference for future, (_, reference) in self._running.items()}
            if not left or not self._ray.is_initialized():
                break
            with contextlib.suppress(self._ray.exceptions.RayError, ConnectionError):  # it is being lost: what ended this is what to say
                for reference in left.values():
                    self._ray.cancel(reference, force=force)
                wait(left, timeout=seconds)
        for line in self.look():
            self._shop.progress.line(line)


def how_it_ended(label: str, answer: "Future[Any]") -> BaseException | None:
    """What a task gave: None, or what went wrong in the words of a study."""
    lost = ray_module().exceptions
    ended = {
        lost.WorkerCrashedError: "it crashed or was killed",
        lost.TaskCancelledError: "it was asked to stop",
        lost.OutOfMemoryError: "the memory of its machine was full",
        lost.NodeDiedError: "its machine was lost",
        lost.LocalRayletDiedError: "Ray on its machine was lost",
    }
    try:
        return answer.result()
    except tuple(ended) as error:
        return WorkerEnded(next(words for kind, words in ended.items() if isinstance(error, kind)))
    except lost.RayTaskError as error:  # a defect of ours, with where it came from
        return error
    except CrossdistillError as error:  # which the task gave: through ray:// Ray raises an error that is a result
        return error
    except Exception as error:  # Ray's own; through ray:// also a ConnectionError, once the cluster is gone
        return StudyError(f"Ray could not carry out {label}: {last_words(error)}")


@dataclass(frozen=True)
class RayCluster:
    """A Ray cluster: as many trainings at once as it has room for, or at most `jobs`."""

    address: str
    jobs: int | None
    name = "ray"

    def ready(self) -> AbstractContextManager[None]:
        return connected(self.address)

    def room(self, plan: Plan, device: torch.device) -> int:
        return min(refuse_impossible(plan, device), self.jobs or sys.maxsize)

    @contextlib.contextmanager
    def carrying_out(self, shop: Workshop, plan: Plan, images: str) -> Iterator[CarryOut]:
        """After an error in the block, tasks may finish a step and save their state."""
        with marked(shop.out) as out, marked(shop.store) as store:
            shared = replace(shop, out=out.parent, store=store.parent)
            refuse_unfit_machines(shared, (out, store))
            study = SentStudy(
                sent(shared, ReportedProgress(quiet=shop.progress.quiet or shop.progress.viewed)), images, (out, store), os.getcwd()
            )
            tasks = RayTasks(shop, study)
            try:
                yield partial(side_by_side, shop, tasks, self.jobs or inf, look=tasks.look)
            finally:
                tasks.stop()
