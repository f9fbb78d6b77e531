"""The trainings of a study: which are wanted, which can start, and what failed."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from crossdistill.core.errors import CrossdistillError
from crossdistill.study.folder import read_failures, write_failures
from crossdistill.study.jobs import CarryOut
from crossdistill.study.plan import Plan, Training
from crossdistill.study.workshop import Workshop


def run_trainings(shop: Workshop, plan: Plan, only: str | None, carry_out: CarryOut) -> dict[str, str]:
    """Train and observe what is wanted; returns and writes down what failed, of this call and of earlier ones."""
    chosen = [training for training in plan.trainings if _wanted(training, plan, only)]
    waiting = {training.label for training in (*plan.trainings, *plan.ceilings)} - {training.label for training in chosen}
    failures = {label: reason for label, reason in read_failures(shop.out).items() if label in waiting}
    write_failures(shop.out, failures)
    carry_out(TrainingSchedule(shop, plan, chosen, failures))
    return failures


@dataclass
class TrainingSchedule:
    """Trainings in the order of the plan, each once what it reads is settled."""

    shop: Workshop
    plan: Plan
    chosen: Iterable[Training]
    failures: dict[str, str]
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
        return f"[{self.numbers[training.label]}/{len(self.numbers)}] training {training.label}"

    def settle(self, training: Training, error: CrossdistillError | None) -> str:
        self.unsettled.remove(training.label)
        if error:
            note_failure(self.shop, self.plan, self.failures, training, error)
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


def _wanted(training: Training, plan: Plan, only: str | None) -> bool:
    if only is None or only in training.label:
        return True
    return any(training in (student.teacher, student.rival) and only in student.label for student in plan.students)
