"""What every task of a study shares, and where each task works."""

import contextlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from crossdistill.core.config import StudyConfig
from crossdistill.core.errors import RunError
from crossdistill.core.progress import Progress
from crossdistill.core.published import published
from crossdistill.core.records import RunRecord
from crossdistill.core.store import digest
from crossdistill.core.types import ImageSet, Splits
from crossdistill.probes._build import ProbeSet
from crossdistill.study.answer_plans import AnswerPlan
from crossdistill.study.plan import Training, WarmUpTask
from crossdistill.study.splits import named


@dataclass
class Workshop:
    """What every task of a study shares."""

    config: StudyConfig
    splits: Splits
    out: Path
    store: Path
    device: torch.device
    progress: Progress
    probed_rows: np.ndarray  # of the test split
    probe_sets: Mapping[str, ProbeSet] = field(default_factory=dict)
    answers: Mapping[str, AnswerPlan] = field(default_factory=dict)  # by the label of each student with a teacher
    keeps_epochs: frozenset[str] = frozenset()  # keys of the teachers that may have to teach with an earlier epoch's weights
    wanted: frozenset[str] = frozenset()  # runs whose weights are read by what is left to do: their records alone do not finish them
    anew: frozenset[str] = frozenset()  # runs that are observed anew, whatever decisions of theirs were published

    @property
    def observation_files(self) -> dict[str, str]:
        """{test set: file name}, the same for every network; a file's name says which images were seen."""
        rows = digest(self.probed_rows.tolist())
        files = {name: "-".join([name, *_fingerprint(images)]) + ".npz" for name, images in self.splits.extra.items()}
        files = {"clean": self._clean_file, **files}
        return files | {name: f"{probe_set.folder.name}-{rows}.npz" for name, probe_set in self.probe_sets.items()}

    @cached_property
    def _clean_file(self) -> str:  # asked for with every training, and made of all ids
        return f"clean-{named(self.splits.test)}.npz"

    @property
    def images_shown(self) -> dict[str, int]:
        """{test set: how many images of it every network is shown, over all levels and draws}, at most: a probe may leave some out."""
        shown = {"clean": len(self.splits.test)} | {name: len(images) for name, images in self.splits.extra.items()}
        return shown | {name: len(found.levels) * found.draws * len(self.probed_rows) for name, found in self.probe_sets.items()}

    def folder(self, task: Training | WarmUpTask) -> Path:
        """Where a task works and leaves its weights: teachers and warm-ups in the store, which studies share."""
        if isinstance(task, WarmUpTask):
            return self.store / "warm_ups" / task.run
        return (self.store / "teachers" if task.arm == "teacher" else self.out / "runs") / task.run

    def weights(self, training: Training, epoch: int | None = None) -> Path:
        """The file of a finished training's weights, or of those after an epoch (from 1), where epochs are kept."""
        return weights_file(self.folder(training), epoch)

    def record(self, training: Training) -> RunRecord:
        """The record of a finished training: the one beside its weights, or that of the study's own folder where these are not here."""
        folder = self.folder(training)
        return RunRecord.load(folder if (folder / "record.json").exists() else self.out / "runs" / training.run)

    def finished(self, training: Training) -> bool:
        """Whether a training's record is there; where its weights are wanted, these as well, of every epoch that may be wanted."""
        if self.outdated(training):
            return False
        whole = finished(self.folder(training), keeps_epochs=training.key in self.keeps_epochs)
        if training.run in self.wanted:
            return whole and self.weights(training).exists()
        return whole or (self.out / "runs" / training.run / "record.json").exists()

    def outdated(self, training: Training) -> bool:
        """Whether a teacher that a student depends on has other weights by now: trained again where a machine computes otherwise."""
        known = recorded(self.out, training.run)
        now = {run: recorded(self.out, run) for run in known.teacher_weights} if known else {}
        return any(teacher is not None and teacher.weights != known.teacher_weights[run] for run, teacher in now.items() if known)

    def published(self, run: str) -> Collection[str]:
        """The names of the observations and measurements for which published decisions stand; none where a run's weights are here."""
        if run.partition("@")[0] in self.anew or weights_file(self.out / "runs" / run).exists():
            return ()
        told = published(self.out, run)
        return told.files if told else ()


def _fingerprint(images: ImageSet) -> list[str]:
    """What names the content of an extra set that does not come with the source, whose key names all of its own."""
    return [images.provenance["fingerprint"]] if "fingerprint" in images.provenance else []


def recorded(out: Path, run: str) -> RunRecord | None:
    """The record of a run in a study's folder; None where there is none that can be read: whoever needs it says what is damaged."""
    with contextlib.suppress(RunError, FileNotFoundError):
        return RunRecord.load(out / "runs" / run)
    return None


def weights_file(folder: Path, epoch: int | None = None) -> Path:
    return folder / "network.safetensors" if epoch is None else folder / "epochs" / f"epoch-{epoch:03d}.safetensors"


def finished(folder: Path, *, keeps_epochs: bool) -> bool:
    """Whether a training is finished; without the weights of its epochs, where those are wanted, its bytes are made once more."""
    if not (folder / "record.json").exists():
        return False
    try:
        return not keeps_epochs or all(weights_file(folder, row.epoch).exists() for row in RunRecord.load(folder).history)
    except RunError:
        return True  # whoever reads the record says what is damaged
