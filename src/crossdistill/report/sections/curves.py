"""The page's section "Accuracy by level": for each pair one drawing a probe."""

from typing import Any

from crossdistill.compare.results import FEWEST_LEVELS
from crossdistill.report import charts
from crossdistill.report.charts import Drawing
from crossdistill.report.names import plain
from crossdistill.report.sections.probes import short_remark
from crossdistill.report.study_files import PlannedPair, StudyFiles
from crossdistill.report.words import count, percent

TITLE, PLACE = "Curves", 40


def contents(study: StudyFiles) -> dict[str, Any]:
    """What the template prints."""
    chance = study.chance_on("clean")
    return dict(
        curves=curves(study),
        series_legends=[(pair.title, charts.series_legend(pair)) for pair in study.pairs],
        chance=percent(chance) if chance else None,
    )


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
