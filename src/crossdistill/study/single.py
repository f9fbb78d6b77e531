"""One teacher, one student, one method, without a study file: the study that `crossdistill distill` runs."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from crossdistill.core.config import StudyConfig
from crossdistill.core.errors import CrossdistillError
from crossdistill.core.study_file import parse_study
from crossdistill.images._splits import parse_source


def single_study(
    teacher: str | Mapping[str, Any], student: str | Mapping[str, Any], images: str | Mapping[str, Any], *,
    method: str | Mapping[str, Any], seeds: Sequence[int], pretrained: bool = False, name: str = "distill",
    told_by: str = "the command line", **entries: Any,
) -> StudyConfig:  # fmt: skip
    """The study of one pair with every default that `entries`, further entries of a study file, do not set (None: not set).

    A teacher that ends in .safetensors is a finished checkpoint; networks and images may also be what stands in a study file.
    Raises SettingError for what a study file would be refused for.
    """
    if isinstance(images, str):
        source, settings = parse_source(images)
        images = {"source": source, **settings}
    if isinstance(teacher, str):
        teacher = {"checkpoint": teacher} if teacher.endswith(".safetensors") else {"model": teacher, "pretrained": pretrained}
    study = {
        "name": name,
        "images": images,
        "networks": {"teacher": teacher, "student": {"model": student} if isinstance(student, str) else student},
        "pairs": [{"teacher": "teacher", "student": "student", "methods": [method]}],
        "seeds": list(seeds),
        **{entry: value for entry, value in entries.items() if value is not None},
    }
    try:
        return parse_study(json.dumps(study, default=_plain), source=told_by)  # JSON is YAML: one set of checks for both
    except CrossdistillError as error:
        raise type(error)(str(error).replace(f"{told_by}, line 1: ", f"{told_by}: ", 1)) from error  # there are no lines


def _plain(value: Any) -> Any:
    """What JSON does not know: another sequence (an array, a range) as a list, anything else (a path) as text."""
    return value.tolist() if hasattr(value, "tolist") else list(value) if isinstance(value, Sequence) else str(value)
