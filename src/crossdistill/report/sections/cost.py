"""The page's section "Cost"."""

from typing import Any

from crossdistill.report.study_files import StudyFiles
from crossdistill.report.tables import cost_table

TITLE, PLACE = "Cost", 90


def contents(study: StudyFiles) -> dict[str, Any]:
    """What the template prints."""
    return dict(cost=cost_table(study.records) if study.records else None)
