"""How much more students side with their teacher than second independents do, over runs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from crossdistill.compare.evidence import OF_IMAGES, Comparison
from crossdistill.compare.figures import unreadable, values
from crossdistill.compare.verdicts import points
from crossdistill.core.records import ResultRow
from crossdistill.core.types import Estimate
from crossdistill.stats import Spread, fewest_runs, has_spread, minimum_detectable_effect, one_sample


def mean_excess(rows: Sequence[ResultRow]) -> Comparison:
    """The mean over run seeds of each run's excess over its second independent, with Student's t interval and p.

    One row a run. Student and second independent of a seed face the same teacher and the same independent, so that the seeds' excesses
    are the sample, and no two-sample test is due. `runs_needed` are the seeds at which the observed mean would be found in
    80 % of studies. With one run the interval is its own, over images, and there is no p. Not measurable where a row is not, or
    where all runs have the same excess.
    """
    if refusal := unreadable("student", rows):
        return Comparison(Estimate.not_measurable(refusal, n=len(rows)))
    if len(rows) == 1:
        (only,) = rows
        if only.low is None or only.high is None:
            return _bare(rows, "one run, and an excess that has no interval over images")
        return Comparison(Estimate(only.value, only.low, only.high, n=1, unit="difference"), source=OF_IMAGES)
    excesses = values(rows)
    if not has_spread(excesses):
        return _bare(rows, f"all {len(rows)} runs gave the same excess: there is no spread between runs to judge by")
    found, deviation = one_sample(excesses), float(np.std(excesses, ddof=1))
    return Comparison(
        Estimate(found.difference, found.low, found.high, n=len(rows), unit="difference"),
        found.p,
        minimum_detectable_effect(*found.spread),
        fewest_runs(found.difference, lambda runs: Spread(deviation / runs**0.5, runs - 1)),
        f"Student's t over the excesses of {len(rows)} runs",
    )


def _bare(rows: Sequence[ResultRow], why: str) -> Comparison:
    bare = float(values(rows).mean())
    reason = f"{why} (the bare difference of {points(bare)} is no claim)"
    return Comparison(Estimate(bare, n=len(rows), unit="difference", status="not_measurable", reason=reason))
