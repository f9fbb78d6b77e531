"""Student arm minus independent arm, by Welch's t on run means, with what the study could have found (Welch, Biometrika 1947)."""

import numpy as np

from crossdistill.core.registry import metric
from crossdistill.core.types import Estimate
from crossdistill.metrics._answers import finite
from crossdistill.stats import has_spread, minimum_detectable_effect, runs_needed, welch


@metric(source="Welch, Biometrika 1947", unit="difference")
def inheritance(student_runs: np.ndarray, independent_runs: np.ndarray) -> dict[str, Estimate]:
    """`difference` with Welch's 95 % interval, its `p_value`, the `minimum_detectable` effect and `runs_needed`, from one figure a run.

    Both arrays are [runs], in one unit. The smallest detectable effect is the true difference found in 80 % of such studies;
    `runs_needed` are the runs an arm at which the observed difference would be found in 80 %. Runs are the only sample: their
    spread already contains the images'. All four are not measurable with one run in an arm, or where no arm differs between
    its runs (equal figures say that the test set is too small or the figure saturated, not that the spread is zero).

    >>> estimates = inheritance(np.array([0.5, 0.7]), np.array([0.3, 0.5]))
    >>> round(estimates["difference"].value, 3), round(estimates["minimum_detectable"].value, 3), estimates["runs_needed"].value
    (0.2, 0.8, 9.0)
    """
    students, independents = (np.asarray(runs, dtype=np.float64) for runs in (student_runs, independent_runs))
    for name, figures in {"student_runs": students, "independent_runs": independents}.items():
        if figures.ndim != 1 or not len(figures):
            raise ValueError(f"{name} must be one figure a run, at least one, got shape {figures.shape}")
        finite(figures, name)
    n = min(len(students), len(independents))
    if refusal := _refusal(students, independents):
        return {name: Estimate.not_measurable(refusal, n=n) for name in ("difference", "p_value", "minimum_detectable", "runs_needed")}
    result = welch(students, independents)
    return {
        "difference": Estimate(result.difference, result.low, result.high, n=n, unit="difference"),
        "p_value": Estimate(result.p, n=n, unit="p"),
        "minimum_detectable": Estimate(minimum_detectable_effect(*result.spread), n=n, unit="difference"),
        "runs_needed": _runs_needed(students, independents, n),
    }


def _refusal(students: np.ndarray, independents: np.ndarray) -> str | None:
    if min(len(students), len(independents)) < 2:
        return f"{len(students)} student and {len(independents)} independent runs: the spread between runs takes at least 2 of each"
    if not has_spread(students, independents):
        return "all runs of an arm gave the same figure, in both arms: there is no spread between runs to judge by"
    return None


def _runs_needed(students: np.ndarray, independents: np.ndarray, n: int) -> Estimate:
    difference = float(students.mean() - independents.mean())
    runs = runs_needed(difference, float(students.var(ddof=1)), float(independents.var(ddof=1)))
    if runs is None:
        return Estimate.not_measurable("no number of runs within reach would tell a difference this small from zero", n=n, unit="runs")
    return Estimate(float(runs), n=n, unit="runs")
