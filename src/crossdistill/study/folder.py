"""The study folder: claimed by one driver, for one study."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from crossdistill.core.config import StudyConfig
from crossdistill.core.errors import StudyError
from crossdistill.core.store import locked, write_json, write_text

STUDY_FILE, PLAN_FILE = "study.yaml", "plan.json"


@contextlib.contextmanager
def claimed(folder: Path, config: StudyConfig) -> Iterator[None]:
    """Hold `folder` for this study; refuses a folder in use, one that holds another study, and one that cannot be written."""
    refusal = (
        f"another crossdistill is working in {folder}: wait for it, or choose another --out folder. "
        f"`crossdistill study status {folder}` shows how far it is."
    )
    with locked(folder, refusal):
        _refuse_another_study(folder, config)
        yield


def _refuse_another_study(folder: Path, config: StudyConfig) -> None:
    """A folder belongs to a study's name and images; seeds, probes, methods and settings may be added to it."""
    path = folder / STUDY_FILE
    if path.exists():
        before = yaml.safe_load(path.read_text(encoding="utf-8"))
        now = resolved(config)
        for field in ("name", "images"):
            if before.get(field) != now[field]:
                raise StudyError(
                    f"{folder} holds another study ({field}: {before.get(field)}, not {now[field]}): choose another --out folder"
                )
    elif any(child.name != ".lock" for child in folder.iterdir()):
        raise StudyError(f"{folder} is not empty and holds no study: choose a new or empty --out folder")


def resolved(config: StudyConfig) -> dict[str, Any]:
    """The study with every default written out, in the form of a study file."""

    def flat(value: Any) -> Any:
        if isinstance(value, dict):
            inner = {name: flat(item) for name, item in value.items() if name != "settings"}
            return {**inner, **flat(value.get("settings", {}))} if "settings" in value else inner
        return [flat(item) for item in value] if isinstance(value, list | tuple) else value

    return flat({**config.model_dump(mode="json"), "primary": [contrast.model_dump() for contrast in config.contrasts]})


def stamp(folder: Path, config: StudyConfig, plan: dict[str, Any]) -> None:
    """Write the resolved study file and the plan, before anything is trained."""
    write_text(folder / STUDY_FILE, yaml.safe_dump(resolved(config), sort_keys=False, allow_unicode=True))
    write_json(folder / PLAN_FILE, plan)
