"""Exporting: find the network, write it, load what was written and compare, time it beside its teacher, and write the card."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from crossdistill.core.errors import unknown_name
from crossdistill.core.store import cache_folder, file_sha256, write_json, write_text
from crossdistill.export.card import card_text, hub_card
from crossdistill.export.folder import ABOUT, filled_aside
from crossdistill.export.latency import measured_costs
from crossdistill.export.native import write_native
from crossdistill.export.onnx_file import FILE as ONNX_FILE
from crossdistill.export.onnx_file import check_installed, write_onnx
from crossdistill.export.program import TOLERANCE, differences
from crossdistill.export.student import Student, find_student, find_teacher
from crossdistill.export.written import Written
from crossdistill.study.environment import software

FORMAT = 1
LATENCY, CARD = "latency.json", "README.md"

Writer = Callable[[Student, Path], Written]

FORMATS: Mapping[str, Writer] = {"safetensors": write_native, "onnx": write_onnx, "huggingface": write_native}


@dataclass(frozen=True)
class Exported:
    """What an export left: `code` loads it, `differences` are those of the logits by batch size, `costs` what latency.json holds."""

    folder: Path
    code: str
    differences: Mapping[str, float]
    costs: Mapping[str, Any] | None


def export_student(
    run: Path, format: str, out: Path, *, store: Path | None = None, latency: bool = True, device: torch.device | None = None
) -> Exported:  # fmt: skip
    """Write the network of a run's folder, or of a file of crossdistill's, to the folder `out`; whole or not at all.

    `format` is "safetensors" (weights for the network's own library, or a torch.export program), "onnx", or "huggingface" (as
    safetensors, with the front matter of a model card). What was written is loaded and compared with the network. `latency`: also time
    student and teacher on `device` (default: the CPU). Raises UnknownNameError for another format, StudyError and WeightsError for
    what cannot be read, written or trusted.
    """
    if format not in FORMATS:
        raise unknown_name("export format", format, FORMATS)
    if format == "onnx":
        check_installed()
    store = store or cache_folder()
    student = find_student(run, store)
    with filled_aside(out, student.sha256) as folder:
        written = FORMATS[format](student, folder)
        found = differences(student.network, student.size, torch.no_grad()(written.answers), what=f"the {format} export")
        onnx = folder / ONNX_FILE if (folder / ONNX_FILE).exists() else None
        costs = measured_costs(student, find_teacher(student, store), onnx, device or torch.device("cpu")) if latency else None
        if costs is not None:
            write_json(folder / LATENCY, costs)
        text = card_text(student, written, found, costs)
        write_text(folder / CARD, hub_card(student, written, text) if format == "huggingface" else text)
        write_json(folder / ABOUT, _about(student, format, written, found, folder))
    return Exported(out, written.code.replace("FOLDER", str(out)), found, costs)


def _about(student: Student, format: str, written: Written, found: Mapping[str, float], folder: Path) -> dict[str, Any]:
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {
        "format": FORMAT,
        "export": format,
        "library": written.library,
        "run": student.run,
        "weights": student.sha256,
        "class_names": list(student.class_names),
        "image_size": list(student.size),
        "load": written.code,
        "largest_difference": dict(found),
        "tolerance": f"{TOLERANCE:g} of the largest logit, or of 1 where that is smaller",
        "files": {name: file_sha256(folder / name) for name in files},
        "software": software(),
    }
