"""The page's section "Provenance": how to run the study again, and what made it."""

from collections.abc import Sequence
from typing import Any

from crossdistill.core.records import RunRecord
from crossdistill.report.study_files import StudyFiles

TITLE, PLACE = "Provenance", 110


def contents(study: StudyFiles) -> dict[str, Any]:
    """What the template prints."""
    return dict(
        versions=_distinct(study.records, "software"),
        machines=_distinct(study.records, "hardware"),
        plugins=sorted({(name, source) for record in study.records for name, source in record.plugins.items()}),
    )


def _distinct(records: Sequence[RunRecord], name: str) -> list[dict[str, str]]:
    """The different values of a mapping that every record carries; one where all runs were made alike."""
    found: list[dict[str, str]] = []
    for record in records:
        if (value := getattr(record, name)) not in found:
            found.append(value)
    return found
