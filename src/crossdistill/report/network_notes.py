"""What to know of the networks of a study beside their figures."""

from collections.abc import Sequence
from statistics import mean

from crossdistill.core.records import ResultRow, RunRecord
from crossdistill.report.study_files import PlannedPair
from crossdistill.report.words import listed, percent

TEACHERS_COMPARED = "Teacher and control teacher in validation accuracy"
"""How the note begins that both arms of a matched comparison carry in their records."""


def notes(records: Sequence[RunRecord]) -> list[tuple[str, str]]:
    """What the runs themselves had to say: (whose, note), teachers first, one note of several runs once.

    How teacher and control teacher compare stands in the records of both arms that it concerns, and is told of one of them.
    """
    matched = any(record.control == "matched_teacher" for record in records)
    seen: dict[str, dict[str, None]] = {}
    for record in sorted(records, key=lambda record: (record.arm != "teacher", record.label)):
        whose = f"Teacher {record.student}" if record.arm == "teacher" else record.label
        for note in record.notes:
            if not (matched and record.control == "control_teacher" and note.startswith(TEACHERS_COMPARED)):
                seen.setdefault(note, {}).setdefault(whose)
    return [(listed(list(whose)), note) for note, whose in seen.items()]


def weak_teachers(pairs: Sequence[PlannedPair], results: Sequence[ResultRow]) -> list[tuple[str, str]]:
    """A note for each pair whose teacher is no better on clean images than the student is without it."""
    found = []
    for pair in pairs:
        teacher, alone = _clean_accuracy(results, "teacher", pair.teacher), _clean_accuracy(results, "independent", pair.student)
        if teacher and alone and mean(teacher) <= mean(alone):
            better = f"right on {percent(mean(teacher))} of the clean images, no more than the independent student ({percent(mean(alone))})"
            note = f"it is {better}: nothing says that its accuracy could help this student."
            found.append((f"Teacher {pair.teacher} of {pair.student}", note))
    return found


def _clean_accuracy(results: Sequence[ResultRow], arm: str, network: str) -> list[float]:
    rows = [row for row in results if (row.arm, row.student, row.probe, row.metric) == (arm, network, "clean", "accuracy")]
    return [row.value for row in rows if row.value is not None]
