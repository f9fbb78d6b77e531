"""The page's section "Beside the controls": what each method's students differ in from every control arm, and the ratio tau."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from crossdistill.compare.figures import SIDING, WRONG_SIDING
from crossdistill.core.records import InheritanceRow, TransferRow
from crossdistill.report.contrast_names import meanings
from crossdistill.report.contrast_tables import controls_table, difference_cell
from crossdistill.report.headline import whole_curves
from crossdistill.report.names import plain
from crossdistill.report.study_files import StudyFiles
from crossdistill.report.tables import Cell, Column, Table
from crossdistill.report.words import MINUS, NO_NUMBER, interval, known, listed, points, signed, size_in_points

TITLE, PLACE = "Controls", 20


def contents(study: StudyFiles) -> dict[str, Any] | None:
    """What the template prints; None where no method was compared with more than independents."""
    controls, refused = method_controls(study), nowhere_given(study.transfer)
    transfer = None if refused else transfer_table(study.transfer)
    if not controls and not study.transfer:
        return None
    return dict(controls=controls, controls_meanings=meanings(study.inheritance), transfer=transfer, refused=refused)


@dataclass(frozen=True)
class MethodControls:
    """The controls of one method between one teacher and one student."""

    pair: int
    method: str
    title: str
    remarks: list[str]
    table: Table


def method_controls(study: StudyFiles) -> list[MethodControls]:
    """One entry for each pair and method that was compared with more than independents."""
    found: list[MethodControls] = []
    for pair in study.pairs:
        for method in pair.methods:
            rows = [row for row in study.inheritance if (row.pair, row.method) == (pair.index, method)]
            title = f"{pair.title}, {method}"
            if table := controls_table(rows, title):
                found.append(MethodControls(pair.index, method, title, list(_remarks(method, rows)), table))
    return found


def _remarks(method: str, rows: Sequence[InheritanceRow]) -> Iterator[str]:
    apart = next((row.teachers_apart for row in rows if known(row.teachers_apart)), None)
    if apart is not None:
        yield f"Teachers minus control teachers in validation accuracy: {points(apart)}."
    sides = [row for row in whole_curves(rows) if row.contrast == "second_independent"]
    for metric, where in _WHERE.items():
        of_metric = [row for row in sides if row.metric == metric]
        if of_metric:
            yield _siding(method, where, of_metric)


_WHERE = {SIDING: "Where teacher and independent student answer differently", WRONG_SIDING: "Where, besides, both of them are wrong"}


def _siding(method: str, where: str, rows: list[InheritanceRow]) -> str:
    """How much more often the method's students take the teacher's side than a second independent student: in words on the first
    image set that can be read, and on all others in points. The table holds the sides taken where teacher and independent differ."""
    found = [row for row in rows if row.verdict != "not_measurable" and known(row.difference)]
    if not found:
        return f"{where}, nothing can be said of whose side {method} takes: {(rows[0].reason or 'no reason was recorded').rstrip('.')}."
    first, *others = found
    assert first.difference is not None
    more = "more" if first.difference >= 0 else "less"
    size = f"{size_in_points(first.difference)} {more} often than a second independent student on {plain(first.probe)} images"
    text = f"{where}, {method} sides with the teacher {size}{_in_brackets(first)}."
    if first.metric == SIDING or not others:
        return text
    return f"{text} On other images, in points: {listed([f'{plain(o.probe)} {signed(o.difference)}{_in_brackets(o)}' for o in others])}."


def _in_brackets(row: InheritanceRow) -> str:
    limits = interval(row.low, row.high)
    return f" ({limits})" if limits else ""


def nowhere_given(rows: Sequence[TransferRow]) -> str:
    """The reason, where one and the same keeps the ratio from being given anywhere; empty where it is given, or reasons differ."""
    reasons = {row.reason or "no reason was recorded" for row in rows if _refused(row)}
    return reasons.pop() if len(reasons) == 1 and all(_refused(row) for row in rows) else ""


def _refused(row: TransferRow) -> bool:
    return row.status == "not_measurable" or row.tau is None or not known(row.tau)


def transfer_table(rows: Sequence[TransferRow]) -> Table | None:
    """Tau of each pair, method and probe with its interval, or why it is not given; None where nothing was computed."""
    if not rows:
        return None
    heads = ["Pair", "Method", "Images", "Tau", "Teacher's lead, in points", "Runs"]
    table = Table("The ratio tau", [Column(name) for name in heads])
    for place, row in enumerate(rows):
        cells = [
            Cell(f"{row.teacher} → {row.student}", place),
            Cell(row.method, row.method),
            Cell("all probes, pooled" if row.probe == "all" else plain(row.probe), row.probe),
            _tau(table, row),
            difference_cell(row.teacher_gap, row.gap_low, row.gap_high),
            Cell(str(row.n_runs), row.n_runs),
        ]
        table.add(cells, pair=row.pair, method=row.method, **({} if row.probe == "all" else {"probe": row.probe}))
    return table


def _tau(table: Table, row: TransferRow) -> Cell:
    if _refused(row):
        return Cell(NO_NUMBER, None, footnote=table.footnote(row.reason or "no reason was recorded"), mark="muted")
    known_interval = known(row.low) and known(row.high)
    limits = f"{_ratio(row.low)} to {_ratio(row.high)}" if known_interval else "interval without end"
    return Cell(_ratio(row.tau), row.tau, limits, table.footnote(row.reason) if row.reason else None)


def _ratio(value: float | None) -> str:
    assert value is not None
    return f"{value:.2f}".replace("-", MINUS)
