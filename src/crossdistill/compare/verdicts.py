"""From evidence to a verdict and its sentence. The order of the questions is the order of the functions in `judge`."""

from dataclasses import dataclass
from typing import NamedTuple

from crossdistill.core.records import Verdict
from crossdistill.core.types import Estimate

ENOUGH_RUNS = 5
"""Runs an arm below which nothing is claimed: 3 v 3 permuted runs cannot give p < 0.10."""

SMALL = 0.02
"""Two points: a smaller teacher gap is nothing to inherit, and arms closer than this are equivalent."""

READABLE_GAP = 0.05
"""Five points: a teacher gap that may be as large as this could be inherited, whatever its point estimate."""

ALPHA = 0.05


@dataclass(frozen=True)
class Evidence:
    """What a verdict rests on. Differences are student minus independent, gaps teacher minus independent, in shares."""

    n_runs: int  # of the smaller arm
    difference: Estimate  # with Welch's interval, or the reason why it cannot be read
    gap: Estimate
    minimum_detectable: float | None
    runs_needed: int | None
    inaction: str | None = None  # why the method is thought not to have acted
    p_holm: float | None = None  # of a declared contrast


class Judgement(NamedTuple):
    """A verdict and the plain sentence, with numbers, that explains it."""

    verdict: Verdict
    reason: str


def judge(evidence: Evidence) -> Judgement:
    """The verdict: not_measurable before method_did_not_act before what the teacher's gap allows before what the interval says.

    Nothing to inherit: the gap is under 2 points and certainly under 5. A gap that is not told from zero otherwise leaves the
    contrast unresolved: whether there was anything to inherit is not known. With fewer than 5 runs in either arm
    the interval is never interpreted. With 5 or more: `inherited` or `moved_away` where it is off zero, toward the teacher or
    away (a declared contrast must also hold after Holm's correction); `equivalent` where it lies inside the margin of
    max(2 points, smallest detectable difference); else `unresolved`.
    """
    unreadable = next((e for e in (evidence.difference, evidence.gap) if e.status == "not_measurable"), None)
    if unreadable:
        return Judgement("not_measurable", unreadable.reason or "")
    if evidence.inaction:
        return Judgement("method_did_not_act", evidence.inaction)
    if without_gap := _without_a_gap(evidence.gap):
        return without_gap
    if evidence.n_runs < ENOUGH_RUNS:
        return _too_few_runs(evidence)
    return _reading(evidence)


def points(share: float) -> str:
    """`+3.1 points` for 0.031; never `-0.0`."""
    return f"{100 * share + 0.0:+.1f} points".replace("-0.0 ", "+0.0 ")


def with_interval(estimate: Estimate) -> str:
    """`+3.1 points (-4.0 to 10.2)`."""
    assert estimate.value is not None
    assert estimate.low is not None
    assert estimate.high is not None
    return f"{points(estimate.value)} ({100 * estimate.low:.1f} to {100 * estimate.high:.1f})"


def _without_a_gap(gap: Estimate) -> Judgement | None:
    assert gap.value is not None
    assert gap.low is not None
    assert gap.high is not None
    found = f"teacher minus independent, {with_interval(gap)},"
    if abs(gap.value) < SMALL and max(-gap.low, gap.high) < READABLE_GAP:
        return Judgement("nothing_to_inherit", f"{found} is under {100 * SMALL:.0f} points: there is nothing to take over")
    if abs(gap.value) < SMALL or gap.low <= 0 <= gap.high:
        return Judgement("unresolved", f"{found} is not told from zero: whether there is anything to take over is not known")
    return None


def _too_few_runs(evidence: Evidence) -> Judgement:
    found = f"{evidence.n_runs} runs an arm: the difference of {with_interval(evidence.difference)}"
    if evidence.runs_needed is None:
        return Judgement("unresolved", f"{found} is too small for any number of runs within reach")
    needed = max(evidence.runs_needed, ENOUGH_RUNS)
    return Judgement("unresolved", f"{found} needs about {needed} runs an arm to be told from zero")


def _reading(evidence: Evidence) -> Judgement:
    difference, gap = evidence.difference, evidence.gap
    assert difference.value is not None
    assert difference.low is not None
    assert difference.high is not None
    assert gap.value is not None
    found = f"{evidence.n_runs} runs an arm: the difference of {with_interval(difference)}"
    off_zero = difference.low > 0 or difference.high < 0
    if off_zero and (evidence.p_holm is None or evidence.p_holm <= ALPHA):
        toward = (difference.value > 0) == (gap.value > 0)
        where = "toward" if toward else "away from"
        return Judgement("inherited" if toward else "moved_away", f"{found} is off zero, {where} the teacher's gap of {with_interval(gap)}")
    smallest = evidence.minimum_detectable or 0.0
    margin = max(SMALL, smallest)
    if -margin < difference.low and difference.high < margin:
        return Judgement("equivalent", f"{found} lies inside the margin of {100 * margin:.1f} points")
    if off_zero:
        why = f"does not hold after Holm's correction over the declared contrasts (p = {evidence.p_holm:.2g})"
    else:
        why = "is not told from zero"
    return Judgement("unresolved", f"{found} {why}; the smallest detectable difference is {100 * smallest:.1f} points")
