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
from crossdistill.stats import Z, difference_spread, has_spread, mean_interval, t_quantile, welch

OF_IMAGES = "images of single networks: one run in an arm, no claim about the method"
"""The source of an interval that says nothing of other runs."""


@dataclass(frozen=True)
class Comparison:
    """Students minus a control: the difference with its interval, its p, and what the study could have found."""

    difference: Estimate
    p: float | None = None
    minimum_detectable: float | None = None
    runs_needed: int | None = None
    source: str = ""  # the one procedure that gave interval and p, in words; "" where there is no interval


@dataclass(frozen=True)
class Action:
    """Whether a method acted: its students' gain in agreement with the teacher, and why it is thought not to have acted."""

    gained_agreement: float | None = None
    inaction: str | None = None


def arm_comparison(
    students: Sequence[ResultRow], controls: Sequence[ResultRow], names: tuple[str, str] = ("student", "independent")
) -> Comparison:
    """Students minus controls by one figure's rows: Welch on run means (the metric `inheritance`), over images where an arm has one run.

    Where runs do not differ, the bare difference stays, marked as no claim. `names` are what the runs of each arm are called.
    """
    if refusal := unreadable(names[0], students) or unreadable(names[1], controls):
        return Comparison(Estimate.not_measurable(refusal))
    if min(len(students), len(controls)) < 2:
        return _of_single_networks(students, controls)
    found = inheritance(values(students), values(controls))
    if found["difference"].value is None:
        return _bare(students, controls, found["difference"].reason or "")
    needed = found["runs_needed"].value
    return Comparison(
        found["difference"],
        found["p_value"].value,
        found["minimum_detectable"].value,
        None if needed is None else int(needed),
        f"Welch t on run means, {len(students)} v {len(controls)} runs",
    )


def teacher_gap(teachers: Sequence[ResultRow], others: Sequence[ResultRow], name: str = "independent") -> Estimate:
    """Teacher minus independent (or another) with its 95 % interval: Welch over runs where both have two runs or more.

    A side with one run is this checkpoint, known up to its image interval: with h half its interval's width, (h / 1.96)^2 takes the
    place of var(runs) / runs, and its degrees of freedom are infinite in the Welch-Satterthwaite formula. The teachers' images serve
    also where no side has any spread between runs.
    """
    if refusal := unreadable("teacher", teachers) or unreadable(name, others):
        return Estimate.not_measurable(refusal)
    a, b = values(teachers), values(others)
    n = min(len(a), len(b))
    if n > 1 and has_spread(a, b):
        result = welch(a, b)
        return Estimate(result.difference, result.low, result.high, n=n)
    sides = _variance(teachers, of_images=len(a) < 2 or not has_spread(a, b)), _variance(others, of_images=len(b) < 2)
    if sides[0] is None or sides[1] is None:
        return Estimate.not_measurable("a network that is the only run of its arm has no interval over images: the gap is not known", n=n)
    spread = difference_spread(*sides[0], *sides[1])
    gap, reach = float(a.mean() - b.mean()), t_quantile(spread.freedom) * spread.standard_error
    return Estimate(gap, gap - reach, gap + reach, n=n)


def side_gap(second_rates: Sequence[ResultRow]) -> Estimate:
    """How much more a student that is its teacher would side with it than second independents do: 1 minus their mean rate.

    Student's t over the runs, over images where there is one run or none differs from another.
    """
    if refusal := unreadable("student", second_rates):
        return Estimate.not_measurable(refusal)
    rates = values(second_rates)
    gap, n = 1 - float(rates.mean()), len(rates)
    if n > 1 and has_spread(rates):
        low, high = mean_interval(rates)
        return Estimate(gap, 1 - high, 1 - low, n=n)
    half = image_reach(second_rates[:1])
    if half is None:
        return Estimate.not_measurable("the second independents' rate has no interval over images", n=n)
    return Estimate(gap, gap - half, gap + half, n=n)


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
    nearer = gained > 0 or float(kl.mean()) < float(kl_without.mean())
    closer = "closer to the teacher by less than can be told from chance" if nearer else "no closer to the teacher"
    reason = (
        f"students agree with their teacher on {100 * agreed.mean():.1f} % of clean images and independents on "
        f"{100 * agreed_without.mean():.1f} %, at a mean KL of {kl.mean():.3f} and {kl_without.mean():.3f} nats: {closer}"
    )
    return Action(gained, reason)


def image_reach(rows: Sequence[ResultRow]) -> float | None:
    """Half the width of the mean's interval over images, the mean of the networks' own; None where one has no interval.

    The networks were shown the same images: their mean is hardly better known than one of them.
    """
    halves = [(row.high - row.low) / 2 for row in rows if row.low is not None and row.high is not None]
    return math.fsum(halves) / len(halves) if len(halves) == len(rows) else None


def _of_single_networks(students: Sequence[ResultRow], controls: Sequence[ResultRow]) -> Comparison:
    """The difference with +- sqrt(h_a^2 + h_b^2), h half the width of each arm's interval over images: nothing is known of other runs."""
    of_students, of_controls = image_reach(students), image_reach(controls)
    if of_students is None or of_controls is None:
        return _bare(students, controls, "one run in an arm, and a figure that has no interval over images")
    difference, reach = float(values(students).mean() - values(controls).mean()), math.hypot(of_students, of_controls)
    return Comparison(Estimate(difference, difference - reach, difference + reach, n=1, unit="difference"), source=OF_IMAGES)


def _bare(students: Sequence[ResultRow], controls: Sequence[ResultRow], why: str) -> Comparison:
    bare = float(values(students).mean() - values(controls).mean())
    refused = Estimate.not_measurable(f"{why} (the bare difference of {points(bare)} is no claim)", n=min(len(students), len(controls)))
    return Comparison(replace(refused, value=bare))


def _variance(rows: Sequence[ResultRow], *, of_images: bool) -> tuple[float, float] | None:
    """The variance of the rows' mean with its degrees of freedom, over runs or over images; None without an interval over images."""
    if not of_images:
        return float(np.var(values(rows), ddof=1)) / len(rows), len(rows) - 1
    half = image_reach(rows)
    return None if half is None else ((half / Z) ** 2, math.inf)


def _higher(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether the mean of a is above that of b: by Welch's interval with enough runs, else by the means."""
    if min(len(a), len(b)) < ENOUGH_RUNS or not has_spread(a, b):
        return float(a.mean()) > float(b.mean())
    return welch(a, b).low > 0
