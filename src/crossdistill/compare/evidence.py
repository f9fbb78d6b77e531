"""What a contrast rests on: the difference between the arms, the teacher's gap, and whether the method acted at all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from crossdistill.compare.figures import unreadable, values
from crossdistill.compare.verdicts import ENOUGH_RUNS, points
from crossdistill.core.records import ResultRow
from crossdistill.core.types import Estimate
from crossdistill.metrics.inheritance import inheritance
from crossdistill.stats import Z, difference_spread, has_spread, t_quantile, welch


@dataclass(frozen=True)
class Comparison:
    """Students minus a control: the difference with its interval, its p, and what the study could have found."""

    difference: Estimate
    p: float | None = None
    minimum_detectable: float | None = None
    runs_needed: int | None = None
    source: str = ""  # the one procedure that gave interval and p, in words


@dataclass(frozen=True)
class Action:
    """Whether a method acted: its students' gain in agreement with the teacher, and why it is thought not to have acted."""

    gained_agreement: float | None = None
    inaction: str | None = None


def arm_comparison(students: Sequence[ResultRow], independents: Sequence[ResultRow]) -> Comparison:
    """The metric `inheritance` of one figure's rows.

    Where there is no interval (one run, or no spread between runs) the bare difference stays, marked as no claim.
    """
    if refusal := unreadable("student", students) or unreadable("independent", independents):
        return Comparison(Estimate.not_measurable(refusal))
    a, b = values(students), values(independents)
    found = inheritance(a, b)
    if found["difference"].value is None:
        bare = float(a.mean() - b.mean())
        reason = f"{found['difference'].reason} (the bare difference of {points(bare)} is no claim)"
        return Comparison(replace(found["difference"], value=bare, reason=reason))
    needed = found["runs_needed"].value
    runs_needed = None if needed is None else int(needed)
    return Comparison(found["difference"], found["p_value"].value, found["minimum_detectable"].value, runs_needed)


def teacher_gap(teachers: Sequence[ResultRow], independents: Sequence[ResultRow]) -> Estimate:
    """Teacher minus independent with its 95 % interval: Welch over runs where there are two teacher runs or more.

    With one teacher run the teacher is this checkpoint, known up to its image interval: with h half its interval's width,
    variance = (h / 1.96)^2 + var(independent runs) / runs, and t has the Welch-Satterthwaite degrees of freedom with those of
    the first part infinite. The same formula serves where no arm has any spread between runs.
    """
    if refusal := unreadable("teacher", teachers) or unreadable("independent", independents):
        return Estimate.not_measurable(refusal)
    a, b = values(teachers), values(independents)
    if len(b) < 2:
        return Estimate.not_measurable("1 independent run: the gap to the teacher takes at least 2")
    if len(a) > 1 and has_spread(a, b):
        result = welch(a, b)
        return Estimate(result.difference, result.low, result.high, n=min(len(a), len(b)))
    half = float(np.mean([(row.high - row.low) / 2 for row in teachers if row.low is not None and row.high is not None] or [0.0]))
    spread = difference_spread((half / Z) ** 2, math.inf, float(np.var(b, ddof=1)) / len(b), len(b) - 1)
    gap, reach = float(a.mean() - b.mean()), t_quantile(spread.freedom) * spread.standard_error
    return Estimate(gap, gap - reach, gap + reach, n=min(len(a), len(b)))


def action(
    agreement: tuple[Sequence[ResultRow], Sequence[ResultRow]], divergence: tuple[Sequence[ResultRow], Sequence[ResultRow]]
) -> Action:
    """Whether students stand closer to their teacher than independents do; each argument is (students' rows, independents').

    The method did not act where neither agreement nor KL is better than the independents'. Below 5 runs an arm the means
    alone decide: intervals from 2 runs would say it of nearly every method. With 5 or more, Welch's interval of agreement or
    of KL must lie on the better side of zero. Where fidelity was not measured nothing is said.
    """
    for students, independents in (agreement, divergence):
        if unreadable("student", students) or unreadable("independent", independents):
            return Action()
    agreed, agreed_without, kl, kl_without = (values(rows) for rows in (*agreement, *divergence))
    gained = float(agreed.mean() - agreed_without.mean())
    if _higher(agreed, agreed_without) or _higher(-kl, -kl_without):
        return Action(gained)
    reason = (
        f"students agree with their teacher on {100 * agreed.mean():.1f} % of clean images and independents on "
        f"{100 * agreed_without.mean():.1f} %, at a mean KL of {kl.mean():.3f} and {kl_without.mean():.3f} nats: no closer to the teacher"
    )
    return Action(gained, reason)


def _higher(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether the mean of a is above that of b: by Welch's interval with enough runs, else by the means."""
    if min(len(a), len(b)) < ENOUGH_RUNS or not has_spread(a, b):
        return float(a.mean()) > float(b.mean())
    return welch(a, b).low > 0
