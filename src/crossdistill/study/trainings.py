"""The trainings of a study: which are wanted, which can start, and what failed."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from crossdistill.core.errors import CrossdistillError
from crossdistill.study.folder import read_failures, write_failures
from crossdistill.study.jobs import CarryOut
from crossdistill.study.plan import Plan, Training
from crossdistill.study.remaining import about_left
from crossdistill.study.selection import Only, matches
from crossdistill.study.workshop import Workshop


def run_trainings(
    shop: Workshop, plan: Plan, only: Only, carry_out: CarryOut, after_each: Callable[[dict[str, str]], object]
) -> dict[str, str]:  # fmt: skip
    """Train and observe what is wanted; returns and writes down what failed, of this call and of earlier ones.

    `after_each` is called with the failures so far whenever a training is settled and others are left.
    """
    chosen = [training for training in plan.trainings if is_asked_for(training, plan, only)]
    waiting = {training.label for training in (*plan.trainings, *plan.ceilings)} - {training.label for training in chosen}
    failures = {label: reason for label, reason in read_failures(shop.out).items() if label in waiting}
    write_failures(shop.out, failures)
    carry_out(TrainingSchedule(shop, plan, chosen, failures, after_each))
    return failures


@dataclass
class TrainingSchedule:
    """Trainings in the order of the plan, each once what it reads is settled."""

    shop: Workshop
    plan: Plan
    chosen: Iterable[Training]
    failures: dict[str, str]
    after_each: Callable[[dict[str, str]], object] = bool  # whenever one is settled and others are left; by default nothing is done
    numbers: dict[str, int] = field(init=False)  # from 1, by label

    def __post_init__(self) -> None:
        self.left = list(self.chosen)
        self.unsettled = {training.label for training in self.left}
        self.numbers = {training.label: number for number, training in enumerate(self.left, start=1)}

    def next(self) -> Training | None:
        for training in self.left:
            if not any(read.label in self.unsettled for read in _read_by(training)):
                self.left.remove(training)
                return training
        return None

    def refusal(self, training: Training) -> CrossdistillError | None:
        for teacher in (training.teacher, training.rival):
            if teacher and teacher.label in self.failures:
                return CrossdistillError(f"{teacher.label} failed, from which it learns or with which its teacher is matched")
        return None

    def announced(self, training: Training) -> str:
        left = about_left(self.shop.out, self.shop.store, self.unsettled)
        again = self._why_again(training)
        return f"[{self.numbers[training.label]}/{len(self.numbers)}] training {training.label}{again}{left}"

    def _why_again(self, training: Training) -> str:
        if self.shop.outdated(training):
            return " again, since its teacher was trained again and has other weights now"
        here = (self.shop.out / "runs" / training.run / "record.json").exists() and not self.shop.finished(training)
        return " again, since its weights are needed and only its record is here" if here else ""

    def settle(self, training: Training, error: CrossdistillError | None) -> str:
        self.unsettled.remove(training.label)
        if error:
            note_failure(self.shop, self.plan, self.failures, training, error)
        if self.unsettled:
            self.after_each(self.failures)
        return f"{len(self.numbers) - len(self.unsettled)}/{len(self.numbers)}"


def note_failure(shop: Workshop, plan: Plan, failures: dict[str, str], training: Training, error: CrossdistillError) -> None:
    """Write down that a training failed; failures stand in the order of the plan, in whichever they came."""
    failures[training.label] = str(error)
    found = dict(failures)
    failures.clear()
    failures.update({planned.label: found[planned.label] for planned in (*plan.trainings, *plan.ceilings) if planned.label in found})
    write_failures(shop.out, failures)


def _read_by(training: Training) -> list[Training]:
    """What must be settled before: its teachers, and for a student that may be a mere copy of another that other one."""
    own = training.own if training.control == "matched_teacher" else None
    return [read for read in (training.teacher, training.rival, own) if read]


def is_asked_for(training: Training, plan: Plan, only: Only) -> bool:
    """Whether it is asked for, or read by one that is."""
    return matches(training.label, only) or any(
        training in (student.teacher, student.rival) and matches(student.label, only) for student in plan.students
    )
