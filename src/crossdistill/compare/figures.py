"""The results table, looked up by run and figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from crossdistill.compare.observed import AVERAGE, CLEAN
from crossdistill.core.records import CLEAN_ACCURACY, ResultRow

ACCURACY = "accuracy"
SIDING, WRONG_SIDING = "side_with_teacher", "side_with_teacher_wrong"

CONTRASTED = frozenset({"share", "retention", "probability", "kappa", "score", "share of the side"})
"""Units whose scale has points, two of which are the least that a contrast reads: counts, pixels, logits and nats have none."""

WITH_CONTRASTS_OF_THEIR_OWN = frozenset({CLEAN_ACCURACY, "accuracy_residual_share"})
"""The clean accuracy on the images that a probe kept is nearly the one on all of them; the residual has the contrast accuracy_matched."""


@dataclass(frozen=True)
class Figure:
    """What is compared: a metric on a set at a level."""

    probe: str
    level: str
    metric: str


CLEAN_FIGURE = Figure(CLEAN[0], CLEAN[1], ACCURACY)


class Figures:
    """The results table, looked up by run and figure; teacher-relative figures by their teacher run as well."""

    def __init__(self, results: Sequence[ResultRow]) -> None:
        self._rows: dict[tuple[str, Figure, str | None], ResultRow] = {}
        self._own: dict[tuple[str, Figure], ResultRow] = {}
        self._contrasted: dict[str, list[Figure]] = {}
        for row in results:
            figure = Figure(row.probe, row.level, row.metric)
            self._rows[row.run, figure, row.teacher_run] = self._own[row.run, figure] = row
            # Figures of networks that no teacher stands beside: these, and not fidelity, are contrasted.
            if row.teacher_run is None and row.unit in CONTRASTED and row.metric not in WITH_CONTRASTS_OF_THEIR_OWN:
                self._contrasted.setdefault(row.run, []).append(figure)

    def contrasted(self, runs: Sequence[str]) -> list[Figure]:
        """The figures to be contrasted that any of the runs has, in the order of the table. The runs must have had no teacher."""
        return list(dict.fromkeys(figure for run in runs for figure in self._contrasted.get(run, ())))

    def places(self, runs: Sequence[str], metric: str) -> list[tuple[str, str]]:
        """The (probe, level) at which any of the runs has the metric, in the order of the table."""
        wanted = set(runs)
        return list(dict.fromkeys((f.probe, f.level) for run, f in self._own if f.metric == metric and run in wanted))

    def of(self, runs: Sequence[str], figure: Figure) -> list[ResultRow]:
        """The figure's rows of those runs that have it."""
        return [self._own[run, figure] for run in runs if (run, figure) in self._own]

    def beside(self, runs: Sequence[str], teachers: Sequence[str], figure: Figure) -> list[ResultRow]:
        """The rows of a teacher-relative figure, each run beside any of the teacher runs."""
        return [self._rows[run, figure, teacher] for run in runs for teacher in teachers if (run, figure, teacher) in self._rows]

    def clean_accuracy(self, run: str, probe: str, level: str) -> float | None:
        """Clean accuracy over the images that a probe kept, which are all of them where nothing else is said."""
        row = self._own.get((run, Figure(probe, level, CLEAN_ACCURACY))) or self._own.get((run, CLEAN_FIGURE))
        return row.value if row else None


def primary_figure(shown: Sequence[Figure], probe: str, metric: str = ACCURACY) -> Figure:
    """The figure of a declared contrast: at "auc", or at the only level; there even when nothing was observed."""
    levels = [figure.level for figure in shown if (figure.probe, figure.metric) == (probe, metric)]
    return Figure(probe, levels[0] if len(levels) == 1 else AVERAGE, metric)


def values(rows: Sequence[ResultRow]) -> np.ndarray:
    """One figure a run; the rows must be readable."""
    return np.array([row.value for row in rows], dtype=np.float64)


def unreadable(arm: str, rows: Sequence[ResultRow]) -> str | None:
    """None where every run of an arm has its figure, else the reason why the arm cannot be read."""
    if not rows:
        return f"no {arm} run has this figure"
    lacking = next((row for row in rows if row.value is None), None)
    return lacking and f"{arm} run {lacking.run}: {lacking.reason}"
