"""The charts of the page: Vega-Lite through altair, drawn to SVG that reads in light and dark and shrinks to a phone.

Every chart is drawn at the width of a phone, so that its text stays readable there; wide screens set charts side by side.
Inks are named colours of the light page; the style sheet exchanges them in the dark (`INK`, `FAINT`, `GRID`).
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from crossdistill.core.records import Against, InheritanceRow, RunRecord, Verdict
from crossdistill.report.contrast_names import CONTRASTS
from crossdistill.report.names import plain, quantity, shown_verdict
from crossdistill.report.study_files import PlannedPair, StudyFiles
from crossdistill.report.tables import Series, clean_figure, find_figure, series_of
from crossdistill.report.words import known

INK, FAINT, GRID = "#1c2733", "#66717d", "#dfe4e9"
"""Text, secondary text and grid lines; style.css holds their dark counterparts."""

VERDICT_COLOURS: Mapping[Verdict, str] = {
    "inherited": "#12876b",
    "moved_away": "#c9521c",
    "equivalent": "#2d7cc0",
    "unresolved": "#8a6bbd",
    "nothing_to_inherit": "#7b858f",
    "method_did_not_act": "#a3791f",
    "not_measurable": "#7b858f",
}
"""At least 3:1 against the light and the dark page; told apart with every common colour blindness, and never by colour alone."""

VERDICT_SHAPES: Mapping[Verdict, str] = {
    "inherited": "circle",
    "moved_away": "triangle-down",
    "equivalent": "square",
    "unresolved": "triangle-up",
    "nothing_to_inherit": "stroke",
    "method_did_not_act": "cross",
    "not_measurable": "",  # no mark, but words
}


@dataclass(frozen=True)
class LegendItem:
    """A colour and shape of a chart, in words."""

    name: str
    colour: str
    shape: str
    meaning: str = ""


@dataclass(frozen=True)
class Drawing:
    """A chart as SVG with its heading and a remark."""

    title: str
    svg: str
    remark: str = ""


TEACHER_COLOUR, INDEPENDENT_COLOUR = "#8a6bbd", "#7b858f"
METHOD_COLOURS = ("#2d7cc0", "#c9521c", "#12876b", "#b8487f", "#a3791f", "#5c6bc0")
SERIES_SHAPES = ("diamond", "square", "circle", "triangle-up", "triangle-down", "cross", "triangle-left", "triangle-right")

WIDTH = 330  # px, the width of a phone's screen less its margins
FONT_PX = 13
LABEL_WIDTH = 90  # px for the name of a method beside its line; longer names are cut, and stand in full in the words beside
LABEL_WIDTH_OF_CONTRASTS = 150  # where a method has several, each is told by its control, which must not be cut off


def series_colours(all_series: Sequence[Series]) -> dict[str, str]:
    """One colour per series: the teacher's, the independents', then one per method in order."""
    fixed = {"teacher": TEACHER_COLOUR, "independent": INDEPENDENT_COLOUR}
    methods = [series.arm for series in all_series if series.arm not in fixed]
    colours = fixed | {arm: METHOD_COLOURS[place % len(METHOD_COLOURS)] for place, arm in enumerate(dict.fromkeys(methods))}
    return {series.name: colours[series.arm] for series in all_series}


def series_legend(pair: PlannedPair) -> list[LegendItem]:
    """The networks of a pair's drawings."""
    colours = series_colours(series_of(pair))
    return [LegendItem(name, colours[name], SERIES_SHAPES[i % len(SERIES_SHAPES)]) for i, name in enumerate(colours)]


def axis_limit(rows: Sequence[InheritanceRow]) -> float:
    """Half the width of the inheritance charts' axis in points, one for all pairs.

    Intervals of two runs can be tens of times as wide as any difference; they are cut at the edge rather than allowed to flatten
    everything else.
    """
    centres = [100 * abs(value) for row in rows for value in (row.difference, row.teacher_gap) if value is not None and known(value)]
    ends = [100 * abs(value) for row in rows for value in (row.low, row.high) if value is not None and known(value)]
    needed = max([1.1 * c for c in centres] + [5.0])
    return min(max([needed, *ends]) * 1.05, 2 * needed)


