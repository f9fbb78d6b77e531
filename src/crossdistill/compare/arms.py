"""Which runs of a study a contrast compares, whose weights taught them, and why some of them cannot be read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from crossdistill.compare.observed import ObservedRun, Pair
from crossdistill.compare.verdicts import TELLS_ARCHITECTURE
from crossdistill.core.recipe import SHORTER
from crossdistill.core.records import Against, RunRecord

CLOSE = 0.03
"""Three points of validation accuracy: teachers farther apart than this, on the mean, teach different things for that reason alone."""


@dataclass(frozen=True)
class Sides:
    """The runs that one contrast compares, by name, with those that its teacher's gap takes."""

    pair: Pair
    method: str
    against: Against
    students: tuple[str, ...]
    controls: tuple[str, ...]
    independents: tuple[str, ...]
    teachers: tuple[str, ...]  # that taught the students
    control_teachers: tuple[str, ...] = ()  # that taught the controls, against control_teacher

    @property
    def runs(self) -> tuple[str, ...]:
        """All runs that the contrast rests on: each must pass its accuracy gate."""
        beside_teachers = self.control_teachers if self.with_control_teacher else self.independents
        return tuple(dict.fromkeys((*self.students, *self.controls, *self.teachers, *beside_teachers)))

    @property
    def n_teachers(self) -> int:
        """How many teacher runs there are to be told from chance: against control_teacher those of the side that has fewer."""
        return min(len(self.teachers), len(self.control_teachers)) if self.with_control_teacher else len(self.teachers)

    @property
    def with_control_teacher(self) -> bool:
        """Whether both sides were taught, at equal accuracy, and what there is to inherit is the difference between their teachers."""
        return self.against in TELLS_ARCHITECTURE


@dataclass(frozen=True)
class Apart:
    """Mean validation accuracy of one side's teachers minus the other's, and why the two cannot be compared."""

    difference: float | None = None
    refusal: str | None = None


class Arms:
    """The runs of a study, looked up by what they are to a pair and a method."""

    def __init__(self, runs: Sequence[ObservedRun]) -> None:
        self.records: Mapping[str, RunRecord] = {run.record.run: run.record for run in runs}

    def sides(self, pair: Pair, method: str, against: Against) -> Sides:
        """Both sides of a contrast; either may lack its runs."""
        both_taught = against in TELLS_ARCHITECTURE
        # Beside the control teacher's students stand those that were taught at its accuracy.
        students = self._named(f"{method}+matched_teacher" if both_taught else method, pair.student, pair.teacher)
        controls = self._controls(pair, method, against)
        return Sides(
            pair, method, against, students, controls, self._named("independent", pair.student), self._taught(students, pair.teacher),
            self._taught(controls, pair.control_teacher) if both_taught else (),
        )  # fmt: skip

    def by_seed(self, runs: Sequence[str]) -> dict[int, list[str]]:
        """The runs grouped by run seed."""
        found: dict[int, list[str]] = {}
        for run in runs:
            found.setdefault(self.records[run].seed, []).append(run)
        return found

    def taught_at(self, run: str) -> float | None:
        """The validation accuracy of the weights that taught a run; None where it is not known."""
        return self._validation_accuracy(self.records[run].teacher_run)

    def apart(self, sides: Sides) -> Apart:
        """How far the teachers of both sides are apart in validation accuracy, on the mean over each side's teacher runs."""
        if not sides.students or not sides.controls:
            return Apart()
        of_sides = [{self.records[run].teacher_run for run in runs} for runs in (sides.students, sides.controls)]
        accuracies = {teacher: self._validation_accuracy(teacher) for teachers in of_sides for teacher in teachers}
        unknown = sorted(str(teacher) for teacher, accuracy in accuracies.items() if accuracy is None)
        if unknown:
            return Apart(refusal=f"the validation accuracy of teacher run {unknown[0]} is not known: whether it is matched is not either")
        teachers, control_teachers = (fmean(accuracies[teacher] or 0.0 for teacher in of_side) for of_side in of_sides)
        apart = teachers - control_teachers
        if abs(apart) <= CLOSE + 1e-9:  # 0.83 - 0.80 is a little over 0.03 in floating point
            return Apart(apart)
        found = f"teachers and control teachers are {100 * abs(apart):.1f} points apart in validation accuracy, more than {100 * CLOSE:.0f}"
        return Apart(apart, f"{found}: what they taught could differ for that reason alone")

    def _controls(self, pair: Pair, method: str, against: Against) -> tuple[str, ...]:
        if against == "accuracy_matched":
            shorter = tuple(run for arm in SHORTER for run in self._named(arm, pair.student))
            return (*self._named("independent", pair.student), *shorter) if shorter else ()
        if against in ("independent", "second_independent"):
            return self._named(against, pair.student)
        if against == "twin":
            return self._named(f"{method}+twin", pair.student)
        if against == "shuffled_teacher":
            return self._named(f"{method}+shuffled_teacher", pair.student, pair.teacher)
        return self._named(f"{method}+control_teacher", pair.student, pair.control_teacher)

    def _named(self, arm: str, student: str, teacher: str | None = None) -> tuple[str, ...]:
        return tuple(r.run for r in self.records.values() if (r.arm, r.student, r.teacher) == (arm, student, teacher))

    def _taught(self, students: Sequence[str], network: str | None) -> tuple[str, ...]:
        """The teacher runs of the network, those alone that taught the students where there are students."""
        if students:
            of_students = {self.records[run].teacher_run for run in students}
            return tuple(r.run for r in self.records.values() if r.run in of_students)
        return tuple(r.run for r in self.records.values() if (r.arm, r.student) == ("teacher", network))

    def _validation_accuracy(self, run: str | None) -> float | None:
        record = self.records.get(run or "")
        estimate = record.estimates.get("validation_accuracy") if record else None
        return estimate.value if estimate else None
