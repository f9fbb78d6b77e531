"""Teacher and control teacher matched in accuracy: what they taught can then differ by their architecture, not by how good they are."""

from crossdistill.core.records import RunRecord
from crossdistill.study.plan import Training
from crossdistill.study.workshop import Workshop

CLOSE = 0.03  # in validation accuracy: within it both teach with their last weights


def teaching_epoch(shop: Workshop, training: Training) -> tuple[int | None, list[str]]:
    """The epoch whose weights teach a student (None: the last), and a sentence on how teacher and control teacher compare."""
    if training.rival is None or training.teacher is None:
        return None, []
    teacher, rival = (RunRecord.load(shop.folder(task)) for task in (training.teacher, training.rival))
    epoch, other = nearest_epoch(teacher, rival), nearest_epoch(rival, teacher)
    mine, theirs = accuracy_after(teacher, epoch), accuracy_after(rival, other)
    words = [f"{record.label} {_when(e)}: {100 * a:.1f} %" for record, e, a in ((teacher, epoch, mine), (rival, other, theirs))]
    unmatched = " They are not matched: no epoch of the better one comes closer." if abs(mine - theirs) > CLOSE else ""
    apart = f"{100 * (mine - theirs):+.1f} points apart.{unmatched}"
    return epoch, [f"Teacher and control teacher in validation accuracy: {'; '.join(words)}; {apart}"]


def nearest_epoch(record: RunRecord, rival: RunRecord) -> int | None:
    """The epoch (from 1) of the better network that is nearest to the other in validation accuracy; None: its last weights.

    Of several as near the latest. None also where the network is not the better one, where both are close, where no earlier epoch
    is nearer than the last weights, and where the network was not trained here.
    """
    last, target = accuracy_after(record, None), accuracy_after(rival, None)
    earlier = record.history[:-1]
    if last - target <= CLOSE or not earlier:
        return None
    best = min(earlier, key=lambda row: (abs(row.validation_accuracy - target), -row.epoch))
    return best.epoch if abs(best.validation_accuracy - target) < last - target else None


def run_name(teacher: Training, epoch: int | None) -> str:
    """The name of a teacher's run, or of its weights after an epoch."""
    return teacher.run if epoch is None else f"{teacher.run}@epoch-{epoch:03d}"


def accuracy_after(record: RunRecord, epoch: int | None) -> float:
    """Validation accuracy after an epoch, or of the last weights."""
    if epoch is None:
        return record.estimates["validation_accuracy"].value or 0.0
    return next(row.validation_accuracy for row in record.history if row.epoch == epoch)


def _when(epoch: int | None) -> str:
    return f"after epoch {epoch}" if epoch else "at the end"