def inheritance_chart(pair: PlannedPair, rows: Sequence[InheritanceRow], limit: float) -> str:
    """One pair's differences with intervals, as SVG: one band per figure and one line per method; the teacher as a hollow diamond."""
    import altair as alt

    lines = _lines(pair, rows)
    data = [{**_inheritance_point(row, limit), "line": lines[row.method, row.contrast]} for row in rows]
    order = list(dict.fromkeys(point["figure"] for point in data))
    longest = LABEL_WIDTH if len({method for method, _ in lines}) == len(lines) else LABEL_WIDTH_OF_CONTRASTS
    labels = min(longest, 8 * max(map(len, lines.values()))) if len(lines) > 1 else 0
    width = WIDTH - 25 - min(labels, LABEL_WIDTH)
    names = alt.Axis(domain=False, ticks=False, labelColor=FAINT, labelLimit=longest) if labels else None
    y = alt.Y("line:N", title=None, sort=list(lines.values()), axis=names)
    controls: set[Against] = {row.contrast for row in rows}
    control = CONTRASTS[controls.pop()].control if len(controls) == 1 else "control"
    inks: dict[str, Any] = dict(labelFontSize=FONT_PX, labelFontWeight="bold", labelColor=INK)
    header = alt.Header(title=None, labelAnchor="start", labelOrient="top", labelPadding=1, labelLimit=width, **inks)
    chart = (
        alt.layer(*_inheritance_layers(y, limit, f"points, student minus {control}"))
        .properties(width=width, height=alt.Step(22))
        .facet(row=alt.Row("figure:N", sort=order, header=header, title=None), data=alt.Data(values=data), spacing=9)
    )
    return svg(chart, f"{pair.title}: differences between students and their controls with 95 % intervals, also written out in words")


def _lines(pair: PlannedPair, rows: Sequence[InheritanceRow]) -> dict[tuple[str, Against], str]:
    """{(method, contrast): the name of its line} in the order of the plan; the contrast is named where a method has several."""
    order = {method: place for place, method in enumerate(pair.methods)}
    occurring: set[tuple[str, Against]] = {(row.method, row.contrast) for row in rows}
    kinds = sorted(occurring, key=lambda kind: (order.get(kind[0], len(order)), kind))
    several = [method for method, _ in kinds]
    return {
        (method, against): f"{method}, {CONTRASTS[against].title.lower()}" if several.count(method) > 1 else method
        for method, against in kinds
    }


def _inheritance_layers(y: Any, limit: float, title: str) -> list[Any]:
    """Zero line, teacher, interval with its cut ends, student, and words where nothing could be measured."""
    import altair as alt

    scale, axis = alt.Scale(domain=[-limit, limit], nice=False), alt.Axis(grid=True, tickCount=5, labelOverlap=True)
    verdicts = list(VERDICT_COLOURS)
    shapes = [VERDICT_SHAPES[verdict] or "stroke" for verdict in verdicts]
    colour = alt.Color("verdict:N", scale=alt.Scale(domain=verdicts, range=list(VERDICT_COLOURS.values())), legend=None)
    shape = alt.Shape("verdict:N", scale=alt.Scale(domain=verdicts, range=shapes), legend=None)
    base = alt.Chart().encode(y=y)

    def x(name: str) -> Any:
        return alt.X(f"{name}:Q", scale=scale, title=title, axis=axis)

    teacher = base.mark_point(shape="diamond", size=110, filled=False, color=INK, strokeWidth=1.4, aria=False).encode(x=x("gap"))
    interval = base.mark_rule(strokeWidth=2.4, aria=False).encode(x=x("low"), x2="high:Q", color=colour)
    student = base.mark_point(filled=True, size=90, opacity=1, aria=False).encode(x=x("difference"), color=colour, shape=shape)
    words = base.mark_text(color=FAINT, fontSize=FONT_PX - 1, fontStyle="italic", align="left", dx=5)
    return [
        alt.Chart().mark_rule(color=INK, strokeWidth=1.2, aria=False).encode(x=alt.datum(0)),
        teacher.transform_filter("isValid(datum.gap)"),
        interval.transform_filter("isValid(datum.low)"),
        *(_cut_end(base, side, colour) for side in ("low", "high")),
        student.transform_filter("isValid(datum.difference)"),
        words.encode(x=alt.datum(0), text=alt.value("not measurable")).transform_filter("!isValid(datum.difference)"),
    ]


