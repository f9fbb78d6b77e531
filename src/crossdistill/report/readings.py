"""What a row of `inheritance.parquet` says before it is put into words: off zero or not, which way, and how much it tells."""

from collections.abc import Mapping, Sequence

from crossdistill.compare.verdicts import ENOUGH_RUNS
from crossdistill.core.records import InheritanceRow, Verdict
from crossdistill.report.contrast_names import CONTRASTS
from crossdistill.report.names import NOT_RUN, TITLES, plain, quantity, shown_verdict
from crossdistill.report.words import SPACE, difference, interval, is_share, known, listed, points

NOTHING_SEEN: tuple[Verdict, ...] = ("nothing_to_inherit", "method_did_not_act", "not_measurable")
"""The verdicts of rows of which the reason is told and not the difference."""


def off_zero(row: InheritanceRow) -> bool:
    """Whether the interval excludes zero."""
    return known(row.low) and known(row.high) and not (row.low <= 0 <= row.high)  # type: ignore[operator]


def lead_known(row: InheritanceRow) -> bool:
    """Whether it is known on which side of the control the teacher stands: its interval, where there is one, excludes zero."""
    open_ended = not known(row.gap_low) or not known(row.gap_high)
    return known(row.teacher_gap) and (open_ended or not (row.gap_low <= 0 <= row.gap_high))  # type: ignore[operator]


def towards_teacher(row: InheritanceRow) -> bool:
    """Whether student and teacher differ from the control in one direction, as far as the teacher's is known."""
    return lead_known(row) and (row.difference or 0) * (row.teacher_gap or 0) > 0


def how_telling(row: InheritanceRow) -> tuple[bool, int, bool, float]:
    """Sorts rows: declared ones first, then the verdicts that say most, then what is off zero, then the largest."""
    return row.role != "primary", list(TITLES).index(shown_verdict(row)), not off_zero(row), -abs(row.difference or 0)


def fewest_runs(rows: Sequence[InheritanceRow]) -> int:
    """The runs of the smallest arm that was compared: an arm that does not exist has its own sentence, and no say in the others'."""
    return min((row.n_runs for row in rows if row.n_runs), default=0)


def too_few(rows: Sequence[InheritanceRow]) -> bool:
    """Whether none of the rows allows a verdict because each has an arm of fewer than five runs."""
    return not any(row.n_runs >= ENOUGH_RUNS for row in rows)


def in_its_unit(row: InheritanceRow, units: Mapping[str, str] | None = None) -> str:
    """The difference: in points where it is one of shares, else in the figure's own unit (`units` by metric)."""
    unit = (units or {}).get(row.metric, "")
    return points(row.difference) if is_share(unit) else f"{difference(row.difference, unit)}{SPACE}{unit}"


def limits(row: InheritanceRow, units: Mapping[str, str] | None = None) -> str:
    """The interval, without a unit; empty where there is none."""
    unit = (units or {}).get(row.metric, "")
    if is_share(unit) or not (known(row.low) and known(row.high)):
        return interval(row.low, row.high)
    return f"{difference(row.low, unit)} to {difference(row.high, unit)}"


def in_short(row: InheritanceRow, units: Mapping[str, str] | None = None) -> str:
    """A contrast in a few words: "scramble accuracy +4.1 points (+1.2 to +7.0), teacher +12.0 points: inherited"."""
    if shown_verdict(row) == "not_measurable" or not known(row.difference):
        return f"{quantity(row)} not measurable ({(row.reason or 'no reason was recorded').rstrip('.')})"
    lead = f", teacher {points(row.teacher_gap)}" if known(row.teacher_gap) and is_share((units or {}).get(row.metric, "")) else ""
    control = "" if row.contrast == "independent" else f" {CONTRASTS[row.contrast].against}"
    within = f" ({limits(row, units)})" if limits(row, units) else ""
    return f"{quantity(row)} {in_its_unit(row, units)}{within}{control}{lead}: {_word(row)}"


def _word(row: InheritanceRow) -> str:
    """The verdict; with too few runs for one, whether the interval excludes zero."""
    if row.n_runs < ENOUGH_RUNS and shown_verdict(row) == "unresolved":
        return f"off zero{', towards the teacher' if towards_teacher(row) else ''}" if off_zero(row) else "not told from zero"
    return TITLES[shown_verdict(row)].lower()


def ungated(rows: Sequence[InheritanceRow]) -> str:
    """Which probes nobody knows to be readable, as a sentence; empty where every gate was run."""
    probes = list(dict.fromkeys(plain(row.probe) for row in rows if row.signal_gate == "not run"))
    return f"On {listed(probes)} no network shows that the images can be read at all ({NOT_RUN})." if probes else ""
