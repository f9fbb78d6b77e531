"""Teacher and control teacher matched in accuracy: what they taught can then differ by their architecture, not by how good they are.

They are matched run by run, and judged on the means over runs (`compare/arms.py`). Every run within 3 points puts the means within 3
points, so that the second can only fail where a run could not be matched. To decide on the means alone would leave single runs far
apart, of students that are compared as the same seed; and a mean is known only once all teachers are trained and moves with each
further seed: students that exist would have been taught by the wrong epoch, under a key that does not tell it.
"""

from crossdistill.compare.arms import CLOSE
from crossdistill.core.records import RunRecord
from crossdistill.study.plan import Training
from crossdistill.study.workshop import Workshop
from crossdistill.train.early_stopping import best_epoch


def teaching_epoch(shop: Workshop, training: Training) -> tuple[int | None, list[str]]:
    """The epoch whose weights teach a student (None: those kept), and a sentence on how teacher and control teacher compare."""
    if training.rival is None or training.teacher is None:
        return None, []
    teacher, rival = (shop.record(task) for task in (training.teacher, training.rival))
    epoch, other = nearest_epoch(teacher, rival), nearest_epoch(rival, teacher)
    mine, theirs = accuracy_after(teacher, epoch), accuracy_after(rival, other)
    words = [f"{record.label} {_when(record, e)}: {100 * a:.1f} %" for record, e, a in ((teacher, epoch, mine), (rival, other, theirs))]
    unmatched = " They are not matched: no epoch of the better one comes closer." if abs(mine - theirs) > CLOSE else ""
    apart = f"{100 * (mine - theirs):+.1f} points apart.{unmatched}"
    return epoch, [f"Teacher and control teacher in validation accuracy: {'; '.join(words)}; {apart}"]


def nearest_epoch(record: RunRecord, rival: RunRecord) -> int | None:
    """The epoch (from 1) of the better network that is nearest to the other in validation accuracy; None: the weights that it kept.

    Of several as near the latest. None also where the network is not the better one, where both are close, where no other epoch
    is nearer than the weights that it kept, and where the network was not trained here.
    """
    ended, target = accuracy_after(record, None), accuracy_after(rival, None)
    others = [row for row in record.history if row.epoch != kept_epoch(record)]
    if ended - target <= CLOSE or not others:
        return None
    nearest = min(others, key=lambda row: (abs(row.validation_accuracy - target), -row.epoch))
    return nearest.epoch if abs(nearest.validation_accuracy - target) < ended - target else None


def kept_epoch(record: RunRecord) -> int:
    """The epoch (from 1) after which a training's weights were kept: its last, with early stopping its best; 0 without a training."""
    if record.training.get("early_stopping"):
        return best_epoch(record.history)
    return record.history[-1].epoch if record.history else 0


def run_name(teacher: Training, epoch: int | None) -> str:
    """The name of a teacher's run, or of its weights after an epoch."""
    return teacher.run if epoch is None else f"{teacher.run}@epoch-{epoch:03d}"


def accuracy_after(record: RunRecord, epoch: int | None) -> float:
    """Validation accuracy after an epoch, or of the weights that were kept."""
    if epoch is None:
        return record.estimates["validation_accuracy"].value or 0.0
    return next(row.validation_accuracy for row in record.history if row.epoch == epoch)


def _when(record: RunRecord, epoch: int | None) -> str:
    if epoch is None and record.training.get("early_stopping"):
        return f"after epoch {kept_epoch(record)}, its best"
    return f"after epoch {epoch}" if epoch else "at the end"
