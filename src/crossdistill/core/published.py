"""Answers small enough to be committed with a study's code: decisions without logits, one file for each network, torch-free.

decisions/RUN.npz        `decisions`: of every test set, level and draw in turn, one class for each image
                         `contents`: JSON; for which observation files they stand, which instruments had measured the network,
                         and of which weights all of that is told
decisions/sets/FILE.npz  what all networks that were shown a test set have in common: labels, rows of the split, factors, by FILE, the
                         name of their observation files, which says which images these are
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from crossdistill.core.errors import RunError, StudyError
from crossdistill.core.observations import (
    LevelDraw,
    Stored,
    by_place,
    fields_of,
    observations_of,
    opened_arrays,
    save_arrays,
    stored_observations,
)
from crossdistill.core.store import read_json
from crossdistill.core.types import Observations

FORMAT = 1
DECISIONS = "decisions"  # the folder
SETS_HELD = 64  # of which labels and rows stay in memory: every network of a study asks for the same ones

Answered = tuple[str, str, int]
"""(test set, level, draw)."""


@dataclass(frozen=True)
class Decisions:
    """What is told of one network: {observation file: {(level, draw): int64 [images]}}, and the files of what instruments gave."""

    observations: Mapping[str, Mapping[LevelDraw, np.ndarray]]
    instruments: tuple[str, ...] = ()
    weights: str | None = None  # SHA-256 of network.safetensors, as in the network's record

    @property
    def files(self) -> frozenset[str]:
        """The files for which they stand."""
        return frozenset((*self.observations, *self.instruments))


def decisions_file(out: Path, run: str) -> Path:
    """Where the decisions of a run are kept in a study's folder."""
    return out / DECISIONS / f"{run}.npz"


def set_file(out: Path, file: str) -> Path:
    """Where the labels of a test set are kept; `file` is the name of its observation files."""
    return out / DECISIONS / "sets" / file


def save_decisions(path: Path, told: Decisions) -> None:
    """Write the decisions of one network, atomically: a byte each with up to 256 classes."""
    places = {file: [[*place, len(found)] for place, found in of_set.items()] for file, of_set in told.observations.items()}
    contents = {"format": FORMAT, "weights": told.weights, "observations": places, "instruments": list(told.instruments)}
    found = [found for of_set in told.observations.values() for found in of_set.values()]
    decisions = np.concatenate(found) if found else np.zeros(0, np.int64)
    arrays = {"contents": np.array(json.dumps(contents)), "decisions": _smallest(decisions)}
    save_arrays(path, arrays, np.savez_compressed)


def load_decisions(path: Path) -> Decisions:
    """What `save_decisions` wrote. Raises RunError where the file is damaged or of another format."""
    with opened_arrays(path) as arrays:
        contents, decisions = json.loads(str(arrays["contents"])), arrays["decisions"].astype(np.int64)
        if contents.get("format") != FORMAT:
            raise RunError(f"{path} has format {contents.get('format')}, this version reads {FORMAT}: use the version that wrote it")
        observations: dict[str, dict[LevelDraw, np.ndarray]] = {}
        start = 0
        for file, places in contents["observations"].items():
            observations[file] = {}
            for level, draw, count in places:
                observations[file][level, draw] = decisions[start : start + count]
                start += count
        if start != len(decisions):
            raise ValueError(f"{len(decisions)} decisions where {start} are told of")
        return Decisions(observations, tuple(contents["instruments"]), contents["weights"])


def save_set(path: Path, shown: Mapping[LevelDraw, Observations]) -> None:
    """Write what is known of a test set beside the networks' answers, atomically, every level and draw of it."""
    arrays: dict[str, np.ndarray] = {}
    for (level, draw), seen in shown.items():
        arrays |= {f"{level}|{draw}|{name}": _smallest(values) for name, values in fields_of(seen).items()}
    save_arrays(path, arrays, np.savez_compressed)


def load_set(path: Path) -> Mapping[LevelDraw, Observations]:
    """What `save_set` wrote, as observations without answers. Raises RunError where the file is damaged, StudyError without one."""
    if not path.exists():
        raise StudyError(f"{path} is missing: it says what the decisions beside it are about. Take it from where these came from")
    return _load_set(path, path.stat().st_mtime_ns)


@lru_cache(SETS_HELD)
def _load_set(path: Path, _written: int) -> Mapping[LevelDraw, Observations]:
    with opened_arrays(path) as arrays:
        return {place: _shown({field: arrays[name] for field, name in fields.items()}) for place, fields in by_place(arrays.files).items()}


def _shown(fields: Mapping[str, np.ndarray]) -> Observations:
    whole = {name: values.astype(np.int64) if values.dtype.kind in "iu" else values for name, values in fields.items()}
    return observations_of(np.empty((len(whole["labels"]), 0), np.float32), whole)


def published(out: Path, run: str) -> Decisions | None:
    """The decisions that a study's folder holds of a run's network; None where there are none, or they are of other weights."""
    path, record = decisions_file(out, run), out / "runs" / run / "record.json"
    if not path.exists() or not record.exists():
        return None
    told, known = load_decisions(path), read_json(record)
    return told if isinstance(known, dict) and known.get("weights") == told.weights else None


def known_answers(out: Path, run: str, files: Mapping[str, str]) -> Stored[Answered, Observations]:
    """What is known of a run's answers on `files` ({test set: file name}): with logits where these are here, else decisions alone.

    Read whenever they are asked for.
    """
    told = published(out, run)
    full = {name: path for name, file in files.items() if (path := out / "observations" / run / file).exists()}
    sets: dict[str, Mapping[LevelDraw, Observations]] = {}
    for name, file in files.items():
        if name in full:
            sets[name] = stored_observations(full[name])
        elif told and file in told.observations:
            sets[name] = _decided(set_file(out, file), told.observations[file])
    return Stored([(name, *place) for name, of_set in sets.items() for place in of_set], lambda place: sets[place[0]][place[1:]])


def without_logits(out: Path, run: str, files: Iterable[str]) -> bool:
    """Whether decisions alone are known of a run on any of these files."""
    told = published(out, run)
    return told is not None and any(file in told.observations and not (out / "observations" / run / file).exists() for file in files)


def _decided(path: Path, decisions: Mapping[LevelDraw, np.ndarray]) -> Stored[LevelDraw, Observations]:
    def read(place: LevelDraw) -> Observations:
        shown, found = load_set(path).get(place), decisions[place]
        if shown is None or len(shown.labels) != len(found):
            raise RunError(f"{path} does not hold the images of which decisions are told: take both from where they came from")
        return Observations(shown.logits, shown.labels, shown.index, shown.factors, shown.split, decided=found)

    return Stored(decisions, read)


def _smallest(values: np.ndarray) -> np.ndarray:
    """Whole numbers in as few bytes as hold them all; others as they are."""
    if values.dtype.kind not in "iu" or not len(values):
        return values
    return values.astype(np.result_type(np.min_scalar_type(values.min()), np.min_scalar_type(values.max())))
