"""The page's section "Profiles side by side": teacher, independent and students of each pair on one axis."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from crossdistill.core.records import ResultRow
from crossdistill.report import charts
from crossdistill.report.charts import FAINT, FONT_PX, INK, SERIES_SHAPES, WIDTH, LegendItem
from crossdistill.report.intervals import MEANING, Interval, interval_of
from crossdistill.report.names import metric_words, plain
from crossdistill.report.study_files import PlannedPair, StudyFiles
from crossdistill.report.tables import Cell, Column, Series, Table, partly_measured, series_of
from crossdistill.report.words import NO_NUMBER, SPACE, figure, in_percent

TITLE, PLACE = "Profiles", 35

LINE, NAME = 13, 26
"""px from one network to the next, and for the name of a figure above them."""


class Place(NamedTuple):
    """A figure of a profile: its name, and where it stands in the table of results."""

    name: str
    probe: str
    level: str
    metric: str


@dataclass(frozen=True)
class Profile:
    """The networks of a pair side by side, as a chart and as a table."""

    pair: PlannedPair
    legend: list[LegendItem]
    svg: str
    table: Table


def contents(study: StudyFiles) -> dict[str, Any] | None:
    """What the template prints; None where nothing was observed."""
    found = [profile for pair in study.pairs if (profile := profile_of(study, pair))]
    return dict(profiles=found, intervals=MEANING) if found else None


def places(study: StudyFiles) -> Iterator[Place]:
    """Clean accuracy, then of each probe the retention over all its levels (accuracy where it has none), then shape bias."""
    if ("clean", "", "accuracy") in study.figures:
        yield Place("clean accuracy", "clean", "", "accuracy")
    for probe, levels in study.level_order.items():
        level = "auc" if "auc" in levels else next(iter(levels), "")
        for metric in ("retention", "accuracy"):
            if level and (probe, level, metric) in study.figures:
                at = "" if level == "auc" else f" at {level}"
                yield Place(f"{plain(probe)} {metric}{at}", probe, level, metric)
                break
    for name in study.choice_sets:
        for level in study.level_order.get(name, ()):
            if (name, level, "shape_bias") in study.figures and level in ("", "auc"):
                yield Place(f"{metric_words('shape_bias')} on {plain(name)} images", name, level, "shape_bias")


def profile_of(study: StudyFiles, pair: PlannedPair) -> Profile | None:
    """The profile of a pair; None where none of its networks was observed."""
    series = series_of(pair)
    rows = {place: [[row for row in study.figures[place[1:]] if of.holds(row)] for of in series] for place in places(study)}
    rows = {place: found for place, found in rows.items() if any(found)}
    if not rows:
        return None
    intervals = {place: [interval_of(of) for of in found] for place, found in rows.items()}
    said = f"{pair.title}: figures of teacher, independent and students side by side; the numbers follow as a table"
    drawing = charts.svg(_chart(intervals, series), said)
    return Profile(pair, charts.series_legend(pair), drawing, _table(pair, series, rows, intervals))


def _chart(intervals: dict[Place, list[Interval | None]], series: Sequence[Series]) -> Any:
    import altair as alt

    band = NAME + LINE * len(series)
    height = band * len(intervals)
    names = [of.name for of in series]
    data, heads = [], []
    for number, (place, found) in enumerate(intervals.items()):
        heads.append({"name": place.name, "y": band * number + NAME / 2, "line": band * number})
        for line, (of, interval) in enumerate(zip(series, found, strict=True)):
            y = band * number + NAME + LINE * line + 2
            if interval is None:
                heads.append({"words": f"{of.arm}: {NO_NUMBER}", "y": y})
            else:
                ends = {"low": in_percent(interval.low), "value": in_percent(interval.value), "high": in_percent(interval.high)}
                data.append({"series": of.name, "y": y, "label": f"{of.name}, {place.name}: {interval.words}", **ends})
    ends = [point["value"] for point in data]
    domain = [min([0.0, *ends]), max([100.0, *ends])]  # intervals that reach further are cut there
    data = [{**point, **{end: _cut(point[end], domain) for end in ("low", "high")}} for point in data]
    shapes = [SERIES_SHAPES[place % len(SERIES_SHAPES)] for place in range(len(names))]
    color = alt.Color("series:N", scale=alt.Scale(domain=names, range=list(charts.series_colours(series).values())), legend=None)
    shape = alt.Shape("series:N", scale=alt.Scale(domain=names, range=shapes), legend=None)
    down = alt.Scale(domain=[0, height], reverse=True, nice=False)
    y = alt.Y("y:Q", axis=None, scale=down)
    scale, axis = alt.Scale(domain=domain, nice=False), alt.Axis(grid=True, tickCount=5)

    def x(name: str) -> Any:
        return alt.X(f"{name}:Q", scale=scale, axis=axis, title="%")

    base, words = alt.Chart(alt.Data(values=data)).encode(y=y), alt.Chart(alt.Data(values=heads)).encode(y=y, x=alt.value(0))
    named = words.transform_filter("isValid(datum.name)")
    layers = [
        named.mark_rule(color=charts.GRID, aria=False).encode(y=alt.Y("line:Q", axis=None, scale=down), x2=alt.value(WIDTH - 20)),
        named.mark_text(align="left", fontSize=FONT_PX, fontWeight="bold", color=INK, aria=False).encode(text="name:N"),
        words.transform_filter("isValid(datum.words)").mark_text(
            align="left", fontSize=FONT_PX - 2, fontStyle="italic", color=FAINT, dx=4, aria=False
        ).encode(text="words:N"),
        base.mark_rule(strokeWidth=2.4, aria=False).encode(x=x("low"), x2="high:Q", color=color),
        charts.marked(base.mark_point(filled=True, size=55, opacity=1).encode(x=x("value"), color=color, shape=shape)),
    ]  # fmt: skip
    return alt.layer(*layers).properties(width=WIDTH - 20, height=height)


def _cut(value: float | None, domain: Sequence[float]) -> float | None:
    return None if value is None else min(max(value, domain[0]), domain[1])


def _table(
    pair: PlannedPair, series: Sequence[Series], rows: dict[Place, list[list[ResultRow]]], intervals: dict[Place, list[Interval | None]]
) -> Table:  # fmt: skip
    methods = set(pair.methods)
    columns = [Column(of.name, facts={"method": of.arm} if of.arm in methods else {}) for of in series]
    table = Table(f"Profiles of {pair.title}: mean over runs and 95 % interval", [Column("Figure"), *columns])
    for place, found in intervals.items():
        cells = [_cell(table, interval, of) for interval, of in zip(found, rows[place], strict=True)]
        table.add([Cell(place.name, len(table.rows)), *cells], probe=place.probe, pair=pair.index)
    return table


def _cell(table: Table, interval: Interval | None, rows: Sequence[ResultRow]) -> Cell:
    if interval is not None:
        ends = [figure(end, interval.unit).split(SPACE)[0] for end in (interval.low, interval.high) if end is not None]
        lost = partly_measured(rows)
        limits = " to ".join(ends) if len(ends) == 2 else ""
        return Cell(figure(interval.value, interval.unit), interval.value, limits, table.footnote(lost) if lost else None)
    if not rows:
        return Cell("not observed", None, mark="muted")
    reason = next((row.reason for row in rows if row.reason), "no reason was recorded")
    return Cell(NO_NUMBER, None, footnote=table.footnote(reason), mark="muted")
