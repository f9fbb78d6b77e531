"""`crossdistill.distill`: one teacher, one student, one method, from Python."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from crossdistill.core.config import StudyConfig
from crossdistill.core.errors import SettingError, StudyError, WeightsError
from crossdistill.core.progress import Progress
from crossdistill.core.store import cache_folder, digest
from crossdistill.notebook.images import source_of, training_images
from crossdistill.notebook.networks import is_handed_over, label_of, student_entry, teacher_entry
from crossdistill.notebook.progress import session_progress
from crossdistill.notebook.results import Distilled
from crossdistill.notebook.session import session_kept
from crossdistill.study.environment import chosen_device
from crossdistill.study.execute import run_study
from crossdistill.study.launch import device_count
from crossdistill.study.single import single_study

RESULTS = Path("crossdistill-results")
"""Where results go that nobody gave a folder, seen from the current folder."""


def distill(
    teacher: Any, student: Any, images: Any, *, method: str | Mapping[str, Any] = "kd", epochs: int = 30,
    seeds: int | Sequence[int] = 1, probes: Sequence[str | Mapping[str, Any]] | None = None, training: Mapping[str, Any] = {},
    pretrained: bool = False, class_names: Sequence[str] | None = None, out: str | Path | None = None,
    store: str | Path | None = None, device: str = "auto", quiet: bool = False, **study: Any,
) -> Distilled:  # fmt: skip
    """Teach `student` by `teacher`, beside the same student without a teacher, and measure what it took over.

    A network is a model's name ("timm/resnet18", "small/vit"), a .safetensors file, an entry of a study file such as {"model":
    "small/vit", "patch": 8}, a torch.nn.Module, or a function that builds one; `Preprocessed` says what images a module takes, which
    are in [0, 1] otherwise. A teacher given as a module teaches as it is; by name it is trained first, from published weights where
    `pretrained`. A student given as a module starts from its present weights in every run, one given as a function from those that
    the function draws for the run. Modules are copied: yours stay as they are, and the trained one is `result.student`.

    `images` are a source's name ("cifar10", "folder:photos"), a pair (uint8 [images, 3, height, width], labels), a data set of torch
    or torchvision, or {"train": ..., "test": ...} of these. `method` is a name or {"name": "kd", "temperature": 2}; `seeds` a number
    of runs or their seeds (5 or more allow a verdict); `training`, `probes` and anything else (arms, observe, ...) are as in a study
    file. Everything stands in the folder `out` (by default one below ./crossdistill-results), where the same call finds what is done
    and goes on after an interruption. Raises CrossdistillError, with what to do, for what cannot be done.
    """
    progress, shared = session_progress(quiet=quiet), Path(store) if store else cache_folder()
    with session_kept(), source_of(images, class_names, progress) as source:
        shown = training_images(source, progress)
        entries = {
            "teacher": teacher_entry(teacher, shown, shared, pretrained=pretrained),
            "student": student_entry(student, shown),
            "images": source,
            "method": method,
            **study,
        }
        training = {"epochs": epochs, **training}
        folder = Path(out) if out else _own_folder(teacher, student, [entries, training])
        runs = range(seeds) if isinstance(seeds, int) else seeds
        config = single_study(**entries, training=training, seeds=runs, probes=probes, name=folder.resolve().name, told_by="distill")
        _refuse_devices(config)
        progress.line(f"results go to {folder.resolve()}")
        with _explained(teacher, progress):
            outcome = run_study(config, folder, store=shared, device=chosen_device(device), progress=progress)
    result = Distilled(folder)
    if not result.records:
        raise StudyError("no student was trained: " + "; ".join(f"{label}: {reason}" for label, reason in outcome.failures.items()))
    return result


def _own_folder(teacher: Any, student: Any, entries: Sequence[Any]) -> Path:
    """The same for the same networks, images, method and recipe; seeds and probes may be added to what is there."""
    method = entries[0]["method"]
    names = [label_of(teacher), label_of(student), method if isinstance(method, str) else method.get("label") or method.get("name")]
    return RESULTS / "-".join(re.sub(r"[^\w.]+", "-", str(name), flags=re.ASCII)[:40] for name in (*names, digest(entries)[:8]))


def _refuse_devices(config: StudyConfig) -> None:
    if device_count(config) > 1:
        raise SettingError("several devices need processes of their own: set `devices` in a study file and start `crossdistill study run`")


@contextmanager
def _explained(teacher: Any, progress: Progress) -> Iterator[None]:
    """In this block, errors and interruptions that a session has its own remedy for are told with it."""
    try:
        yield
    except WeightsError as error:
        if not is_handed_over(teacher):
            raise
        raise WeightsError(
            f"{error} The file is a copy of the teacher that was handed over. If the order of its classes is right, give its own "
            "normalisation: crossdistill.Preprocessed(teacher, mean=..., std=..., input_size=...)."
        ) from error
    except KeyboardInterrupt:
        progress.line("interrupted: what was done is saved, the same call goes on from there")
        raise
