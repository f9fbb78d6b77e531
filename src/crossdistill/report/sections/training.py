"""The page's section "Training": validation accuracy of every network by epoch."""

from typing import Any

from crossdistill.report import charts, tables
from crossdistill.report.charts import Drawing, LegendItem
from crossdistill.report.study_files import StudyFiles
from crossdistill.report.words import count

TITLE, PLACE = "Training", 80


def contents(study: StudyFiles) -> dict[str, Any]:
    """What the template prints."""
    return dict(training=training(study), training_legend=training_legend(study))


def training_legend(study: StudyFiles) -> list[LegendItem]:
    """The arms that were trained, whatever network they belong to."""
    arms = {series.arm: series for pair in study.pairs for series in tables.series_of(pair)}
    colours = charts.series_colours(list(arms.values()))
    items = [
        LegendItem(arm, colours[series.name], charts.SERIES_SHAPES[place % len(charts.SERIES_SHAPES)])
        for place, (arm, series) in enumerate(arms.items())
    ]
    return [item for item in items if any(record.arm == item.name for record in study.records)]


def training(study: StudyFiles) -> list[Drawing]:
    """Validation accuracy by epoch: one drawing a network."""
    legend = training_legend(study)
    arms = {item.name for item in legend}
    networks = dict.fromkeys(record.student for record in study.records)
    runs = {network: [r for r in study.records if r.student == network and r.arm in arms] for network in networks}
    drawn = [(network, charts.training_chart(network, found, legend)) for network, found in runs.items()]
    return [Drawing(network, drawing, count(len(runs[network]), "run")) for network, drawing in drawn if drawing]
