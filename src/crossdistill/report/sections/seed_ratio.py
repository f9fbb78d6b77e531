"""The page's section "The raw ratio, for comparison only": the figure of the project that this one grew from."""

from typing import Any

from crossdistill.report.study_files import StudyFiles
from crossdistill.report.tables import metric_table

TITLE, PLACE = "Raw ratio", 100


def contents(study: StudyFiles) -> dict[str, Any]:
    """What the template prints."""
    return dict(seed_ratios=metric_table(study, "Probe accuracy / clean accuracy", ["seed_ratio"]))
