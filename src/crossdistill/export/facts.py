"""What a card tells of a student: how well it does, what its method passed on, and what not to take from that."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from crossdistill.compare.figures import SIDING
from crossdistill.compare.verdicts import ENOUGH_RUNS
from crossdistill.core.records import InheritanceRow, ResultRow
from crossdistill.core.setting_words import default_words
from crossdistill.export.student import Student
from crossdistill.metrics._gates import accuracy_gate
from crossdistill.report.contrast_names import CONTRASTS
from crossdistill.report.headline import whole_curves
from crossdistill.report.names import TITLES, is_choice, plain, quantity, shown_verdict
from crossdistill.report.words import NO_NUMBER, count, difference, figure, known


class Contrast(NamedTuple):
    """One row of the card's inheritance table."""

    against: str
    measured: str
    difference: str
    p: str
    verdict: str
    signal_gate: str
    why: str


def contrasts(student: Student) -> list[Contrast]:
    """What the student's method passed on, over all runs of it: accuracy, sides taken and choices, each against every control."""
    record, study = student.record, student.study
    if record is None or study is None or record.method is None or record.control is not None:
        return []
    rows = [row for row in study.inheritance if (row.method, row.teacher, row.student) == (record.arm, record.teacher, record.student)]
    shown = [row for row in whole_curves(rows) if row.role == "primary" or _is_told(row, study.choice_sets)]
    return [_contrast(row, study.units.get(row.metric, "")) for row in shown]


def _is_told(row: InheritanceRow, choice_sets: Sequence[str]) -> bool:
    return row.metric in ("accuracy", SIDING) or (is_choice(row.metric) and row.probe in choice_sets)


def _contrast(row: InheritanceRow, unit: str) -> Contrast:
    verdict = shown_verdict(row)
    unread = verdict == "not_measurable" or not known(row.difference)
    limits = f" ({difference(row.low, unit)} to {difference(row.high, unit)})" if known(row.low) and known(row.high) else ""
    declared = ", declared in advance" if row.role == "primary" else ""
    return Contrast(
        CONTRASTS[row.contrast].title,
        f"{quantity(row)}{declared}",
        NO_NUMBER if unread else f"{difference(row.difference, unit)}{limits}",
        "none" if unread else _p(row),
        TITLES[verdict],
        row.signal_gate or "no probe",
        "; ".join(filter(None, [row.reason, row.note])) or ("no reason was recorded" if unread else ""),
    )


def _p(row: InheritanceRow) -> str:
    for value, correction in ((row.p_holm, "Holm"), (row.p_bh, "Benjamini-Hochberg"), (row.p_raw, "uncorrected")):
        if value is not None and known(value):
            return f"{value:.3f} ({correction})" if value >= 0.001 else f"below 0.001 ({correction})"
    return "none"


class Figure(NamedTuple):
    """One figure of the network itself."""

    images: str
    value: str
    interval: str
    n: int
    remark: str


def accuracies(student: Student) -> list[Figure]:
    """The network's own accuracy on the test images and on each probe over all its levels; empty where it was not observed."""
    return [_figure(row) for row in _accuracy_rows(student)]


def clean_accuracy(student: Student) -> ResultRow | None:
    """The network's accuracy on clean test images, where it could be measured."""
    rows = [row for row in _accuracy_rows(student) if row.probe == "clean"]
    return rows[0] if rows and rows[0].status == "ok" and known(rows[0].value) else None


def _accuracy_rows(student: Student) -> list[ResultRow]:
    if student.record is None or student.study is None:
        return []
    own = [row for row in student.study.results if row.run == student.record.run and row.metric == "accuracy"]
    several = {row.probe for row in own if row.level == "auc"}
    return [row for row in own if row.level == "auc" or row.probe not in several]


def _figure(row: ResultRow) -> Figure:
    if row.status != "ok" or not known(row.value):
        return Figure(plain(row.probe), NO_NUMBER, "", row.n, row.reason or "no reason was recorded")
    limits = f"{figure(row.low, row.unit)} to {figure(row.high, row.unit)}" if known(row.low) and known(row.high) else ""
    return Figure(plain(row.probe), figure(row.value, row.unit), limits, row.n, row.reason or "")


def gates(student: Student) -> list[str]:
    """Which validity gates stood over the figures, in sentences."""
    record, study = student.record, student.study
    if record is None or study is None:
        return []
    clean = {row.run: row for row in study.results if (row.probe, row.level, row.metric) == ("clean", "", "accuracy")}
    runs = {"this network": record.run, "its teacher": record.teacher_run}
    sentences = [f"Accuracy gate of {who}: {_accuracy_gate(clean[run])}." for who, run in runs.items() if run in clean]
    by_status: dict[str, dict[str, None]] = {}
    for row in study.results:
        if row.run == record.run and row.signal_gate and row.level != "auc":
            by_status.setdefault(row.signal_gate, {})[f"{plain(row.probe)} {row.level}".strip()] = None
    return sentences + [f"Signal gate {status}: {', '.join(names)}." for status, names in by_status.items()]


def _accuracy_gate(row: ResultRow) -> str:
    if row.status != "ok" or row.value is None or row.chance is None:
        return f"not run ({row.reason or 'no reason was recorded'})"
    n_right = round(row.value * row.n)
    refusal = accuracy_gate(np.repeat([1.0, 0.0], [n_right, row.n - n_right]), row.chance)
    return f"failed, {refusal}" if refusal else "passed"


def method_settings(student: Student) -> str:
    """The method's settings that the record names: "temperature = 2, weight = 1"."""
    if student.record is None:
        return ""
    given = dict(student.record.method_settings)
    flat = {**given.pop("settings", {}), **given}
    return ", ".join(f"{name} = {default_words(value)}" for name, value in flat.items() if value not in (None, {}, []))


def limits(student: Student) -> list[str]:
    """What a reader should not take from the figures."""
    told = [
        f"It tells {student.network.n_classes} classes apart and names one of them for any image, also for one that shows none of them.",
        "The figures hold for images like those of the study; nothing here says how the network does on others.",
    ]
    if student.record is None:
        return [*told, "No record stands beside the file: how it was trained and how well it does is not known here."]
    if student.study is not None and student.record.method and student.record.control is None:
        own = (student.record.arm, student.record.teacher, student.record.student)
        runs = sum((record.arm, record.teacher, record.student) == own for record in student.study.records)
        told.append(f"The inheritance table is about the method over its {count(runs, 'run')}, of which this network is one.")
        if runs < ENOUGH_RUNS:
            told.append(f"{count(runs, 'run')} an arm cannot give a verdict of inheritance, which needs {ENOUGH_RUNS}.")
        if student.study.one_teacher_checkpoint:
            told.append("From one teacher checkpoint: another teacher of the same architecture may pass on other things.")
    return [*told, *student.record.notes]
