"""What is known of the licences of images and weights, and the study file as it may be shown to others. Nothing is made up."""

from collections.abc import Mapping
from pathlib import PurePath, PurePosixPath, PureWindowsPath
from typing import Any

import yaml

from crossdistill.export.student import Student

NOT_RECORDED = "not recorded"


def licences(student: Student) -> list[str]:
    """What is known of the licences of images and weights, in sentences."""
    settings = student.study_settings
    if not settings:
        return [f"Images and pretrained weights: {NOT_RECORDED}; ask who gave you the file."]
    networks = settings.get("networks", {})
    record = student.record
    names = dict.fromkeys(name for name in (record.student, record.teacher) if name) if record else {}
    return [_image_licence(settings.get("images", {})), *(_weights_licence(name, networks.get(name) or {}) for name in names)]


def _image_licence(images: Mapping[str, Any]) -> str:
    source = images.get("source", "unknown")
    if source == "trifeature":
        return "Images: drawn by crossdistill itself (source trifeature); nobody else's pictures are among them."
    return f"Images (source {source}): licence {NOT_RECORDED}; ask who gave you the images."


def _weights_licence(name: str, chosen: Mapping[str, Any]) -> str:
    model = str(chosen.get("model") or "")
    if chosen.get("checkpoint"):
        return f"Weights of {name}: begun from a checkpoint file, licence {NOT_RECORDED}; ask who made it."
    if not chosen.get("pretrained"):
        return f"Weights of {name} ({model}): trained from scratch on these images."
    return f"Weights of {name}: begun from the published {model}, licence {_published_licence(model) or NOT_RECORDED}."


def _published_licence(model: str) -> str | None:
    """What timm records of its weights; the other sources record nothing that could be read without the network."""
    source, _, name = model.partition("/")
    if source != "timm":
        return None
    from timm.models import get_pretrained_cfg

    published = get_pretrained_cfg(name)
    found = getattr(published, "license", None)
    return f"{found}, as timm records it" if found else None


def study_file(student: Student) -> str:
    """The resolved study file, without the folders of the machine that ran it; empty where there is no study."""
    if not student.study_settings:
        return ""
    return yaml.safe_dump(_without_folders(student.study_settings), sort_keys=False, allow_unicode=True)


def _without_folders(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_folders(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_without_folders(item) for item in value]
    if isinstance(value, str) and (path := _absolute(value)):
        return path.name or value
    return value


def _absolute(text: str) -> PurePath | None:
    return next((path for path in (PurePosixPath(text), PureWindowsPath(text)) if path.is_absolute()), None)
