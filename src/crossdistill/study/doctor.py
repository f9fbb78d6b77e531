"""What this machine has, and what is missing."""

import importlib.util
import shutil
from pathlib import Path

import torch

from crossdistill.core.store import cache_folder
from crossdistill.study.environment import hardware, software
from crossdistill.train.precision import resolved_precision

EXTRAS = {
    "hf": ("transformers", "datasets"), "opencv": ("cv2",), "corruptions": ("imagecorruptions",), "ray": ("ray",),
    "tensorboard": ("tensorboard",), "onnx": ("onnx", "onnxscript", "onnxruntime"),
}  # fmt: skip
"""Each extra with the modules that it brings."""


def diagnosis() -> dict[str, str]:
    """Versions, devices, threads, cache folder and sizes, and for each missing extra the command that installs it."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    cache = cache_folder()
    facts = {**software(), **hardware(device), "torch threads": str(torch.get_num_threads())}
    facts["precision auto"] = resolved_precision("auto", device)
    facts["cache folder"] = f"{cache} ({_megabytes(cache):,.0f} MB used, {_free(cache):,.0f} GB free)"
    for extra, modules in EXTRAS.items():  # none is imported: that would take seconds
        missing = [name for name in modules if importlib.util.find_spec(name) is None]
        facts[f"extra {extra}"] = f"missing {', '.join(missing)}: pip install 'crossdistill[{extra}]'" if missing else "installed"
    return facts


def _megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6 if folder.is_dir() else 0.0


def _free(folder: Path) -> float:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    return shutil.disk_usage(existing).free / 1e9
