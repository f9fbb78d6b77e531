"""Telling a tracker how a training goes: `tracker: tensorboard`, or `python:MODULE`, a module with the same three functions.

    start(run, facts, folder, first_epoch) -> handle     once a run and process, before its first row
    log(handle, epoch, values)                           after every epoch
    finish(handle, final)                                when the run is finished

A tracker sees results and has no part in them: it is in no key, and where it raises it is left out for that run.
"""

import contextlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType
from typing import Any

from crossdistill.core.errors import CrossdistillError, SettingError, unknown_name
from crossdistill.core.records import EpochRow, RunRecord
from crossdistill.core.store import read_json, write_json
from crossdistill.train import trackers

HOOK = ("start", "log", "finish")
OWN = "python:"
MARK = "tracked.json"  # in the run's folder: by whom, and how many epochs


def load_tracker(name: str) -> ModuleType:
    """The module behind `tracker: NAME`. Raises a CrossdistillError for one that is unknown, not installed or incomplete."""
    if not name.startswith(OWN):
        names = [module.name for module in iter_modules(trackers.__path__)]
        if name not in names:
            raise SettingError(f"{unknown_name('tracker', name, names)} One of your own is python:MODULE.")
        return importlib.import_module(f"{trackers.__name__}.{name}")
    module = _own(name.removeprefix(OWN))
    if missing := [function for function in HOOK if not callable(getattr(module, function, None))]:
        raise SettingError(f"`tracker: {name}`: a tracker has the functions {', '.join(HOOK)}, and this module lacks {', '.join(missing)}")
    return module


def _own(module: str) -> ModuleType:
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # the installed command does not look in the current folder by itself
    found = None
    with contextlib.suppress(ModuleNotFoundError, ValueError):  # a parent package is not there; no name at all
        found = importlib.util.find_spec(module)
    if found is None:
        raise SettingError(f"`tracker: {OWN}{module}`: no Python module is called '{module}' where Python looks or in {os.getcwd()}")
    try:
        return importlib.import_module(module)
    except Exception as error:  # whatever a file of somebody else's does when it is run
        raise SettingError(f"`tracker: {OWN}{module}`: the module cannot be imported: {type(error).__name__}: {error}") from error


class Tracking:
    """One run's rows on their way to a tracker, each once, whatever was interrupted; its files go to `folder`.

    `say` is told once where the tracker raises; from then on nothing of this run is tracked by this process.
    """

    def __init__(self, tracker: str, run: str, facts: dict[str, Any], folder: Path, say: Callable[[str], object]) -> None:
        self.tracker, self.run, self.facts, self.folder, self.say = tracker, run, facts, folder, say
        self.handle: Any = None
        self.module: ModuleType | None = None
        self.off = False

    def rows(self, history: Sequence[EpochRow]) -> None:
        """Tell what has not been told of the epochs so far."""
        for row in history[self._told()["epochs"] :]:
            self._guarded(lambda row=row: self._log(row))

    def finish(self, record: RunRecord) -> None:
        """Tell the rest of a finished run, and that it is finished; nothing where that was told before."""
        self.rows(record.history)
        if not self._told()["finished"]:
            self._guarded(lambda: self._finish(record))

    def _log(self, row: EpochRow) -> None:
        module, handle = self._started(row.epoch)
        module.log(handle, row.epoch, values(row))
        self._mark(row.epoch)

    def _finish(self, record: RunRecord) -> None:
        module, handle = self._started(len(record.history) + 1)
        module.finish(handle, final(record))
        self._mark(len(record.history), finished=True)

    def _started(self, first_epoch: int) -> tuple[ModuleType, Any]:
        if self.module is None:
            module = load_tracker(self.tracker)
            self.folder.mkdir(parents=True, exist_ok=True)
            self.handle = module.start(self.run, self.facts, self.folder, first_epoch)
            self.module = module
        return self.module, self.handle

    def _guarded(self, call: Callable[[], object]) -> None:
        if self.off:
            return
        try:
            call()
        except Exception as error:  # whatever a tracker raises, the training goes on
            self.off = True
            self.say(f"  {self.facts['label']}: the tracker failed and is off for this run: {type(error).__name__}: {error}")

    def _told(self) -> dict[str, Any]:
        """How many epochs this tracker has been told, by all processes so far, and whether it was told the end."""
        nothing = {"tracker": self.tracker, "epochs": 0, "finished": False}
        try:
            told = read_json(self.folder / MARK)
        except (OSError, CrossdistillError):
            return nothing
        return told if isinstance(told, dict) and told.keys() >= nothing.keys() and told["tracker"] == self.tracker else nothing

    def _mark(self, epochs: int, *, finished: bool = False) -> None:
        write_json(self.folder / MARK, {"tracker": self.tracker, "epochs": epochs, "finished": finished})


def values(row: EpochRow) -> dict[str, float]:
    """An epoch as a tracker is told it: what log.jsonl has, terms as `term/NAME`, without what is not known."""
    told = {name: value for name, value in row.model_dump(exclude={"epoch", "terms"}).items() if value is not None}
    return told | {f"term/{name}": value for name, value in row.terms.items()}


def final(record: RunRecord) -> dict[str, float]:
    """A finished run as a tracker is told it: its estimates and its time."""
    estimates = {name: estimate.value for name, estimate in record.estimates.items()}
    return {name: value for name, value in {**estimates, "seconds": record.timing["seconds"]}.items() if value is not None}
