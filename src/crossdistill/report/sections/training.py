"""The page's section "Training": validation accuracy and the terms of the loss, of every network by epoch."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from crossdistill.core.records import EpochRow, RunRecord
from crossdistill.report import charts, tables
from crossdistill.report.charts import WIDTH, Drawing, LegendItem
from crossdistill.report.names import plain
from crossdistill.report.study_files import StudyFiles
from crossdistill.report.words import count, known, percent

TITLE, PLACE = "Training", 80

UNFOLDED = 4
"""Networks whose drawings are open from the start."""

MARKS = 150
"""Marks of a drawing, each with its value to be read, at most: of long trainings every so many epochs have one."""


@dataclass(frozen=True)
class Trained:
    """The drawings of one network's trainings: its accuracy, and the terms of its losses."""

    network: str
    accuracy: Drawing
    losses: list[Drawing]
    unfolded: bool


def contents(study: StudyFiles) -> dict[str, Any]:
    """What the template prints."""
    legend = training_legend(study)
    controls = sum(record.control is not None or record.arm == "second_independent" for record in study.records)
    return dict(training=training(study), training_legend=legend, controls=count(controls, "run") if controls else "")


def training_legend(study: StudyFiles) -> list[LegendItem]:
    """The arms that were trained, whatever network they belong to."""
    arms = {series.arm: series for pair in study.pairs for series in tables.series_of(pair)}
    colours = charts.series_colours(list(arms.values()))
    items = [
        LegendItem(arm, colours[series.name], charts.SERIES_SHAPES[place % len(charts.SERIES_SHAPES)])
        for place, (arm, series) in enumerate(arms.items())
    ]
    return [item for item in items if any(record.arm == item.name for record in study.records)]


def training(study: StudyFiles) -> list[Trained]:
    """The drawings of every network that was trained."""
    legend = training_legend(study)
    arms = {item.name for item in legend}
    found: list[Trained] = []
    for network in dict.fromkeys(record.student for record in study.records):
        runs = [record for record in study.records if record.student == network and record.arm in arms]
        accuracy = accuracy_chart(network, runs, legend)
        if accuracy:
            drawn = Drawing("validation accuracy", accuracy, count(len(runs), "run"))
            found.append(Trained(network, drawn, losses(network, runs, legend), len(found) < UNFOLDED))
    return found


def accuracy_chart(network: str, records: Sequence[RunRecord], arms: Sequence[LegendItem]) -> str | None:
    """Validation accuracy of every run of a network by epoch, one line a run, as SVG; None where no epoch was recorded."""
    said = f"{network}: validation accuracy after each epoch, one line for each run"
    return epoch_chart(records, arms, lambda row: 100 * row.validation_accuracy, "validation accuracy, %", said, domain=(0, 100))


def losses(network: str, records: Sequence[RunRecord], arms: Sequence[LegendItem]) -> list[Drawing]:
    """The whole loss and each of its terms, unweighted, by epoch."""
    names = dict.fromkeys(term for record in records for row in record.history for term in row.terms)
    drawn = {"whole loss": epoch_chart(records, arms, lambda row: row.loss, "loss", f"{network}: the whole loss by epoch")}
    for name in names:
        said = f"{network}: the term {name} of the loss by epoch, before it is weighted"
        drawn[plain(name)] = epoch_chart(records, arms, lambda row, name=name: row.terms.get(name), name, said)
    remarks = {"whole loss": "weighted; methods have terms of their own, so that theirs cannot be compared"}
    return [Drawing(title, drawing, remarks.get(title, "")) for title, drawing in drawn.items() if drawing]


def epoch_chart(
    records: Sequence[RunRecord], arms: Sequence[LegendItem], value: Callable[[EpochRow], float | None], title: str, said: str, *,
    domain: tuple[float, float] | None = None,
) -> str | None:  # fmt: skip
    """A figure of every run by epoch, one line a run and one colour an arm, as SVG; None where no epoch has it."""
    import altair as alt

    data = [point for record in records for point in _points(record, value, shares=domain is not None)]
    if not data:
        return None
    names = [arm.name for arm in arms]
    scale = alt.Scale(domain=list(domain)) if domain else alt.Scale(zero=False)
    base = alt.Chart(alt.Data(values=data)).encode(
        x=alt.X("epoch:Q", title="epoch", axis=alt.Axis(tickMinStep=1, format="d", grid=False)),
        y=alt.Y("value:Q", title=title, scale=scale, axis=alt.Axis(tickCount=5, grid=True)),
        color=alt.Color("arm:N", scale=alt.Scale(domain=names, range=[arm.colour for arm in arms]), legend=None),
        detail="run:N",
    )
    shape = alt.Shape("arm:N", scale=alt.Scale(domain=names, range=[arm.shape for arm in arms]), legend=None)
    every = math.ceil(len(data) / MARKS)
    shown = f"(datum.left % {every}) === 0"  # the last epoch always has its mark
    lines = base.mark_line(strokeWidth=1.8, aria=False)
    marks = charts.marked(base.mark_point(filled=True, size=36, opacity=1).encode(shape=shape).transform_filter(shown))
    return charts.svg(alt.layer(lines, marks).properties(width=WIDTH - 60, height=170), said)


def _points(record: RunRecord, value: Callable[[EpochRow], float | None], *, shares: bool) -> list[dict[str, Any]]:
    found = [(row.epoch, number) for row in record.history if known(number := value(row)) and number is not None]
    about = {"run": record.run, "arm": record.arm}
    return [
        {**about, "epoch": epoch, "value": number, "left": len(found) - place, "label": _label(record, epoch, number, shares)}
        for place, (epoch, number) in enumerate(found, 1)
    ]


def _label(record: RunRecord, epoch: int, number: float, shares: bool) -> str:
    return f"{record.arm}, seed {record.seed}, epoch {epoch}: {percent(number / 100) if shares else f'{number:.4g}'}"
