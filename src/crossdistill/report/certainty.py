"""How sure a contrast is, in words: the second half of its sentence, and how many runs would settle it."""

from collections.abc import Callable, Mapping

from crossdistill.compare.verdicts import ENOUGH_RUNS, SMALL
from crossdistill.core.records import InheritanceRow, Verdict
from crossdistill.report.names import capitalised
from crossdistill.report.readings import lead_known, off_zero, towards_teacher
from crossdistill.report.words import SPACE, count, known, size_in_points

ONE_RUN = "One run, no claim: the interval is over the images of these networks and says nothing of the method."


def _how_sure(row: InheritanceRow) -> str:
    runs = count(row.n_runs, "run") + " an arm"
    if known(row.p_holm):
        return f"{runs}, {_p(row.p_holm)} after Holm over {count(row.family_size, 'declared contrast')}"
    if known(row.p_bh):
        return f"{runs}, {_p(row.p_bh)} after Benjamini-Hochberg over {count(row.family_size, 'contrast')} not declared"
    return f"{runs}, {_p(row.p_raw)}, not corrected for the number of contrasts" if known(row.p_raw) else runs


def _p(p: float | None) -> str:
    assert p is not None
    return f"p{SPACE}<{SPACE}0.001" if p < 0.001 else f"p{SPACE}={SPACE}{p:.3f}"


def _inherited(row: InheritanceRow) -> str:
    return f"Off zero and towards the teacher ({_how_sure(row)})."


def _moved_away(row: InheritanceRow) -> str:
    return f"Off zero and away from the teacher ({_how_sure(row)})."


def _equivalent(row: InheritanceRow) -> str:
    margin = max(SMALL, row.minimum_detectable or 0)
    return f"The whole interval lies within {size_in_points(margin)} of zero ({count(row.n_runs, 'run')} an arm)."


def _unresolved(row: InheritanceRow) -> str:
    if row.n_runs == 1:
        return f"{f'Off zero{_direction(row)}. ' if off_zero(row) else ''}{ONE_RUN}"
    runs = count(row.n_runs, "run")
    if off_zero(row) and row.n_runs < ENOUGH_RUNS:
        return f"Off zero{_direction(row)}, but {runs} an arm are too few for a verdict."
    if off_zero(row):
        return f"Off zero{_direction(row)}, and no verdict all the same: {row.reason or 'no reason was recorded'}."
    detectable = f" (they would find one of {size_in_points(row.minimum_detectable)})" if known(row.minimum_detectable) else ""  # type: ignore[arg-type]
    return f"{capitalised(runs)} an arm cannot tell this difference from zero{detectable}; {runs_needed(row)}."


def _direction(row: InheritanceRow) -> str:
    """Where a difference points, beside the teacher's; empty where the teacher's lead is not known."""
    if not lead_known(row) or not known(row.difference):
        return ""
    return " and towards the teacher" if towards_teacher(row) else " and away from the teacher"


def runs_needed(row: InheritanceRow) -> str:
    """How many runs an arm would settle the contrast: never fewer than a verdict asks for."""
    if row.runs_needed is None:
        return f"at least {ENOUGH_RUNS} are needed" if row.n_runs < ENOUGH_RUNS else "more runs of the same size may not settle it"
    if row.runs_needed > 1000:
        return "more than 1,000 would be needed"
    needed = max(row.runs_needed, ENOUGH_RUNS)
    return f"about {needed:,} would be needed" if needed > ENOUGH_RUNS else f"at least {ENOUGH_RUNS} are needed"


HOW_SURE: Mapping[Verdict, Callable[[InheritanceRow], str]] = {
    "inherited": _inherited,
    "moved_away": _moved_away,
    "equivalent": _equivalent,
    "unresolved": _unresolved,
}
"""Of the verdicts whose differences are told, what follows the difference."""
