"""The page's drawings with their headings: accuracy by level, and how the networks trained."""

from dataclasses import dataclass

from crossdistill.compare.results import FEWEST_LEVELS
from crossdistill.report import charts, tables
from crossdistill.report.charts import LegendItem
from crossdistill.report.names import plain
from crossdistill.report.probe_section import short_remark
from crossdistill.report.study_files import PlannedPair, StudyFiles
from crossdistill.report.words import count, percent


@dataclass(frozen=True)
class Drawing:
    """A chart as SVG with its heading and a remark."""

    title: str
    svg: str
    remark: str = ""


def curves(study: StudyFiles) -> list[tuple[PlannedPair, list[Drawing]]]:
    """Accuracy by level: for each pair one drawing a probe."""
    by_pair = []
    probes = [probe for probe, levels in study.level_order.items() if any(levels) and probe != "clean"]
    for pair in study.pairs:
        drawn = [(probe, charts.accuracy_curves(study, pair, probe)) for probe in probes]
        drawings = [Drawing(plain(probe), drawing, _curve_remark(study, probe)) for probe, drawing in drawn if drawing]
        if drawings:
            by_pair.append((pair, drawings))
    return by_pair


def _curve_remark(study: StudyFiles, probe: str) -> str:
    levels = [level for level in study.level_order[probe] if level != "auc"]
    short = f"a curve of {count(len(levels), 'level')} only" if len(levels) < FEWEST_LEVELS else ""
    chance = study.chance_on(probe)
    other = f"chance on these images: {percent(chance)}" if chance != study.chance_on("clean") else ""
    return "; ".join(part for part in (short, other, short_remark(study, probe)) if part)


def series_legend(pair: PlannedPair) -> list[LegendItem]:
    """The networks of a pair's drawings."""
    colours = charts.series_colours(tables.series_of(pair))
    return [LegendItem(name, colours[name], charts.SERIES_SHAPES[i % len(charts.SERIES_SHAPES)]) for i, name in enumerate(colours)]


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