def _inheritance_point(row: InheritanceRow, limit: float) -> dict[str, Any]:
    verdict = shown_verdict(row)
    shown = verdict != "not_measurable"
    low, high = _in_points(row.low, shown), _in_points(row.high, shown)
    return {
        "figure": re.sub(" on (.*) images", r" (\1)", quantity(row)),  # short: a band is as wide as a phone
        "verdict": verdict,
        "difference": _cut(_in_points(row.difference, shown), limit),
        "low": _cut(low, limit),
        "high": _cut(high, limit),
        "gap": _cut(_in_points(row.teacher_gap, shown), limit),
        "low_cut": low is not None and low < -limit,
        "high_cut": high is not None and high > limit,
    }


def _in_points(share: float | None, shown: bool) -> float | None:
    return 100 * share if shown and share is not None and known(share) else None


def _cut(points: float | None, limit: float) -> float | None:
    return None if points is None else max(-limit, min(limit, points))


def _cut_end(base: Any, side: str, colour: Any) -> Any:
    """An arrow head where the interval goes on beyond the edge of the chart."""
    shape = {"low": "triangle-left", "high": "triangle-right"}[side]
    points = base.mark_point(shape=shape, filled=True, size=50, opacity=1, aria=False)
    return points.encode(x=f"{side}:Q", color=colour).transform_filter(f"datum.{side}_cut")


def accuracy_curves(study: StudyFiles, pair: PlannedPair, probe: str) -> str | None:
    """Accuracy of a pair's networks from clean images through every level of a probe, as SVG; None where nothing was observed."""
    levels = [("clean", "")] + [(probe, level) for level in study.level_order.get(probe, ()) if level != "auc"]
    data = []
    for series in series_of(pair):
        for place, (images, level) in enumerate(levels):
            found = clean_figure(study, series, probe) if images == "clean" else find_figure(study, series, images, level, "accuracy")
            if found and found.value is not None:
                spread = {"low": _percent(found.low), "high": _percent(found.high)}
                data.append({"series": series.name, "place": place, "accuracy": _percent(found.value), **spread})
    if not any(point["place"] for point in data):
        return None
    chart = _curves_chart(data, [level for _, level in levels[1:]], series_of(pair), study.chance_on(probe))
    return svg(chart, f"{pair.title}: accuracy on {plain(probe)} images by level")


def _percent(share: float | None) -> float | None:
    return 100 * share if share is not None and known(share) else None


def _curves_chart(data: list[dict[str, Any]], levels: list[str], all_series: list[Series], chance: float | None) -> Any:
    import altair as alt

    names = [series.name for series in all_series]
    color = alt.Color("series:N", scale=alt.Scale(domain=names, range=list(series_colours(all_series).values())), legend=None)
    shape = alt.Shape("series:N", scale=alt.Scale(domain=names, range=_cycle(SERIES_SHAPES, len(names))), legend=None)
    setting, labels = _axis_labels(levels)
    axis = alt.Axis(
        values=list(range(len(labels))),
        labelExpr=f"{json.dumps(labels)}[datum.value]",
        labelAngle=-35 if max(map(len, labels)) > 8 else 0,
        labelOverlap=False,
        labelLimit=120,
        grid=False,
    )
    x = alt.X("place:Q", title=setting, scale=alt.Scale(domain=[-0.25, len(labels) - 0.75], nice=False), axis=axis)
    y = alt.Y("accuracy:Q", title="accuracy, %", scale=alt.Scale(domain=[0, 100]), axis=alt.Axis(tickCount=5, grid=True))
    base = alt.Chart(alt.Data(values=data))
    layers = [
        base.mark_rule(strokeWidth=5, opacity=0.3, aria=False).encode(x=x, y=alt.Y("low:Q"), y2="high:Q", color=color),
        base.mark_line(strokeWidth=2, aria=False).encode(x=x, y=y, color=color),
        base.mark_point(filled=True, size=60, opacity=1, aria=False).encode(x=x, y=y, color=color, shape=shape),
    ]
    if chance is not None:
        layers.insert(0, base.mark_rule(color=FAINT, strokeDash=[4, 4], aria=False).encode(y=alt.datum(100 * chance)))
    return alt.layer(*layers).properties(width=WIDTH - 60, height=190)


