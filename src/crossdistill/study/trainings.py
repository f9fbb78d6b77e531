"""The trainings of a study, one after the other: train, observe, and go on where one fails."""

from crossdistill.core.errors import CrossdistillError, StudyError
from crossdistill.study.folder import read_failures, write_failures
from crossdistill.study.plan import Plan, Training
from crossdistill.study.tasks import observe_run, train
from crossdistill.study.workshop import Workshop


def run_trainings(shop: Workshop, plan: Plan, only: str | None) -> dict[str, str]:
    """Train and observe what is wanted; returns and writes down what failed, of this call and of earlier ones."""
    chosen = [training for training in plan.trainings if _wanted(training, plan, only)]
    waiting = {training.label for training in (*plan.trainings, *plan.ceilings)} - {training.label for training in chosen}
    failures = {label: reason for label, reason in read_failures(shop.out).items() if label in waiting}
    write_failures(shop.out, failures)
    for number, training in enumerate(chosen, start=1):
        attempt(shop, training, failures, f"[{number}/{len(chosen)}] training {training.label}")
    return failures


def attempt(shop: Workshop, training: Training, failures: dict[str, str], announced: str) -> None:
    """Train and observe one network, announced where it is not finished; a failure is written down and stops nothing else."""
    try:
        for teacher in (training.teacher, training.rival):
            if teacher and teacher.label in failures:
                raise CrossdistillError(f"{teacher.label} failed, from which it learns or with which its teacher is matched")
        if not shop.finished(training):
            shop.progress.line(announced)
        train(shop, training)
        observe_run(shop, training)
    except StudyError:
        raise  # the folder itself: in use, full, read-only; no other task would do better
    except CrossdistillError as error:
        failures[training.label] = str(error)
        shop.progress.line(f"  failed: {error}")
        write_failures(shop.out, failures)


def _wanted(training: Training, plan: Plan, only: str | None) -> bool:
    if only is None or only in training.label:
        return True
    return any(training in (student.teacher, student.rival) and only in student.label for student in plan.students)
