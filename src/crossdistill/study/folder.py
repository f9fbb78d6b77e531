"""The study folder: claimed by one driver, for one study."""

import contextlib
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from crossdistill.core.config import ContrastConfig, StudyConfig
from crossdistill.core.errors import StudyError
from crossdistill.core.store import locked, read_json, write_json, write_text

STUDY_FILE, PLAN_FILE, FAILURES_FILE = "study.yaml", "plan.json", "failures.json"
WEIGHTS_FOLDER, WEIGHTS_FILE = "weights", "weights.json"  # of grids: what chooses one weight of each, and what was chosen
OF_NO_STUDY = (WEIGHTS_FOLDER, WEIGHTS_FILE, "runs", "decisions")  # a grid chooses before the study is written down; the others' runs
DRIVER_FILE = ".driver.json"  # hidden: it says where a study was run, and nothing of its results


@dataclass(frozen=True)
class Driver:
    """The process that ran a study last: on which machine, with which store, and by which executor."""

    host: str
    store: Path
    executor: str

    @property
    def is_here(self) -> bool:
        """Whether it ran on this machine."""
        return self.host == socket.gethostname()


@contextlib.contextmanager
def claimed(folder: Path, config: StudyConfig) -> Iterator[None]:
    """Hold `folder` for this study; refuses a folder in use, one that holds another study, and one that cannot be written."""
    refusal = (
        f"another crossdistill is working in {folder}: wait for it, or choose another --out folder. "
        f"`crossdistill study status {folder}` shows how far it is."
    )
    with locked(folder, refusal):
        refuse_another_study(folder, config)
        yield


def refuse_another_study(folder: Path, config: StudyConfig) -> None:
    """A folder belongs to a study's name and images; seeds, probes, methods and settings may be added to it."""
    path = folder / STUDY_FILE
    if path.exists():
        before = yaml.safe_load(path.read_text(encoding="utf-8"))
        now = resolved(config)
        before["images"], now["images"] = _said(before.get("images") or {}), _said(now["images"])
        for field in ("name", "images"):
            if before.get(field) != now[field]:
                raise StudyError(
                    f"{folder} holds another study ({field}: {before.get(field)}, not {now[field]}): choose another --out folder"
                )
    elif any(not child.name.startswith(".") and child.name not in OF_NO_STUDY for child in folder.iterdir()):  # hidden: locks
        raise StudyError(f"{folder} is not empty and holds no study: choose a new or empty --out folder")


def _said(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is not set: a setting that came later is not in older files."""
    return {name: value for name, value in settings.items() if value is not None}


def declared_contrasts(folder: Path, config: StudyConfig) -> tuple[ContrastConfig, ...]:
    """The primary contrasts: those of the study file, until a student is finished; from then on those that stood in plan.json.

    A plan.json that names no arm was stamped when all contrasts were against the independents. Raises StudyError where the study
    file now declares others: what was seen cannot be declared in advance.
    """
    path = folder / PLAN_FILE
    students = [task["run"] for task in read_json(path)["tasks"] if task["kind"] == "student"] if path.exists() else []
    if not any((folder / "runs" / run / "record.json").exists() for run in students):
        return config.contrasts
    stamped = tuple(ContrastConfig.model_validate({"against": "independent"} | contrast) for contrast in read_json(path)["primary"])
    methods = {(i, method.arm) for i, pair in enumerate(config.pairs) for method in pair.methods}
    arms = {"independent", *config.arms}
    gone = any((contrast.pair, contrast.method) not in methods or contrast.against not in arms for contrast in stamped)
    if gone or not _stand(config.primary, stamped):
        raise StudyError(
            f"students of {folder} are finished already, so its `primary` contrasts stand: {'; '.join(map(str, stamped)) or 'none'}. "
            "To declare others, or to drop their methods or arms, choose another --out folder."
        )
    return stamped


def _stand(declared: Sequence[ContrastConfig] | None, stamped: Sequence[ContrastConfig]) -> bool:
    """Whether a study file declares what was stamped; where it names no arm, the stamped one stands."""
    if declared is None:
        return True
    named = [
        contrast if contrast.against else contrast.model_copy(update={"against": before.against})
        for contrast, before in zip(declared, stamped, strict=False)
    ]
    return len(declared) == len(stamped) and named == list(stamped)


def read_failures(folder: Path) -> dict[str, str]:
    """What failed at the last call: label -> reason."""
    path = folder / FAILURES_FILE
    return {row["task"]: row["message"] for row in read_json(path)} if path.exists() else {}


def write_failures(folder: Path, failures: Mapping[str, str]) -> None:
    """Write down what failed, for the page and for `study status`."""
    write_json(folder / FAILURES_FILE, [{"task": label, "message": reason} for label, reason in failures.items()])


def write_driver(folder: Path, store: Path, executor: str) -> None:
    """Note that a process of this machine runs the study with this store, for `study status`."""
    write_json(folder / DRIVER_FILE, {"host": socket.gethostname(), "store": str(store.absolute()), "executor": executor})


def read_driver(folder: Path) -> Driver | None:
    """Who ran the study last; None where that was not noted."""
    path = folder / DRIVER_FILE
    if not path.exists():
        return None
    noted = read_json(path)
    return Driver(noted["host"], Path(noted["store"]), noted.get("executor", "local"))


def resolved(config: StudyConfig) -> dict[str, Any]:
    """The study with every default written out, in the form of a study file."""

    def flat(value: Any) -> Any:
        if isinstance(value, dict):
            inner = {name: flat(item) for name, item in value.items() if name != "settings"}
            return {**inner, **flat(value.get("settings", {}))} if "settings" in value else inner
        return [flat(item) for item in value] if isinstance(value, list | tuple) else value

    return flat({**config.model_dump(mode="json")})


def stamp(folder: Path, config: StudyConfig, plan: dict[str, Any]) -> None:
    """Write the resolved study file and the plan, before anything is trained."""
    write_text(folder / STUDY_FILE, yaml.safe_dump(resolved(config), sort_keys=False, allow_unicode=True))
    write_json(folder / PLAN_FILE, plan)
