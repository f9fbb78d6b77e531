"""Teacher and control teacher matched in accuracy: what they taught can then differ by their architecture, not by how good they are."""

from crossdistill.core.records import EpochRow, RunRecord
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
    return epoch, [f"Teacher and control teacher in validation accuracy: {'; '.join(words)}; {100 * (mine - theirs):+.1f} points apart."]


def nearest_epoch(record: RunRecord, rival: RunRecord) -> int | None:
    """The epoch (from 1) of the better network that is nearest to the other in validation accuracy; None: its last weights.

    None also where the network is not the better one, where both are close, and where it was not trained here.
    """
    target = accuracy_after(rival, None)
    if accuracy_after(record, None) - target <= CLOSE or not record.history:
        return None
    best: EpochRow = min(record.history, key=lambda row: abs(row.validation_accuracy - target))
    return best.epoch if best.epoch < len(record.history) else None


def accuracy_after(record: RunRecord, epoch: int | None) -> float:
    """Validation accuracy after an epoch, or of the last weights."""
    return record.history[epoch - 1].validation_accuracy if epoch else record.estimates["validation_accuracy"].value or 0.0


def _when(epoch: int | None) -> str:
    return f"after epoch {epoch}" if epoch else "at the end"
