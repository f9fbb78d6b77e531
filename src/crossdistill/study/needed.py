"""Which networks' weights are needed for what is left of a study, where records and decisions may be all that is here of a network."""

import contextlib

from crossdistill.core.errors import RunError
from crossdistill.study.earlier import known_runs
from crossdistill.study.matching import run_name
from crossdistill.study.observing import needs_weights
from crossdistill.study.plan import Plan, Training
from crossdistill.study.selection import Only, matches
from crossdistill.study.trainings import is_asked_for
from crossdistill.study.workshop import Workshop

SHOWN = 3  # trainings that are named of those that are made again


def want_weights(shop: Workshop, plan: Plan, only: Only = ()) -> None:
    """Tell the workshop which weights are wanted before anything is trained: of a run whose record is here, they alone are made again.

    Wanted are the weights of teachers whose students are left to train, and of networks that are left to observe. These are observed
    anew on all test sets, since figures of a new probe need logits of the clean images too; so is the teacher of a student that no
    earlier table tells of, since figures of both need its logits.
    """
    chosen = _chosen(plan, only)
    left = [training for training in chosen if not _is_recorded(shop, training)]
    known = known_runs(shop.out)
    shop.anew = frozenset(student.teacher.run for student in left if student.teacher and student.run not in known)
    unseen = {name: of for training in chosen if training not in left for name, of in _left_to_observe(shop, training).items()}
    without = [training for training in unseen.values() if not shop.weights(training).exists()]
    taught_by = (student.teacher for student in (*left, *without))
    shop.wanted = frozenset(training.run for training in (*unseen.values(), *taught_by) if training)
    shop.anew |= unseen.keys()


def made_again(shop: Workshop, plan: Plan, only: Only = ()) -> str:
    """What to say, before it is done, of networks that are trained again although they were finished; nothing where there are none."""
    labels = [training.label for training in _chosen(plan, only) if _is_recorded(shop, training) and not shop.finished(training)]
    if not labels:
        return ""
    named = ", ".join(labels[:SHOWN]) + (f" and {len(labels) - SHOWN} more" if len(labels) > SHOWN else "")
    return (
        f"finished trainings whose weights are needed while only their record is here are trained again: {named} (how long that takes: "
        "`crossdistill study plan` with this --out)"
    )


def _chosen(plan: Plan, only: Only) -> list[Training]:
    chosen = [training for training in plan.trainings if is_asked_for(training, plan, only)]
    return chosen + [ceiling for ceiling in plan.ceilings if matches(ceiling.label, only)]


def _is_recorded(shop: Workshop, training: Training) -> bool:
    here = any((folder / "record.json").exists() for folder in (shop.folder(training), shop.out / "runs" / training.run))
    return here and not shop.outdated(training)


def _left_to_observe(shop: Workshop, training: Training) -> dict[str, Training]:
    """The networks that are to be observed: a training's own, and that of its teacher as it was after the epoch that taught it."""
    found = {training.run: training} if needs_weights(shop, training, training.run) else {}
    with contextlib.suppress(RunError):  # whoever is to read the record says what is damaged
        epoch = shop.record(training).teacher_epoch
        if epoch is not None and training.teacher:
            name = run_name(training.teacher, epoch)
            found |= {name: training.teacher} if needs_weights(shop, training.teacher, name) else {}
    return found
