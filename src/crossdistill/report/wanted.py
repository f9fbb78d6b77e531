"""Verdicts sorted by what the study file calls welcome (`wanted: {scramble: up}`). This sorts sentences; it changes no number."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from crossdistill.compare.verdicts import ENOUGH_RUNS
from crossdistill.core.records import InheritanceRow, Verdict
from crossdistill.report.names import shown_verdict
from crossdistill.report.readings import how_telling
from crossdistill.report.words import known

Direction = str  # "up" or "down"


@dataclass(frozen=True)
class Wish:
    """Rows of one kind under their heading."""

    title: str
    meaning: str
    rows: list[InheritanceRow]


def direction_of(row: InheritanceRow, wanted: Mapping[str, Direction]) -> Direction | None:
    """The direction that would be welcome: by the probe's name of accuracy on it, else by the figure's; None where nothing was said.

    A figure's name may stand for those that begin with it: `cue_choice` for `cue_choice_shape`. The longest that fits counts.
    """
    if row.metric == "accuracy" and row.probe in wanted:
        return wanted[row.probe]
    fitting = [name for name in wanted if row.metric == name or row.metric.startswith(f"{name}_")]
    return wanted[max(fitting, key=len)] if fitting else None


def by_wish(rows: Sequence[InheritanceRow], wanted: Mapping[str, Direction]) -> list[Wish]:
    """The rows of which something is wanted, sorted, and those of which nothing was said last; empty groups are left out.

    Of a row with fewer than five runs an arm there is nothing to sort by: such stand in one group, with the direction that is wanted.
    """
    said = [row for row in rows if direction_of(row, wanted)]
    groups: dict[str, list[InheritanceRow]] = {title: [] for title in _MEANINGS}
    for row in said:
        groups[TOO_FEW if 0 < row.n_runs < ENOUGH_RUNS else _group(row, wanted)].append(row)
    groups[NOT_SAID] = [row for row in rows if not direction_of(row, wanted)]
    return [Wish(title, meaning, sorted(groups[title], key=how_telling)) for title, meaning in _MEANINGS.items() if groups[title]]


def _group(row: InheritanceRow, wanted: Mapping[str, Direction]) -> str:
    up = direction_of(row, wanted) == "up"
    verdict = shown_verdict(row)
    if verdict == "equivalent" and known(row.teacher_gap) and row.teacher_gap:
        return NOT_SHOWN if (row.teacher_gap > 0) == up else AVOIDED
    welcome = ((row.difference or 0) > 0) == up
    return _MOVED.get((verdict, welcome), UNSORTED)


NOT_SHOWN, AVOIDED, UNSORTED, NOT_SAID = "Wanted, not shown", "Unwanted, avoided", "Cannot be sorted", "Not said"
TOO_FEW = "Too few runs to sort"

_MOVED: Mapping[tuple[Verdict, bool], str] = {
    ("inherited", True): "Wanted and inherited",
    ("inherited", False): "Unwanted and inherited",
    ("moved_away", True): "Wanted, and away from the teacher",
    ("moved_away", False): "Unwanted, and away from the teacher",
}

_MEANINGS = {
    _MOVED["inherited", True]: "the student moved the wanted way, towards its teacher",
    _MOVED["inherited", False]: "the student moved the other way, towards its teacher",
    _MOVED["moved_away", True]: "the student moved the wanted way, though its teacher stands on the other side",
    _MOVED["moved_away", False]: "the student moved the other way, though its teacher stands on the wanted side",
    NOT_SHOWN: "the teacher stands on the wanted side, and the student was shown to stay where it would be without it",
    AVOIDED: "the teacher stands on the unwanted side, and the student was shown to stay where it would be without it",
    UNSORTED: "nothing was shown to move or to stay",
    TOO_FEW: "a verdict takes at least 5 runs an arm; these are the differences, and the way that would be welcome",
    NOT_SAID: "the study file names neither the probe nor the figure as wanted",
}
"""The groups in the order of the page."""
