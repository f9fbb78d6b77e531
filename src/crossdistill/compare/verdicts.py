"""From evidence to a verdict and its sentence. The order of the questions is the order of the functions in `judge`."""

from dataclasses import dataclass
from typing import NamedTuple

from crossdistill.core.records import Against, Verdict
from crossdistill.core.types import Estimate

ENOUGH_RUNS = 5
"""Runs an arm below which nothing is claimed: 3 v 3 permuted runs cannot give p < 0.10."""

SMALL = 0.02
"""Two points: a smaller teacher gap is nothing to inherit, and arms closer than this are equivalent."""

READABLE_GAP = 0.05
"""Five points: a teacher gap that may be as large as this could be inherited, whatever its point estimate."""

ALPHA = 0.05

DIFFERS_FROM: dict[Against, str] = {
    "independent": "differs from the independents",
    "accuracy_matched": "differs from what the independents' line foretells at its clean accuracy",
    "twin": "differs from its twin",
    "shuffled_teacher": "differs from the students of a shuffled teacher",
    "control_teacher": "differs from the students of the control teacher",
    "control_teacher_adjusted": "differs from the students of the control teacher, their teachers' accuracies adjusted for,",
    "second_independent": "sides with its teacher other than second independents do,",
}

WITHOUT_ITS_OWN_CHANGES: frozenset[Against] = frozenset({"independent", "accuracy_matched", "second_independent"})
"""Contrasts with plain independents, that lack what a method adds to its students."""

TELLS_ARCHITECTURE: frozenset[Against] = frozenset({"control_teacher", "control_teacher_adjusted"})
"""The contrasts that hold teaching as such fixed."""


@dataclass(frozen=True)
class Evidence:
    """What a verdict rests on. Differences are students minus controls, gaps what there is to inherit, in shares."""

    n_runs: int  # of the smaller arm
    difference: Estimate  # with its interval, or the reason why it cannot be read
    gap: Estimate
    minimum_detectable: float | None
    runs_needed: int | None
    inaction: str | None = None  # why the method is thought not to have acted
    p_holm: float | None = None  # of a declared contrast
    p_bh: float | None = None  # of any other
    family_size: int = 0  # contrasts that it was corrected with
    against: Against = "independent"
    changed: bool = False  # whether the method changes the student or its images
    has_twin: bool = False  # whether the study has the method's twin
    no_control: str | None = None  # why no control teacher can teach the method
    one_teacher: bool = False  # whether all runs of a side were taught by one checkpoint


class Judgement(NamedTuple):
    """A verdict and the plain sentence, with numbers, that explains it."""

    verdict: Verdict
    reason: str


def judge(evidence: Evidence) -> Judgement:
    """The verdict: not_measurable before method_did_not_act before what the teacher's gap allows before what the interval says.

    One run in an arm claims nothing at all. Nothing to inherit: the gap is under 2 points and certainly under 5. A gap that is not told
    from zero otherwise leaves the contrast unresolved: whether there was anything to inherit is not known. With fewer than 5 runs in
    either arm the interval is never interpreted. With 5 or more: `inherited` or `moved_away` where it is off zero, toward the
    teacher or away, and stays so after correction (Holm's of a declared contrast, Benjamini and Hochberg's of any other);
    `equivalent` where it lies inside the margin of max(2 points, smallest detectable difference), and a student that took over half
    of the gap would have been found (a noisy study finds everything alike); else `unresolved`.

    Two limits. What a method adds to its students could move them too, so that one that `changed` them is never `inherited` nor
    `moved_away` against plain independents. And where no control teacher can exist, `inherited` is never the word.
    """
    unreadable = next((e for e in (evidence.difference, evidence.gap) if e.status == "not_measurable"), None)
    if unreadable:
        return Judgement("not_measurable", unreadable.reason or "")
    if evidence.n_runs < 2:
        found = f"one run, no claim: a difference of {with_interval(evidence.difference)} over images"
        return Judgement("unresolved", f"{found} is about these networks and not about the method")
    if evidence.inaction:
        return Judgement("method_did_not_act", evidence.inaction)
    if without_gap := _without_a_gap(evidence):
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


