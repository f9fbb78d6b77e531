"""Choose the weight of each grid before a study is planned, by a small study in the folder `weights` of its own.

What that study says is read from its records, by the keys of its trainings, so that a choice holds as long as nothing that bears on it
was changed; `weights.json` is for readers, and keeps which runs diverged.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from crossdistill.core.config import StudyConfig
from crossdistill.core.errors import StudyError
from crossdistill.core.progress import Progress
from crossdistill.core.records import RunRecord, subject
from crossdistill.core.store import read_json, write_json
from crossdistill.study.folder import PLAN_FILE, WEIGHTS_FILE, WEIGHTS_FOLDER
from crossdistill.study.grid import Choice, Tried, choosing_study, grids, in_words, weight_label, with_weights
from crossdistill.study.plan import Plan, Training, make_plan
from crossdistill.study.splits import study_splits, training_fingerprint
from crossdistill.train.sums import NOT_FINITE

FORMAT = 1
RULE = "the highest mean validation accuracy over the seeds; of equal ones the smallest weight; none with a run that diverged"

Choose = Callable[[StudyConfig, Path, frozenset[str]], Mapping[str, str]]
"""Runs the study that chooses in a folder, keeping the epochs of teachers of these keys; returns what failed (label -> reason)."""


def with_chosen_weights(config: StudyConfig, out: Path, choose: Choose, *, device: torch.device, progress: Progress) -> StudyConfig:
    """The study with one number in the place of each grid. What chooses it is run where it is not done; writes `weights.json`.

    Raises StudyError where a training failed for another reason than its weight, or every weight of a grid did.
    """
    if not config.has_grids:
        return config
    choosing = Choosing.of(config, out, device, progress)
    failures: Mapping[str, str] = {}
    if not choosing.is_done():
        progress.line(f"weights are chosen first, on validation images, in {choosing.folder}: {in_words(grids(config))}")
        failures = choose(choosing.study, choosing.folder, choosing.wanted_epochs)
    choices = choosing.choices(failures)
    seeds = list(choosing.study.seeds)
    write_json(out / WEIGHTS_FILE, {"format": FORMAT, "rule": RULE, "seeds": seeds, "choices": [choice.plain() for choice in choices]})
    for choice in choices:
        if choice.chosen is None:
            why = next(one.failed for tried in choice.tried.values() for one in tried if one.failed)
            raise StudyError(
                f"no weight of {choice.subject} can be chosen: of every one of {', '.join(f'{w:g}' for w in choice.tried)} a student "
                f"failed, the first since {why}. Give smaller weights, lower `learning_rate`, set `clip_norm`, or use `precision: fp32`."
            )
        progress.line(choice.in_words())
    return with_weights(config, {choice.subject: choice.chosen for choice in choices if choice.chosen is not None})


def known_choices(config: StudyConfig, out: Path, *, device: torch.device, progress: Progress) -> list[Choice] | None:
    """The choices, as far as they stand in the study's folder already; None where a training is left. Nothing is written."""
    choosing = Choosing.of(config, out, device, progress)
    choices = choosing.choices({}) if choosing.is_done() else []
    return choices if choices and all(choice.chosen is not None for choice in choices) else None


@dataclass(frozen=True)
class Choosing:
    """The choosing of a study's weights: the study that does so, its plan, and what stands of it on disk."""

    config: StudyConfig  # the one with the grids
    out: Path  # and its folder
    study: StudyConfig
    plan: Plan
    wanted_epochs: frozenset[str]  # keys of teachers whose epochs the study itself will ask for

    @classmethod
    def of(cls, config: StudyConfig, out: Path, device: torch.device, progress: Progress) -> "Choosing":
        study = choosing_study(config)
        images = training_fingerprint(study_splits(study, progress))
        main = make_plan(with_weights(config, {}), images, device)
        return cls(config, out, study, make_plan(study, images, device), main.keeps_epochs)

    @property
    def folder(self) -> Path:
        return self.out / WEIGHTS_FOLDER

    def is_done(self) -> bool:
        """Whether every student has an accuracy, or is known to have diverged."""
        diverged = self._diverged()
        return all(self._record(training) or training.run in diverged for training in self.plan.students)

    def choices(self, failures: Mapping[str, str]) -> list[Choice]:
        """What each weight gave. `failures` are those of the study that chooses, where it was run just now (label -> reason)."""
        students = {training.label for training in self.plan.students}
        for label, reason in failures.items():
            if label not in students or NOT_FINITE not in reason:
                raise StudyError(
                    f"no weight can be chosen, since a training failed: {label}: {reason.removeprefix(f'{label}: ')} "
                    "Mend that, and the same command goes on from what is done."
                )
        diverged, found = self._diverged(), []
        left_out = read_json(self.folder / PLAN_FILE)["left_out"] if (self.folder / PLAN_FILE).exists() else {}
        for pair in self.config.pairs:
            for method in (method for method in pair.methods if method.grid):
                tried = {}
                for weight in method.grid:
                    name = subject(weight_label(method.arm, weight), pair.teacher, pair.student)
                    trainings = [training for training in self.plan.students if training.subject == name]
                    tried[weight] = tuple(self._tried(training, failures, diverged, left_out) for training in trainings)
                found.append(Choice(pair.teacher, pair.student, method.arm, tried))
        return found

    def _tried(
        self, training: Training, failures: Mapping[str, str], diverged: Mapping[str, str], left_out: Mapping[str, str]
    ) -> Tried:  # fmt: skip
        if record := self._record(training):
            accuracy = record.estimates["validation_accuracy"]
            return Tried(training.seed, training.run, accuracy.value, accuracy.n, accuracy.reason if accuracy.value is None else None)
        reason = failures.get(training.label, "").removeprefix(f"{training.label}: ").partition(". ")[0]  # what follows names a folder
        known = reason or diverged.get(training.run) or left_out.get(training.subject)
        if known is None:
            raise StudyError(
                f"{training.label} was not trained in {self.folder}, so that no weight can be chosen: give the same command again"
            )
        return Tried(training.seed, training.run, None, failed=known)

    def _record(self, training: Training) -> RunRecord | None:
        folder = self.folder / "runs" / training.run
        return RunRecord.load(folder) if (folder / "record.json").exists() else None

    def _diverged(self) -> dict[str, str]:
        """{run: why} of the runs that a choice made before found to diverge: they would do so again."""
        path = self.out / WEIGHTS_FILE
        choices = read_json(path).get("choices", ()) if path.exists() else ()
        rows = [run for choice in choices for weight in choice["weights"] for run in weight["runs"]]
        return {row["run"]: row["failed"] for row in rows if row["failed"] and NOT_FINITE in row["failed"]}
