"""The results table, looked up by run and figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from crossdistill.core.records import CLEAN_ACCURACY, ResultRow
from crossdistill.metrics._answers import CHANCE, COUNT, NOT_TRUSTED


@dataclass(frozen=True)
class Figure:
    """What is compared: a metric on a set at a level."""

    probe: str
    level: str
    metric: str


class Figures:
    """The results table, looked up by run and figure; teacher-relative figures by their teacher run as well."""

    def __init__(self, results: Sequence[ResultRow]) -> None:
        self._rows = {(r.run, Figure(r.probe, r.level, r.metric), r.teacher_run): r for r in results}
        self._own = {(r.run, Figure(r.probe, r.level, r.metric)): r for r in results}
        # Figures of networks that no teacher stands beside: these, and not fidelity, are contrasted. The clean accuracy on the images
        # that a probe kept is there to be read beside the probe's, and is nearly the one on all of them, which is contrasted.
        self._contrasted: dict[str, list[Figure]] = {}
        for r in results:
            if r.teacher_run is None and r.unit not in (CHANCE, COUNT, NOT_TRUSTED) and r.metric != CLEAN_ACCURACY:
                self._contrasted.setdefault(r.run, []).append(Figure(r.probe, r.level, r.metric))

    def contrasted(self, runs: Sequence[str]) -> list[Figure]:
        """The figures to be contrasted that any of the runs has, in the order of the table."""
        return list(dict.fromkeys(figure for run in runs for figure in self._contrasted.get(run, ())))

    def of(self, runs: Sequence[str], figure: Figure) -> list[ResultRow]:
        """The figure's rows of those runs that have it."""
        return [self._own[run, figure] for run in runs if (run, figure) in self._own]

    def beside(self, runs: Sequence[str], teachers: Sequence[str], figure: Figure) -> list[ResultRow]:
        """The rows of a teacher-relative figure, each run beside any of the teacher runs."""
        return [self._rows[run, figure, teacher] for run in runs for teacher in teachers if (run, figure, teacher) in self._rows]


def values(rows: Sequence[ResultRow]) -> np.ndarray:
    """One figure a run; the rows must be readable."""
    return np.array([row.value for row in rows], dtype=np.float64)


def unreadable(arm: str, rows: Sequence[ResultRow]) -> str | None:
    """None where every run of an arm has its figure, else the reason why the arm cannot be read."""
    if not rows:
        return f"no {arm} run has this figure"
    lacking = next((row for row in rows if row.value is None), None)
    return lacking and f"{arm} run {lacking.run}: {lacking.reason}"