def _runs(evidence: Evidence) -> str:
    return f"{evidence.n_runs} runs an arm{', from one teacher checkpoint' if evidence.one_teacher else ''}"


def _without_a_gap(evidence: Evidence) -> Judgement | None:
    gap = evidence.gap
    assert gap.value is not None
    assert gap.low is not None
    assert gap.high is not None
    if evidence.against in TELLS_ARCHITECTURE:
        found = f"teacher minus control teacher, {with_interval(gap)},"
    elif evidence.against == "second_independent":
        found = f"what always siding with the teacher would add to the second independents' rate, {with_interval(gap)},"
    else:
        found = f"teacher minus independent, {with_interval(gap)},"
    if abs(gap.value) < SMALL and max(-gap.low, gap.high) < READABLE_GAP:
        return Judgement("nothing_to_inherit", f"{found} is under {100 * SMALL:.0f} points: there is nothing to take over")
    if abs(gap.value) < SMALL or gap.low <= 0 <= gap.high:
        return Judgement("unresolved", f"{found} is not told from zero: whether there is anything to take over is not known")
    return None


def _too_few_runs(evidence: Evidence) -> Judgement:
    found = f"{_runs(evidence)}: the difference of {with_interval(evidence.difference)}"
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
    found = f"{_runs(evidence)}: the difference of {with_interval(difference)}"
    off_zero, lost = difference.low > 0 or difference.high < 0, _lost_by_correction(evidence)
    if off_zero and not lost:
        toward = (difference.value > 0) == (gap.value > 0)
        return _limit(evidence, toward) or _claim(evidence, found, toward)
    smallest = evidence.minimum_detectable or 0.0
    margin = max(SMALL, smallest)
    why = lost if off_zero else "is not told from zero"
    if -margin < difference.low and difference.high < margin:
        if smallest <= abs(gap.value) / 2:
            return Judgement("equivalent", f"{found} lies inside the margin of {100 * margin:.1f} points")
        why = f"{why}, nor is it equivalent: half of the gap of {with_interval(gap)} could have gone unseen"
    return Judgement("unresolved", f"{found} {why}; the smallest detectable difference is {100 * smallest:.1f} points")


def _lost_by_correction(evidence: Evidence) -> str | None:
    """Why a difference off zero does not hold among those that it is corrected with; None where it holds."""
    if evidence.p_holm is not None and evidence.p_holm > ALPHA:
        return f"does not hold after Holm's correction over the declared contrasts (p = {evidence.p_holm:.2g})"
    if evidence.p_bh is not None and evidence.p_bh > ALPHA:
        return f"does not hold after Benjamini-Hochberg over {evidence.family_size:,} contrasts (p = {evidence.p_bh:.2g})"
    return None


def _limit(evidence: Evidence, toward: bool) -> Judgement | None:
    """Why a difference off zero is not called inherited or moved away; None where it may be."""
    found = f"{_runs(evidence)}: {DIFFERS_FROM[evidence.against]} by {with_interval(evidence.difference)}"
    if evidence.changed and evidence.against in WITHOUT_ITS_OWN_CHANGES:
        twin = "its twin" if evidence.has_twin else "its twin, an arm that this study does not have"
        return Judgement(
            "unresolved", f"{found}: a token, head or view that the method adds could do this too; it is to be read against {twin}"
        )
    if evidence.no_control is not None and toward:
        why = f"no control teacher can exist for it ({evidence.no_control})"
        return Judgement("unresolved", f"{found}, and {why}: what moved cannot be ascribed to the teacher's architecture")
    return None


def _claim(evidence: Evidence, found: str, toward: bool) -> Judgement:
    gap = f"the teacher's gap of {with_interval(evidence.gap)}"
    if not toward:
        return Judgement("moved_away", f"{found} is off zero, away from {gap}")
    if evidence.against in TELLS_ARCHITECTURE:
        return Judgement("inherited", f"{found} is off zero, toward {gap}")
    alone = "this does not tell the teacher's architecture from teaching as such unless the contrast with control_teacher says so"
    return Judgement("inherited", f"{found} is off zero, toward {gap}; {alone}")
