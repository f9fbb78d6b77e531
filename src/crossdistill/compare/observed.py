"""What was observed of each run, and its answers lined up by image: draws stacked, sets paired by index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from crossdistill.core.records import Against, RunRecord
from crossdistill.core.types import UNLABELLED, Observations

CLEAN = ("clean", "", 0)
AVERAGE = "auc"
"""The level that stands for the mean over all levels of a probe."""


@dataclass(frozen=True)
class ObservedRun:
    """A trained network's record, and what it answered: (probe, level name, draw) -> Observations; clean is ("clean", "", 0).

    `probed` are the rows of the clean images that were to be probed; None: those that any probe kept. `measured` is what
    instruments gave on some of the clean images, the same for every network: {instrument: array or {name: array}}.
    """

    record: RunRecord
    observations: Mapping[tuple[str, str, int], Observations]
    probed: np.ndarray | None = None
    measured: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Pair:
    """A teacher and a student, by their names in the study file, and the labels of the methods that join them."""

    index: int
    teacher: str
    student: str
    methods: tuple[str, ...]
    control_teacher: str | None = None  # the network of the student's own family that teaches the arm of that name
    changed: frozenset[str] = frozenset()  # methods that change the student or its images: read against their twin
    no_control: Mapping[str, str] = field(default_factory=dict)  # methods that no control teacher can teach, with the reason


@dataclass(frozen=True)
class Contrast:
    """A contrast declared before any student was trained: `method` on `probe`, against the independents or a control arm."""

    pair: int
    method: str
    probe: str
    against: Against = "independent"


@dataclass(frozen=True)
class Answers:
    """One network's answers to one image set at one level: all draws, over the images that every draw holds."""

    draws: tuple[Observations, ...]  # same images in the same order

    @classmethod
    def over(cls, draws: Sequence[Observations]) -> Answers:
        """The draws cut to the images that all of them hold."""
        kept = shared_index([draw.index for draw in draws])
        return cls(tuple(rows(draw, kept) for draw in draws))

    @property
    def index(self) -> np.ndarray:
        return self.draws[0].index

    @property
    def labels(self) -> np.ndarray:
        return self.draws[0].labels

    @property
    def split(self) -> str:
        return self.draws[0].split

    @property
    def labelled(self) -> bool:
        return not (self.labels == UNLABELLED).any()

    @cached_property
    def decisions(self) -> np.ndarray:
        """[images], or [draws, images] of several draws."""
        return stacked([draw.decisions for draw in self.draws])

    @property
    def has_logits(self) -> bool:
        """Whether more is known than the decisions."""
        return self.draws[0].decided is None

    @property
    def logits(self) -> np.ndarray:
        """[images, classes], or [draws, images, classes]."""
        return stacked([draw.logits for draw in self.draws])

    @property
    def factors(self) -> dict[str, np.ndarray]:
        """Each factor [images], or [draws, images] where it differs between draws."""
        values = {name: [draw.factors[name] for draw in self.draws] for name in self.draws[0].factors}
        return {name: all_draws[0] if _equal(all_draws) else np.stack(all_draws) for name, all_draws in values.items()}

    def at(self, index: np.ndarray) -> Answers:
        """The answers to the images `index`, in that order."""
        if np.array_equal(self.index, index):
            return self
        return Answers(tuple(rows(draw, index) for draw in self.draws))


def shared_index(indexes: Sequence[np.ndarray]) -> np.ndarray:
    """The images that all sets hold, in the order of the first."""
    kept = indexes[0]
    for index in indexes[1:]:
        if not np.array_equal(kept, index):
            kept = kept[np.isin(kept, index)]
    return kept


def rows(observations: Observations, index: np.ndarray) -> Observations:
    """The observations of the images `index`, in that order. Raises ValueError where an image is missing or there twice."""
    if np.array_equal(observations.index, index):
        return observations
    order = np.argsort(observations.index, kind="stable")
    if (np.diff(observations.index[order]) == 0).any():
        raise ValueError(f"an image of split '{observations.split}' was observed twice in one set: its rows must name each image once")
    place = np.searchsorted(observations.index, index, sorter=order)
    found = order[np.minimum(place, len(order) - 1)]
    if not np.array_equal(observations.index[found], index):
        raise ValueError(f"split '{observations.split}': some images to be compared were not observed")
    return Observations(
        observations.logits[found],
        observations.labels[found],
        index,
        {name: values[found] for name, values in observations.factors.items()},
        observations.split,
        None if observations.decided is None else observations.decided[found],
    )


def probes(run: ObservedRun) -> list[str]:
    """The sets that a run was shown, in the order in which they were observed."""
    return list(dict.fromkeys(probe for probe, _, _ in run.observations))


def draws_of(run: ObservedRun, probe: str) -> dict[str, list[Observations]]:
    """{level: its draws} of one set, levels in the order in which they were observed; nothing else is looked up."""
    places = sorted((place for place in run.observations if place[0] == probe), key=lambda place: place[2])
    order = dict.fromkeys(level for of, level, _ in run.observations if of == probe)
    return {level: [run.observations[place] for place in places if place[1] == level] for level in order}


def curve(of_probe: Mapping[str, Sequence[Observations]]) -> dict[str, Answers]:
    """{level: answers} of one probe; with several levels also "auc", all levels together, each with the same weight.

    Raises ValueError where levels have different numbers of draws: an average over them would be lopsided.
    """
    answers = {level: Answers.over(draws) for level, draws in of_probe.items()}
    if len(answers) < 2:
        return answers
    counts = {level: len(draws) for level, draws in of_probe.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(f"every level of a probe must have as many draws, got {counts}")
    return {**answers, AVERAGE: Answers.over([draw for draws in of_probe.values() for draw in draws])}


def clean_answers(run: ObservedRun) -> Answers | None:
    """A run's answers to the clean test images; None where it was not shown them."""
    return Answers.over([run.observations[CLEAN]]) if CLEAN in run.observations else None


def correct(answers: Answers) -> np.ndarray:
    """Right or wrong, [images] or [draws, images]."""
    return answers.decisions == answers.labels


def chance_level(labels: np.ndarray) -> float:
    """What the best constant answer scores: the largest class share."""
    return float(np.unique(labels, return_counts=True)[1].max() / len(labels))


def paired(probe: str, answers: Answers, clean: Answers | None) -> bool:
    """Whether a set shows the clean test images again; an extra set of its own split does not."""
    return clean is not None and probe != CLEAN[0] and answers.split == clean.split


def stacked(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """The array itself when there is one, else all along a new first axis (draws)."""
    return arrays[0] if len(arrays) == 1 else np.stack(arrays)


def _equal(arrays: Sequence[np.ndarray]) -> bool:
    return all(np.array_equal(arrays[0], other) for other in arrays[1:])
