"""Observations on disk: one `.npz` for each network and test set, every level and draw inside; torch-free."""

import io
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from crossdistill.core.errors import StudyError
from crossdistill.core.store import write_atomically
from crossdistill.core.types import Observations

LevelDraw = tuple[str, int]


def save_observations(path: Path, answers: Mapping[LevelDraw, Observations]) -> None:
    """Write what a network answered on each (level, draw) of one test set, atomically. Logits are float32, as they came."""
    arrays: dict[str, np.ndarray] = {}
    for (level, draw), seen in answers.items():
        fields = {"logits": seen.logits, "labels": seen.labels, "index": seen.index, "split": np.array(seen.split)}
        fields |= {f"factor:{name}": values for name, values in seen.factors.items()}
        arrays |= {f"{level}|{draw}|{name}": values for name, values in fields.items()}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    write_atomically(path, lambda file: file.write(buffer.getbuffer()))


def load_observations(path: Path) -> dict[LevelDraw, Observations]:
    """What `save_observations` wrote. Raises StudyError where the file is damaged."""
    found: dict[LevelDraw, dict[str, np.ndarray]] = {}
    try:
        with np.load(path, allow_pickle=False) as arrays:
            for name in arrays.files:
                level, draw, field = name.split("|", 2)
                found.setdefault((level, int(draw)), {})[field] = arrays[name]
        return {place: _observations(fields) for place, fields in found.items()}
    except (zipfile.BadZipFile, ValueError, KeyError, EOFError, AttributeError, NotImplementedError, zlib.error) as error:
        raise StudyError(f"{path} is damaged ({error}). Delete it, and the same command makes it again.") from error


def _observations(fields: Mapping[str, np.ndarray]) -> Observations:
    factors = {name.removeprefix("factor:"): values for name, values in fields.items() if name.startswith("factor:")}
    return Observations(fields["logits"], fields["labels"], fields["index"], factors, str(fields["split"]))
