"""Which other networks of a study stand beside a network: its teachers, the independents, its pool of references."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from crossdistill.compare.observed import ObservedRun, Pair
from crossdistill.core.config import NOT_METHODS
from crossdistill.core.recipe import SHORTER
from crossdistill.core.records import RunRecord

FULL_BUDGET = ("independent", "second_independent")

INDEPENDENTS = (*FULL_BUDGET, *SHORTER)
"""The arms trained without a teacher: the pool of reference networks of their architecture."""

NETWORK = "network"
"""The arm of networks that exist already; each is read against all others."""

NOT_TAUGHT = (*NOT_METHODS, NETWORK)
"""The arms that are no method's, and no control of one."""


class TaughtBy(NamedTuple):
    """The teacher network and the teacher run that a figure refers to."""

    network: str
    run: str


@dataclass(frozen=True)
class Companions:
    """The runs that stand beside one run, by name; those that were not observed are left out."""

    teachers: tuple[TaughtBy, ...]
    pool: tuple[str, ...]  # reference networks, itself not among them
    independent: str | None  # of its network and of another seed, for networks that can take a teacher's side
    second_independent: str | None  # of its network and seed


def companions(runs: Sequence[ObservedRun], pairs: Sequence[Pair]) -> dict[str, Companions]:
    """{run: its companions}.

    A student stands beside its own teacher run; an independent of the whole budget, or a twin, beside every teacher run that taught a
    student of its own network and seed. Only students of methods and of their controls take sides, between their teacher and the
    independent of the next run seed. With that of their own seed they share initialisation and order of batches, so that they would
    side with it more often than a second independent does although they took nothing over.
    """
    records = [run.record for run in runs]
    observed = {record.run for record in records}
    taught = _taught(records, pairs)
    return {
        record.run: Companions(
            tuple(teacher for teacher in _teachers(record, taught) if teacher.run in observed),
            tuple(other.run for other in records if other.run != record.run and _refers(record, other)),
            *_independents(record, records),
        )
        for record in records
    }


def _independents(record: RunRecord, records: Sequence[RunRecord]) -> tuple[str | None, str | None]:
    """The independent between which and its teacher a student takes sides, and the second independent that it is set beside."""
    if record.arm in NOT_TAUGHT:
        return None, None
    first, second = ({r.seed: r.run for r in records if (r.arm, r.student) == (arm, record.student)} for arm in FULL_BUDGET)
    # The next run seed, after the last the first again; the student's own only where no other is there.
    seed = min(first, key=lambda seed: (seed == record.seed, seed < record.seed, seed), default=None)
    return None if seed is None else first[seed], second.get(record.seed)


def _taught(records: Sequence[RunRecord], pairs: Sequence[Pair]) -> dict[tuple[str, int], list[TaughtBy]]:
    """{(student network, seed): the teacher runs of its pairs' teachers that taught such a student}."""
    of_pairs = {(pair.teacher, pair.student) for pair in pairs}
    found: dict[tuple[str, int], dict[TaughtBy, None]] = {}
    for record in records:
        if record.teacher and record.teacher_run and (record.teacher, record.student) in of_pairs:
            found.setdefault((record.student, record.seed), {})[TaughtBy(record.teacher, record.teacher_run)] = None
    return {place: list(teachers) for place, teachers in found.items()}


def _teachers(record: RunRecord, taught: Mapping[tuple[str, int], Sequence[TaughtBy]]) -> Sequence[TaughtBy]:
    if record.teacher and record.teacher_run:
        return [TaughtBy(record.teacher, record.teacher_run)]
    if record.arm in NOT_TAUGHT and record.arm not in FULL_BUDGET:
        return []
    return taught.get((record.student, record.seed), [])


def _refers(record: RunRecord, other: RunRecord) -> bool:
    """Whether another network is in the pool of this one: all that exist already, or the independents of its architecture."""
    if record.arm == NETWORK:
        return other.arm == NETWORK
    return other.arm in INDEPENDENTS and other.student == record.student
