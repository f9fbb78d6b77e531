"""The inheritance chart: a pair's figures by methods as one table, each cell an interval on a scale that all cells share."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from crossdistill.core.records import Against, InheritanceRow, Verdict
from crossdistill.report.charts import VERDICT_COLOURS, VERDICT_SHAPES
from crossdistill.report.contrast_names import CONTRASTS
from crossdistill.report.names import NOT_RUN, TITLES, capitalised, is_choice, quantity, shown_verdict
from crossdistill.report.readings import limits
from crossdistill.report.sentences import sentence_of
from crossdistill.report.study_files import PlannedPair, StudyFiles
from crossdistill.report.words import NO_NUMBER, SPACE, difference, is_share, known

NO_GATE = "No network shows that these images can be read at all, and none was trained on them to find out."


@dataclass(frozen=True)
class Place:
    """Where an interval and its marks lie in a cell, in per cent of its width; None where there is no number."""

    student: float | None
    low: float | None
    high: float | None
    teacher: float | None
    goes_on: tuple[bool, bool]  # whether the interval reaches beyond the left and the right edge


@dataclass(frozen=True)
class MatrixCell:
    """One contrast of one figure. `tip` says all of it in a sentence."""

    method: str
    verdict: Verdict
    place: Place
    number: str
    limits: str
    tip: str
    declared: bool
    footnote: int | None

    @property
    def title(self) -> str:
        return TITLES[self.verdict]

    @property
    def colour(self) -> str:
        return VERDICT_COLOURS[self.verdict]

    @property
    def shape(self) -> str:
        return VERDICT_SHAPES[self.verdict]


@dataclass(frozen=True)
class MatrixRow:
    """One figure, and its cell in each column; None where nothing was compared."""

    name: str
    remark: str
    probe: str
    footnote: int | None
    cells: list[MatrixCell | None]


@dataclass
class Matrix:
    """One pair's chart. `limit` is half the width of the scale, in points; columns are methods, each with its control."""

    pair: int
    title: str
    limit: float
    columns: list[tuple[str, str]]
    rows: list[MatrixRow] = field(default_factory=list)
    footnotes: list[str] = field(default_factory=list)

    def footnote(self, text: str) -> int:
        """The number of this remark, which is added where it is new."""
        if text not in self.footnotes:
            self.footnotes.append(text)
        return self.footnotes.index(text) + 1


def scale_limit(rows: Sequence[InheritanceRow]) -> float:
    """Half the width of the scale of all charts, in points: a number that is easily read.

    Intervals of two runs can be tens of times as wide as any difference; they are cut at the edge rather than allowed to flatten
    everything else.
    """
    centres = [100 * abs(value) for row in rows for value in (row.difference, row.teacher_gap) if value is not None and known(value)]
    ends = [100 * abs(value) for row in rows for value in (row.low, row.high) if value is not None and known(value)]
    needed = max([*centres, 5.0])
    reached = min(max([needed, *ends]), 2 * needed)
    return float(next((limit for limit in (5, 10, 15, 20, 30, 40, 50, 75, 100, 150) if reached <= limit), 200))


def inheritance_matrix(study: StudyFiles, pair: PlannedPair, rows: Sequence[InheritanceRow], limit: float) -> Matrix:
    """The chart of a pair's rows: a row for each figure, a column for each method and control."""
    columns = _columns(pair, rows)
    controls = {contrast for _, contrast in columns}
    heads = [(method, f"minus {CONTRASTS[contrast].control}" if controls != {"independent"} else "") for method, contrast in columns]
    matrix = Matrix(pair.index, pair.title, limit, heads)
    figures: dict[tuple[str, str, str], dict[tuple[str, Against], InheritanceRow]] = {}
    for row in sorted(rows, key=lambda row: is_choice(row.metric)):  # accuracies first
        figures.setdefault((row.probe, row.metric, row.level_or_auc), {})[row.method, row.contrast] = row
    for (probe, _, _), found in figures.items():
        first = next(iter(found.values()))
        cells = [_cell(study, matrix, found[c]) if c in found else None for c in columns]
        gate = first.signal_gate if first.signal_gate in ("failed", "not run") else ""
        footnote = matrix.footnote(NO_GATE) if gate == "not run" else None
        matrix.rows.append(MatrixRow(_short(first), _GATES.get(gate, ""), probe, footnote, cells))
    return matrix


_GATES = {"not run": NOT_RUN, "failed": "signal gate failed"}


def _columns(pair: PlannedPair, rows: Sequence[InheritanceRow]) -> list[tuple[str, Against]]:
    """(method, contrast) in the order of the plan."""
    order = {method: place for place, method in enumerate(pair.methods)}
    contrasts = list(CONTRASTS)
    occurring: set[tuple[str, Against]] = {(row.method, row.contrast) for row in rows}
    return sorted(occurring, key=lambda column: (order.get(column[0], len(order)), column[0], contrasts.index(column[1])))


def _short(row: InheritanceRow) -> str:
    return capitalised(re.sub(" on (.*) images", r" (\1)", quantity(row)))


def _cell(study: StudyFiles, matrix: Matrix, row: InheritanceRow) -> MatrixCell:
    verdict, unit = shown_verdict(row), study.units.get(row.metric, "")
    measured = verdict != "not_measurable" and known(row.difference)
    sentence = sentence_of(row, one_teacher_checkpoint=study.one_teacher_checkpoint)
    return MatrixCell(
        method=row.method,
        verdict=verdict if measured else "not_measurable",
        place=_place(row, matrix.limit) if measured else Place(None, None, None, None, (False, False)),
        number=difference(row.difference, unit) + ("" if is_share(unit) else f"{SPACE}{unit}") if measured else NO_NUMBER,
        limits=limits(row, study.units) if measured else "",
        tip=f"{capitalised(quantity(row))}, {matrix.title}, {row.method}. {sentence}",
        declared=row.role == "primary",
        footnote=None if measured else matrix.footnote(f"{(row.reason or 'No reason was recorded').rstrip('.')}."),
    )


def _place(row: InheritanceRow, limit: float) -> Place:
    low, high = (known(row.low) and 100 * row.low < -limit, known(row.high) and 100 * row.high > limit)  # type: ignore[operator]
    return Place(*(_percent(value, limit) for value in (row.difference, row.low, row.high, row.teacher_gap)), goes_on=(low, high))


def _percent(share: float | None, limit: float) -> float | None:
    """A difference as a place between the left edge (0) and the right (100)."""
    if share is None or not known(share):
        return None
    return round(50 + 50 * max(-1.0, min(1.0, 100 * share / limit)), 2)
