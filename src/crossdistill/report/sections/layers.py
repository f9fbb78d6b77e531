"""How alike two networks' layers are: CKA heat maps of teacher, student and independent, with the numbers as a table."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from crossdistill.compare.similarity import is_vector
from crossdistill.core.records import SimilarityRow
from crossdistill.report.charts import FONT_PX, WIDTH, marked, svg
from crossdistill.report.study_files import PlannedPair, StudyFiles
from crossdistill.report.tables import Cell, Column, Table
from crossdistill.report.words import MINUS, NO_NUMBER, count, known

TITLE, PLACE = "Layers", 50


def contents(study: StudyFiles) -> dict[str, Any] | None:
    """What the template prints; None where no layers were compared."""
    found = [(pair, maps) for pair in study.pairs if (maps := heat_maps(study, pair))]
    return dict(heat_maps=found, unfolded=UNFOLDED, scale=(LOW, HIGH), not_compared=not_compared(study)) if found else None


UNFOLDED = 3
"""Heat maps of a pair that are open from the start."""

NAMED = 8
"""Reasons that are named above the heat maps."""

LOW, HIGH = "#e3ecf4", "#174d80"
"""The colours of CKA 0 and 1. The page does not exchange them in the dark, nor the inks on them: cells stay what they are."""

ON_LOW, ON_HIGH, UNKNOWN = "#101820", "#ffffff", "#9aa4ad"


@dataclass(frozen=True)
class HeatMap:
    """The layers of two networks beside each other, mean over the seeds, as a chart and as a table."""

    title: str
    remark: str
    svg: str
    table: Table
    method: str | None = None  # whose students it is about


def not_compared(study: StudyFiles) -> list[str]:
    """Why some layers of some runs were not compared, one sentence each: a mean over the other runs would hide it."""
    lost = Counter(row.reason for row in study.similarity if row.reason and row.value is None and is_vector(row.layer_a))
    return [f"{count(n, 'comparison')} could not be made: {reason}" for reason, n in lost.most_common(NAMED)]


def heat_maps(study: StudyFiles, pair: PlannedPair) -> list[HeatMap]:
    """Independent beside teacher, then for each method student beside teacher and student beside independent; what was not compared
    is left out. Only layers that are vectors, pooled over positions, are shown; grids and class tokens stay in the table on disk."""
    rows: dict[tuple[str, str], list[SimilarityRow]] = {}
    for row in study.similarity:
        if is_vector(row.layer_a) and is_vector(row.layer_b):
            rows.setdefault((row.a, row.b), []).append(row)
    found = [(a, _heat_map(rows, a, b)) for a, b in _sides(study, pair)]
    return [replace(drawn, method=a.method) for a, drawn in found if drawn]


@dataclass(frozen=True)
class _Side:
    """One axis of a heat map: its name, and the runs on it."""

    name: str
    runs: frozenset[str]
    method: str | None = None


def _sides(study: StudyFiles, pair: PlannedPair) -> Iterator[tuple[_Side, _Side]]:
    """The two axes of each heat map of a pair."""
    arms: dict[str, set[str]] = {method: set() for method in pair.methods}
    teachers: set[str] = set()
    independents = {record.run for record in study.records if (record.arm, record.student) == ("independent", pair.student)}
    for record in study.records:
        if record.arm in arms and (record.teacher, record.student) == (pair.teacher, pair.student):
            arms[record.arm].add(record.run)
            teachers |= {record.teacher_run} if record.teacher_run else set()
    teacher, alone = _Side(f"teacher {pair.teacher}", frozenset(teachers)), _Side(f"independent {pair.student}", frozenset(independents))
    yield alone, teacher
    for method, runs in arms.items():
        student = _Side(f"{method} {pair.student}", frozenset(runs), method)
        yield student, teacher
        yield student, alone


def _heat_map(rows: Mapping[tuple[str, str], Sequence[SimilarityRow]], a: _Side, b: _Side) -> HeatMap | None:
    pairs = [(x, y) for x, y in rows if (x in a.runs and y in b.runs) or (x in b.runs and y in a.runs)]
    if not pairs:
        return None
    cells: dict[tuple[str, str], list[SimilarityRow]] = {}
    for x, y in pairs:
        for row in rows[x, y]:
            layers = (row.layer_a, row.layer_b) if x in a.runs else (row.layer_b, row.layer_a)
            cells.setdefault(layers, []).append(row)
    title = f"{a.name} beside {b.name}"
    values = {layers: _mean(of) for layers, of in cells.items()}
    remark = f"mean over {count(len(pairs), 'pair')} of runs"
    labels = {layers: _label(layers, (a.name, b.name), of, values[layers]) for layers, of in cells.items()}
    drawing = svg(_chart(values, labels, a.name, b.name), f"CKA of layers, {title}; the numbers follow as a table")
    return HeatMap(title, remark, drawing, _table(title, cells, values))


def _label(layers: tuple[str, str], names: tuple[str, str], of: Sequence[SimilarityRow], value: float | None) -> str:
    """What a cell says when it is pointed at: "kd cnn stage1, teacher vit stage2: 0.31 (0.20 to 0.40)"."""
    who = ", ".join(f"{name} {layer}" for name, layer in zip(names, layers, strict=True))
    spread = _spread(of) if value is not None else ""
    return f"{who}: {NO_NUMBER if value is None else _two_digits(value)}{f' ({spread})' if spread else ''}"


def _mean(rows: Iterable[SimilarityRow]) -> float | None:
    values = [row.value for row in rows if row.value is not None and known(row.value)]
    return fmean(values) if values else None


def _axis(values: Mapping[tuple[str, str], Any], side: int) -> list[str]:
    return list(dict.fromkeys(layers[side] for layers in values))


def _chart(values: Mapping[tuple[str, str], float | None], labels: Mapping[tuple[str, str], str], a: str, b: str) -> Any:
    import altair as alt

    data = [
        {"a": x, "b": y, "cka": value, "text": _two_digits(value), "label": labels[x, y]} for (x, y), value in values.items()
    ]  # fmt: skip
    x = alt.X("b:N", sort=_axis(values, 1), title=b, axis=alt.Axis(labelAngle=-35, domain=False, ticks=False))
    y = alt.Y("a:N", sort=_axis(values, 0), title=a, axis=alt.Axis(domain=False, ticks=False))
    scale = alt.Scale(domain=[0, 1], range=[LOW, HIGH], clamp=True)
    base = alt.Chart(alt.Data(values=data)).encode(x=x, y=y)
    colour = alt.condition("isValid(datum.cka)", alt.Color("cka:Q", scale=scale, legend=None), alt.value(UNKNOWN))
    cells = marked(base.mark_rect().encode(color=colour))
    ink = alt.condition("datum.cka > 0.5", alt.value(ON_HIGH), alt.value(ON_LOW))
    numbers = base.mark_text(fontSize=FONT_PX - 1, aria=False).encode(text="text:N", color=ink)
    return alt.layer(cells, numbers).properties(width=WIDTH - 100, height=30 * len(_axis(values, 0)))


def _two_digits(value: float | None) -> str:
    """
    >>> _two_digits(0.314), _two_digits(-0.001), _two_digits(None)
    ('0.31', '0.00', '?')
    """
    if value is None:
        return "?"
    text = f"{value:.2f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", MINUS)


def _table(
    title: str, cells: Mapping[tuple[str, str], Sequence[SimilarityRow]], values: Mapping[tuple[str, str], float | None]
) -> Table:  # fmt: skip
    table = Table(f"CKA of layers, {title}", [Column("Layer"), *(Column(layer) for layer in _axis(values, 1))])
    for place, layer in enumerate(_axis(values, 0)):
        row = [Cell(layer, place)]
        for other in _axis(values, 1):
            value, of = values.get((layer, other)), cells.get((layer, other), ())
            if value is None:
                reason = next((r.reason for r in of if r.reason), "these layers were not compared")
                row.append(Cell(NO_NUMBER, None, footnote=table.footnote(reason), mark="muted"))
            else:
                row.append(Cell(_two_digits(value), value, _spread(of)))
        table.rows.append(row)
    return table


def _spread(rows: Sequence[SimilarityRow]) -> str:
    """The lowest and the highest pair of runs, or the interval over images where there is one pair."""
    values = [row.value for row in rows if row.value is not None and known(row.value)]
    low, high = (min(values), max(values)) if len(values) > 1 else (rows[0].low, rows[0].high)
    return f"{_two_digits(low)} to {_two_digits(high)}" if known(low) and known(high) else ""
