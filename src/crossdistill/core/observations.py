"""What was observed on disk, torch-free: answers, one `.npz` for each network and test set, every level and draw inside; and what
instruments gave, one `.npz` for each network and instrument.
"""

import io
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from crossdistill.core.errors import RunError
from crossdistill.core.store import write_atomically
from crossdistill.core.types import Observations

LevelDraw = tuple[str, int]
Key = TypeVar("Key")
Value = TypeVar("Value")

Measurement = np.ndarray | dict[str, np.ndarray] | str
"""What an instrument gave of one network, [images, ...] alone or by name; a text is the reason why it has nothing to measure there."""

DAMAGE = (zipfile.BadZipFile, ValueError, KeyError, EOFError, AttributeError, NotImplementedError, zlib.error)


def save_observations(path: Path, answers: Mapping[LevelDraw, Observations]) -> None:
    """Write what a network answered on each (level, draw) of one test set, atomically. Logits are float32, as they came."""
    arrays: dict[str, np.ndarray] = {}
    for (level, draw), seen in answers.items():
        arrays |= {f"{level}|{draw}|{name}": values for name, values in {"logits": seen.logits, **fields_of(seen)}.items()}
    save_arrays(path, arrays)


class Stored(Mapping[Key, Value]):
    """What lies on disk under some keys, each read whenever it is asked for: all of a study may not fit in memory."""

    def __init__(self, keys: Iterable[Key], read: Callable[[Key], Value]) -> None:
        self._keys, self._read = dict.fromkeys(keys), read

    def __getitem__(self, key: Key) -> Value:
        if key not in self._keys:
            raise KeyError(key)
        return self._read(key)

    def __contains__(self, key: object) -> bool:  # without reading it
        return key in self._keys

    def __iter__(self) -> Iterator[Key]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


def stored_observations(path: Path) -> Stored[LevelDraw, Observations]:
    """What `save_observations` wrote, read one (level, draw) at a time. Raises RunError where the file is damaged."""
    with opened_arrays(path) as arrays:
        names = by_place(arrays.files)

    def read(place: LevelDraw) -> Observations:
        with opened_arrays(path) as arrays:
            fields = {field: arrays[name] for field, name in names[place].items()}
        return observations_of(fields["logits"], fields)

    return Stored(names, read)


def fields_of(seen: Observations) -> dict[str, np.ndarray]:
    """What is known of the images of one (level, draw), whoever answered: arrays by field."""
    factors = {f"factor:{name}": values for name, values in seen.factors.items()}
    return {"labels": seen.labels, "index": seen.index, "split": np.array(seen.split), **factors}


def observations_of(logits: np.ndarray, fields: Mapping[str, np.ndarray]) -> Observations:
    """The observations of whose `fields_of` these are."""
    factors = {name.removeprefix("factor:"): values for name, values in fields.items() if name.startswith("factor:")}
    return Observations(logits, fields["labels"], fields["index"], factors, str(fields["split"]))


def by_place(names: Iterable[str]) -> dict[LevelDraw, dict[str, str]]:
    """{(level, draw): {field: name of its array}} of names "level|draw|field"."""
    places: dict[LevelDraw, dict[str, str]] = {}
    for name in names:
        level, draw, field = name.split("|", 2)
        places.setdefault((level, int(draw)), {})[field] = name
    return places


def stored_answers(files: Mapping[str, Path]) -> Stored[tuple[str, str, int], Observations]:
    """What a network answered on several test sets, {(set, level, draw): answers}, from {set: file}."""
    sets = {name: stored_observations(path) for name, path in files.items()}
    return Stored([(name, *place) for name, stored in sets.items() for place in stored], lambda place: sets[place[0]][place[1:]])


def save_measurement(path: Path, measurement: Measurement) -> None:
    """Write what an instrument gave of one network, or why it refused it, atomically."""
    if isinstance(measurement, str):
        save_arrays(path, {"reason": np.array(measurement)})
    elif isinstance(measurement, dict):
        save_arrays(path, {f"part:{name}": values for name, values in measurement.items()})
    else:
        save_arrays(path, {"values": measurement})


def load_measurement(path: Path) -> Measurement:
    """What `save_measurement` wrote. Raises RunError where the file is damaged."""
    with opened_arrays(path) as arrays:
        if "reason" in arrays.files:
            return str(arrays["reason"])
        if "values" in arrays.files:
            return arrays["values"]
        return {name.removeprefix("part:"): arrays[name] for name in arrays.files}


def save_arrays(path: Path, arrays: Mapping[str, Any], write: Callable[..., None] = np.savez) -> None:
    """Write arrays by name, atomically; `write` is np.savez or np.savez_compressed."""
    buffer = io.BytesIO()
    write(buffer, **arrays)
    write_atomically(path, lambda file: file.write(buffer.getbuffer()))


@contextmanager
def opened_arrays(path: Path) -> Iterator[Any]:
    """The arrays of a file. Raises RunError where it is damaged, which may show only when one is read."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            yield arrays
    except DAMAGE as error:
        raise RunError(f"{path} is damaged ({error}). Delete it, and the same command makes it again.") from error