def _axis_labels(levels: Sequence[str]) -> tuple[str | None, list[str]]:
    """The axis title and tick labels: where the levels differ in one setting, it and what they share are named once.

    >>> _axis_labels(["fraction=0.05,sigma=0.5", "fraction=0.2,sigma=0.5"])
    ('fraction (sigma=0.5)', ['clean', '0.05', '0.2'])
    """
    settings = [level.split(",") for level in levels]
    shared = [setting for setting in settings[0] if len(levels) > 1 and all(setting in other for other in settings)]
    own = [[setting for setting in level if setting not in shared] for level in settings]
    names = {setting.partition("=")[0] for level in own for setting in level}
    if len(names) == 1 and all(len(level) == 1 and "=" in level[0] for level in own):
        title = plain(names.pop()) + (f" ({', '.join(shared)})" if shared else "")
        return title, ["clean"] + [level[0].partition("=")[2] for level in own]
    return None, ["clean", *levels]


def _cycle(items: Sequence[str], n: int) -> list[str]:
    return [items[place % len(items)] for place in range(n)]


def training_chart(network: str, records: Sequence[RunRecord], arms: Sequence[LegendItem]) -> str | None:
    """Validation accuracy of every run of a network by epoch, one line a run, as SVG; None where no epoch was recorded."""
    import altair as alt

    data = [
        {"run": record.run, "arm": record.arm, "epoch": epoch.epoch, "accuracy": _percent(epoch.validation_accuracy)}
        for record in records
        for epoch in record.history
        if known(epoch.validation_accuracy)
    ]
    if not data:
        return None
    names = [arm.name for arm in arms]
    base = alt.Chart(alt.Data(values=data)).encode(
        x=alt.X("epoch:Q", title="epoch", axis=alt.Axis(tickMinStep=1, format="d", grid=False)),
        y=alt.Y("accuracy:Q", title="validation accuracy, %", scale=alt.Scale(domain=[0, 100]), axis=alt.Axis(tickCount=5, grid=True)),
        color=alt.Color("arm:N", scale=alt.Scale(domain=names, range=[arm.colour for arm in arms]), legend=None),
        detail="run:N",
    )
    shape = alt.Shape("arm:N", scale=alt.Scale(domain=names, range=[arm.shape for arm in arms]), legend=None)
    lines = base.mark_line(strokeWidth=1.8, aria=False)
    marks = base.mark_point(filled=True, size=36, opacity=1, aria=False).encode(shape=shape)
    chart = alt.layer(lines, marks).properties(width=WIDTH - 60, height=170)
    return svg(chart, f"{network}: validation accuracy after each epoch, one line for each run")


def svg(chart: Any, description: str) -> str:
    """A chart as an SVG element that takes the width it is given, with a description for those who do not see it."""
    import altair
    import vl_convert

    inks: dict[str, Any] = dict(labelColor=INK, titleColor=FAINT, gridColor=GRID, domainColor=GRID, tickColor=GRID)
    # `configure` first: it replaces what the others have set.
    chart = chart.configure(background="transparent", font="system-ui, sans-serif", padding=4)
    chart = chart.configure_axis(
        **inks, labelFontSize=FONT_PX, titleFontSize=FONT_PX, titleFontWeight="normal", titlePadding=8
    ).configure_view(stroke=None)
    with altair.data_transformers.disable_max_rows():
        # Not validated: checking a specification against Vega-Lite's schema takes as long as drawing it.
        specification = chart.to_dict(validate=False)
    text = vl_convert.vegalite_to_svg(specification, vl_version="_".join(altair.SCHEMA_VERSION.lstrip("v").split(".")[:2]))
    box = re.search(r'viewBox="[^"]*"', text)
    assert box is not None, "vl-convert gives every SVG a viewBox"
    label = _escaped(description)
    # The size goes, the box stays: the picture then fills whatever width the page has.
    return re.sub(r"^<svg[^>]*>", lambda _: f'<svg class="chart" role="img" aria-label="{label}" {box[0]}>', text, count=1)


def _escaped(text: str) -> str:
    from markupsafe import escape

    return str(escape(text))
