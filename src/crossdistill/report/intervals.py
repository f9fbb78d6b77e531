"""The mean of a figure over runs, with the 95 % interval that its charts draw."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

import numpy as np

from crossdistill.core.records import ResultRow
from crossdistill.report.words import SPACE, count, figure, known
from crossdistill.stats.intervals import mean_interval

ENOUGH_RUNS = 3
"""Runs from which an interval is taken over them: of two, Student's interval is thirteen times as wide as their standard error."""

SHARES = ("share", "probability")
"""Units of figures that lie between 0 and 1, and their intervals with them."""


@dataclass(frozen=True)
class Interval:
    """A mean over runs between the ends of its 95 % interval; the ends are None where there is none."""

    value: float
    low: float | None
    high: float | None
    n_runs: int
    over: Literal["runs", "images"]
    unit: str

    @property
    def words(self) -> str:
        """The figure, its interval and what it rests on: "61.2 % (58.0 to 64.1), 3 runs"."""
        ends = [figure(end, self.unit).split(SPACE)[0] for end in (self.low, self.high) if end is not None]
        limits = f" ({ends[0]} to {ends[1]})" if len(ends) == 2 else ""
        return f"{figure(self.value, self.unit)}{limits}, {count(self.n_runs, 'run')}"


def interval_of(rows: Sequence[ResultRow]) -> Interval | None:
    """The mean of what could be measured, with Student's interval over three runs or more that differ, else the interval over images.

    Of several runs the latter is the mean of theirs: all answered the same images. None where nothing was measured.
    """
    measured = [row for row in rows if row.status == "ok" and known(row.value)]
    values = [row.value for row in measured if row.value is not None]
    if not values:
        return None
    # Runs that all agree, say at 100 %, have no spread to take an interval from, and are not certain for that.
    over = "runs" if len(values) >= ENOUGH_RUNS and max(values) > min(values) else "images"
    low, high = mean_interval(np.array(values)) if over == "runs" else (_mean([r.low for r in measured]), _mean([r.high for r in measured]))
    if measured[0].unit in SHARES:  # Student's knows of no end of the scale
        low, high = (None if end is None else min(max(end, 0.0), 1.0) for end in (low, high))
    return Interval(fmean(values), low, high, len(values), over, measured[0].unit)


def _mean(ends: Sequence[float | None]) -> float | None:
    found = [end for end in ends if end is not None and known(end)]
    return fmean(found) if len(found) == len(ends) else None


MEANING = (
    "Bars are 95 % intervals: Student's over runs where there are three or more that differ, else over images. They are of each network "
    "alone; whether two of them differ is said by the contrasts above."
)
"""What the intervals are, for the page."""
