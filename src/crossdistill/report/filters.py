"""What a reader may filter the page by."""

from dataclasses import dataclass

from crossdistill.core.records import CEILING, EARLIER_TEACHER
from crossdistill.report.names import plain
from crossdistill.report.study_files import StudyFiles

NOT_STUDENTS = ("teacher", CEILING, EARLIER_TEACHER)


@dataclass(frozen=True)
class Choice:
    """A fact that parts of the page carry as `data-FACT`, its name for readers, and {value: what stands for it in the list}."""

    fact: str
    name: str
    values: dict[str, str]


def filter_choices(study: StudyFiles) -> list[Choice]:
    """Pairs, methods, probes and seeds of the study. The page's script leaves out what no part of the page carries."""
    methods = dict.fromkeys(method for pair in study.pairs for method in pair.methods)
    seeds = sorted({record.seed for record in study.records if record.arm not in NOT_STUDENTS})
    return [
        Choice("pair", "Pair", {str(pair.index): pair.title for pair in study.pairs}),
        Choice("method", "Method", {method: method for method in methods}),
        Choice("probe", "Images", {probe: plain(probe) for probe in study.level_order}),
        Choice("seed", "Seed", {str(seed): str(seed) for seed in seeds}),
    ]
