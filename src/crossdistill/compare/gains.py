"""Images that tell what a student has from its teacher: right in the teacher and wrong in an independent, and the other way round.

Of those images, the students of every arm get a share right. Hard images are hard for every network, so that a student that took
nothing over gets many of them as well. What it would get is told by the independents in its place: how much more often than chance
they are right where the teacher is, carried over to a student that is right as often as this one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from crossdistill.compare.companions import companions
from crossdistill.compare.observed import CLEAN, Answers, ObservedRun, Pair, correct, curve, draws_of, paired, probes, shared_index
from crossdistill.core.records import GainRow
from crossdistill.core.types import Observations
from crossdistill.stats.intervals import share_interval

UNTAUGHT = ("independent", "second_independent")


@dataclass(frozen=True)
class Trio:
    """A student between its teacher and an independent of another seed (of its own where there is no other), by run name."""

    arm: str
    seed: int
    student: str
    teacher: str
    independent: str


class Right(NamedTuple):
    """Which answers of a trio are right, each [draws, images] on the same images."""

    index: np.ndarray
    student: np.ndarray
    teacher: np.ndarray
    independent: np.ndarray

    @property
    def gained(self) -> tuple[np.ndarray, np.ndarray]:
        """(where the teacher is right and the independent wrong, of these where the student is right)."""
        told = self.teacher & ~self.independent
        return told, told & self.student

    @property
    def lost(self) -> tuple[np.ndarray, np.ndarray]:
        """(where the teacher is wrong and the independent right, of these where the student is wrong)."""
        told = ~self.teacher & self.independent
        return told, told & ~self.student


def trios(runs: Sequence[ObservedRun], pairs: Sequence[Pair]) -> dict[int, list[Trio]]:
    """{pair: its trios}: students of each method and of its controls by the same teacher, then what independents do in their place.

    As for the side with the teacher, the independent is that of the next run seed: with that of its own seed a student shares
    initialisation and order of batches. So the independent of the student's own seed stands in the student's place fairly.
    """
    beside = companions(runs, pairs)
    records = [run.record for run in runs]
    untaught = {(record.arm, record.student, record.seed): record.run for record in records if record.arm in UNTAUGHT}
    observed, found = {record.run for record in records}, {}
    for pair in pairs:
        own: list[Trio] = []
        for record in records:
            independent = beside[record.run].independent
            of_pair = (record.teacher, record.student) == (pair.teacher, pair.student) and record.arm.split("+")[0] in pair.methods
            if of_pair and record.control in (None, "shuffled_teacher") and record.teacher_run in observed and independent:
                own.append(Trio(record.arm, record.seed, record.run, record.teacher_run or "", independent))
        places = {(trio.seed, trio.teacher, trio.independent) for trio in own}
        for arm in UNTAUGHT:
            others = [(untaught.get((arm, pair.student, seed)), seed, *rest) for seed, *rest in sorted(places)]
            own += [Trio(arm, seed, run, *rest) for run, seed, *rest in others if run and run not in rest]
        if own:
            found[pair.index] = own
    return found


def gain_table(runs: Sequence[ObservedRun], pairs: Sequence[Pair]) -> list[GainRow]:
    """Both directions, for every arm of every pair, on clean images and on every probe and level."""
    found = trios(runs, pairs)
    by_run = {run.record.run: run for run in runs}
    rows: list[GainRow] = []
    for pair in pairs:
        of_pair = found.get(pair.index, [])
        answers = {name: decisions_of(by_run[name]) for name in sorted({n for t in of_pair for n in (t.student, t.teacher, t.independent)})}
        seen: dict[str, dict[tuple[str, str], list[Right]]] = {}
        for trio in of_pair:
            for place, right in compared(trio, answers):
                seen.setdefault(trio.arm, {}).setdefault(place, []).append(right)
        for arm, places in seen.items():
            for (probe, level), rights in places.items():
                untaught = [] if arm in UNTAUGHT else [right for of in UNTAUGHT for right in seen.get(of, {}).get((probe, level), ())]
                about = dict(pair=pair.index, teacher=pair.teacher, student=pair.student, arm=arm, probe=probe, level=level)
                rows += [_row(direction, rights, untaught, about) for direction in ("gained", "lost")]
    return rows


def decisions_of(run: ObservedRun) -> dict[str, dict[str, Answers]]:
    """{set: {level: what it answered}} of the clean images and of every probe of them, without the logits: those fill the memory."""
    bare = {place: _bare(seen) for place in run.observations if (seen := run.observations[place]).split == "test"}
    if CLEAN not in bare:
        return {}
    light, clean = replace(run, observations=bare), Answers.over([bare[CLEAN]])
    found = {probe: curve(draws_of(light, probe)) for probe in probes(light)}
    return {
        probe: levels
        for probe, levels in found.items()
        if all(answers.labelled and (probe == CLEAN[0] or paired(probe, answers, clean)) for answers in levels.values())
    }


def _bare(seen: Observations) -> Observations:
    return Observations(seen.logits[:, :0], seen.labels, seen.index, {}, seen.split, decided=seen.decisions)


def compared(trio: Trio, answers: Mapping[str, Mapping[str, Mapping[str, Answers]]]) -> Iterator[tuple[tuple[str, str], Right]]:
    """((set, level), which answers are right) wherever all three networks were shown the same images."""
    student, teacher, independent = (answers[name] for name in (trio.student, trio.teacher, trio.independent))
    for probe, levels in student.items():
        for level in levels:
            if level in teacher.get(probe, {}) and level in independent.get(probe, {}):
                three = [levels[level], teacher[probe][level], independent[probe][level]]
                index = shared_index([answer.index for answer in three])
                if len(index) and len({len(answer.draws) for answer in three}) == 1:
                    yield (probe, level), Right(index, *(np.atleast_2d(correct(answer.at(index))) for answer in three))


def _row(direction: str, rights: Sequence[Right], untaught: Sequence[Right], about: Mapping[str, object]) -> GainRow:
    """Counts are means over runs and draws; the interval is over images, of which all answers are one cluster."""
    index = shared_index([right.index for right in rights])
    kept = [_at(right, index) for right in rights]
    told, got = (np.concatenate([getattr(right, direction)[place] for right in kept]) for place in (0, 1))
    of, count = float(told.mean(axis=0).sum()), float(got.mean(axis=0).sum())
    low, high = share_interval(got.mean(axis=0), told.mean(axis=0), draws=len(told)) if of else (None, None)
    beside = [_at(right, index) for right in untaught]
    expected = _expected(_fourfold(direction, kept), _fourfold(direction, beside)) if of and beside else None
    return GainRow.model_validate({
        **about, "direction": direction, "n_runs": len(rights), "n_images": len(index), "count": count, "of": of,
        "share": count / of if of else None, "low": low, "high": high, "expected": expected,
    })  # fmt: skip


class Fourfold(NamedTuple):
    """Answers that student and teacher, the student alone, the teacher alone and neither of them give otherwise than the independent."""

    both: float
    student: float
    teacher: float
    neither: float


def _fourfold(direction: str, rights: Sequence[Right]) -> Fourfold:
    """Of what was gained among the images that the independent gets wrong, of what was lost among those that it gets right."""
    student, teacher, independent = (np.concatenate([getattr(right, name) for right in rights]) for name in Right._fields[1:])
    if direction == "lost":
        student, teacher, independent = ~student, ~teacher, ~independent
    asked = ~independent
    return Fourfold(*(float((asked & s & t).sum()) for s in (student, ~student) for t in (teacher, ~teacher)))


def _expected(student: Fourfold, other: Fourfold) -> float:
    """The share of `student` if it were tied to its teacher no more than untaught networks (`other`) are.

    Student and teacher keep how often each of them answers otherwise than the independent. Between them stands the odds ratio of the
    untaught networks, half an answer added to each of their counts: difficulties that all networks share have made it.
    """
    everything = sum(student)
    mine, teachers = (student.both + student.student) / everything, (student.both + student.teacher) / everything
    ratio = (other.both + 0.5) * (other.neither + 0.5) / ((other.student + 0.5) * (other.teacher + 0.5))
    middle = 1 + (mine + teachers) * (ratio - 1)  # Plackett (1965): both at once, from the two shares and the odds ratio
    return 2 * ratio * mine / (middle + math.sqrt(middle**2 - 4 * ratio * (ratio - 1) * mine * teachers))


def _at(right: Right, index: np.ndarray) -> Right:
    kept = np.isin(right.index, index)
    return Right(right.index[kept], *(values[:, kept] for values in right[1:]))
