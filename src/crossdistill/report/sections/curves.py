"""The page's section "Accuracy by level": for each pair one drawing a probe."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from crossdistill.compare.results import FEWEST_LEVELS
from crossdistill.core.records import CLEAN_ACCURACY, ResultRow
from crossdistill.report import charts
from crossdistill.report.charts import FAINT, SERIES_SHAPES, WIDTH
from crossdistill.report.intervals import MEANING, interval_of
from crossdistill.report.names import plain
from crossdistill.report.sections.probes import short_remark
from crossdistill.report.study_files import PlannedPair, StudyFiles
from crossdistill.report.tables import Series, series_of
from crossdistill.report.words import count, in_percent, percent

TITLE, PLACE = "Curves", 40

APART = 0.05  # levels between the marks of two networks, whose intervals would otherwise hide each other


@dataclass(frozen=True)
class Curve:
    """The chart of a probe, as SVG, with a remark."""

    probe: str
    title: str
    svg: str
    remark: str


def contents(study: StudyFiles) -> dict[str, Any]:
    """What the template prints."""
    chance = study.chance_on("clean")
    legends = {pair.index: charts.series_legend(pair) for pair in study.pairs}
    return dict(curves=curves(study), series_legends=legends, chance=percent(chance) if chance else None, intervals=MEANING)


def curves(study: StudyFiles) -> list[tuple[PlannedPair, list[Curve]]]:
    """Accuracy by level: for each pair one drawing a probe."""
    probes = [probe for probe, levels in study.level_order.items() if any(levels) and probe != "clean"]
    by_pair = []
    for pair in study.pairs:
        drawn = [(probe, accuracy_curves(study, pair, probe)) for probe in probes]
        if found := [Curve(probe, plain(probe), drawing, _remark(study, probe)) for probe, drawing in drawn if drawing]:
            by_pair.append((pair, found))
    return by_pair


def _remark(study: StudyFiles, probe: str) -> str:
    levels = [level for level in study.level_order[probe] if level != "auc"]
    short = f"a curve of {count(len(levels), 'level')} only" if len(levels) < FEWEST_LEVELS else ""
    chance = study.chance_on(probe)
    other = f"chance on these images: {percent(chance)}" if chance != study.chance_on("clean") else ""
    return "; ".join(part for part in (short, other, short_remark(study, probe)) if part)


def accuracy_curves(study: StudyFiles, pair: PlannedPair, probe: str) -> str | None:
    """Accuracy of a pair's networks from clean images through every level of a probe, as SVG; None where nothing was observed."""
    levels = ["", *(level for level in study.level_order.get(probe, ()) if level != "auc")]
    data, all_series = [], series_of(pair)
    for line, series in enumerate(all_series):
        aside = APART * (line - (len(all_series) - 1) / 2)
        for place, level in enumerate(levels):
            found = interval_of(_rows(study, series, probe, level))
            if found:
                ends = {"low": in_percent(found.low), "high": in_percent(found.high), "accuracy": in_percent(found.value)}
                about = {"series": series.name, "place": place, "x": place + aside}
                data.append({**about, "label": f"{series.name}, {level or 'clean'}: {found.words}", **ends})
    if not any(point["place"] for point in data):
        return None
    chart = _chart(data, levels[1:], all_series, study.chance_on(probe))
    return charts.svg(chart, f"{pair.title}: accuracy on {plain(probe)} images by level; the section of all figures has the numbers")


def _rows(study: StudyFiles, series: Series, probe: str, level: str) -> list[ResultRow]:
    """The accuracies of a series on a level; "" is clean: on the images that the probe kept, where it left some out."""
    place = (probe, level, "accuracy")
    if not level:
        place = (probe, study.dropping[probe], CLEAN_ACCURACY) if probe in study.dropping else ("clean", "", "accuracy")
    return [row for row in study.figures.get(place, ()) if series.holds(row)]


def _chart(data: list[dict[str, Any]], levels: list[str], all_series: list[Series], chance: float | None) -> Any:
    import altair as alt

    names = [series.name for series in all_series]
    shapes = [SERIES_SHAPES[place % len(SERIES_SHAPES)] for place in range(len(names))]
    color = alt.Color("series:N", scale=alt.Scale(domain=names, range=list(charts.series_colours(all_series).values())), legend=None)
    shape = alt.Shape("series:N", scale=alt.Scale(domain=names, range=shapes), legend=None)
    setting, labels = axis_labels(levels)
    axis = alt.Axis(
        values=list(range(len(labels))),
        labelExpr=f"{json.dumps(labels)}[datum.value]",
        labelAngle=-35 if max(map(len, labels)) > 8 else 0,
        labelOverlap=False,
        labelLimit=120,
        grid=False,
    )
    x = alt.X("x:Q", title=setting, scale=alt.Scale(domain=[-0.25, len(labels) - 0.75], nice=False), axis=axis)
    y = alt.Y("accuracy:Q", title="accuracy, %", scale=alt.Scale(domain=[0, 100]), axis=alt.Axis(tickCount=5, grid=True))
    base = alt.Chart(alt.Data(values=data))
    layers = [
        base.mark_rule(strokeWidth=2.4, opacity=0.6, aria=False).encode(x=x, y=alt.Y("low:Q"), y2="high:Q", color=color),
        base.mark_line(strokeWidth=2, aria=False).encode(x=x, y=y, color=color),
        charts.marked(base.mark_point(filled=True, size=60, opacity=1).encode(x=x, y=y, color=color, shape=shape)),
    ]
    if chance is not None:
        line = alt.Chart(alt.Data(values=[{}])).mark_rule(color=FAINT, strokeDash=[4, 4], aria=False)
        layers.insert(0, line.encode(y=alt.datum(100 * chance)))
    return alt.layer(*layers).properties(width=WIDTH - 60, height=190)


def axis_labels(levels: Sequence[str]) -> tuple[str | None, list[str]]:
    """The axis title and tick labels: where the levels differ in one setting, it and what they share are named once.

    >>> axis_labels(["fraction=0.05,sigma=0.5", "fraction=0.2,sigma=0.5"])
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
