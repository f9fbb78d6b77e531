"""The network to take away: its weights, its record, the study around it, and the teacher that taught it."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from crossdistill.core.errors import CrossdistillError, StudyError, WeightsError
from crossdistill.core.records import EARLIER_TEACHER, RunRecord
from crossdistill.core.store import file_sha256
from crossdistill.models._build import load_network, saved_description
from crossdistill.ops.network import Network
from crossdistill.report.study_files import StudyFiles, read_study
from crossdistill.study.workshop import weights_file


@dataclass(frozen=True)
class Student:
    """A network that crossdistill made, with what is known of it. Without a record there is no study either."""

    network: Network
    weights: Path
    sha256: str  # of the weights file
    class_names: tuple[str, ...]
    size: tuple[int, int]  # (height, width) in pixels of the images as they come, before the network resizes them
    record: RunRecord | None = None
    study: StudyFiles | None = None

    @property
    def run(self) -> str:
        """What names the network: the run, or the file where there is no record."""
        return self.record.run if self.record else self.weights.stem

    @property
    def label(self) -> str:
        """The network in words: "kd: vit -> cnn, seed 0"."""
        return self.record.label if self.record else f"{self.network.model_name}, from {self.weights.name}"

    @cached_property
    def study_settings(self) -> dict[str, Any]:
        """The resolved study file; empty where there is no study."""
        return (yaml.safe_load(self.study.study_text) or {}) if self.study else {}


def find_student(path: Path, store: Path) -> Student:
    """The network of a run's folder (weights of teachers lie in the `store`) or of a .safetensors file, on the CPU in eval mode.

    Raises StudyError where the folder holds no finished run, WeightsError for weights that are missing or others than the record names.
    """
    path = Path(path)
    if path.name == "network.safetensors" and (path.parent / "record.json").exists():
        path = path.parent
    if path.is_dir():
        return _of_run(path, store)
    if not path.exists():
        raise WeightsError(f"there is no {path}: give a run's folder (STUDY/runs/ARM-KEY) or a .safetensors file of one of its networks")
    description = saved_description(path)
    if description is None:
        raise WeightsError(f"{path} was not made by crossdistill: give a run's folder (STUDY/runs/ARM-KEY) or a file of its networks")
    network = load_network(path).eval()
    return Student(network, path, file_sha256(path), tuple(description["class_names"]), network.input_size)


def _of_run(folder: Path, store: Path) -> Student:
    if not (folder / "record.json").exists():
        raise StudyError(f"{folder} holds no finished run (no record.json): give a folder of STUDY/runs, or a .safetensors file")
    record = RunRecord.load(folder)
    weights = folder / "network.safetensors"
    if not weights.exists() and record.arm in ("teacher", EARLIER_TEACHER):
        weights = stored_weights(store, record.run)
    if not weights.exists():
        raise WeightsError(f"the weights of {record.label} are not at {weights}: name the --store that the study used, or train it again")
    sha256 = file_sha256(weights)
    if record.arm != EARLIER_TEACHER and record.weights not in (None, sha256):
        raise WeightsError(f"{weights} is not the file that {record.label} left, as its record tells: it was replaced or damaged")
    network = load_network(weights).eval()
    study = _study_around(folder)
    height, width = (study.plan.get("images", {}).get("size") if study else None) or network.input_size
    names = (saved_description(weights) or {}).get("class_names", ())
    return Student(network, weights, sha256, tuple(names), (height, width), record, study)


def _study_around(folder: Path) -> StudyFiles | None:
    """The study whose run this folder is; None for a teacher's folder in the store."""
    around = folder.resolve().parent.parent
    return read_study(around) if (around / "plan.json").exists() else None


def stored_weights(store: Path, run: str) -> Path:
    """Where a store keeps the weights of a teacher's run, which may be named with the epoch after which it taught."""
    name, _, epoch = run.partition("@epoch-")
    return weights_file(store / "teachers" / name, int(epoch) if epoch else None)


@dataclass(frozen=True)
class Teacher:
    """The network that taught a student; `missing` says why it is not at hand, where it is not."""

    network: Network | None
    weights: Path | None
    missing: str = ""


def find_teacher(student: Student, store: Path) -> Teacher:
    """The teacher's network, in eval mode, found through the student's record; it may be gone, since stores are emptied."""
    if student.record is None:
        return Teacher(None, None, "no record stands beside the file, so its teacher is not known")
    if student.record.teacher_run is None:
        return Teacher(None, None, "nobody taught this network")
    weights = stored_weights(store, student.record.teacher_run)
    if not weights.exists():
        gone = f"the store {store} does not hold the weights of {student.record.teacher_run}: name the --store of the study"
        return Teacher(None, None, gone)
    try:
        return Teacher(load_network(weights).eval(), weights)
    except CrossdistillError as error:  # a module that was handed over in Python, somebody's own code that is not here, a damaged file
        return Teacher(None, None, f"it cannot be built here ({str(error).rstrip('.')})")
