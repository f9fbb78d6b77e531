"""The answer of a whole study, or to one question of it, in one or two sentences."""

from collections.abc import Mapping, Sequence

from crossdistill.compare.verdicts import ENOUGH_RUNS
from crossdistill.core.records import InheritanceRow, Verdict
from crossdistill.report.contrast_names import CONTRASTS
from crossdistill.report.names import TITLES, quantity, shown_verdict
from crossdistill.report.readings import (
    NOTHING_SEEN,
    fewest_runs,
    how_telling,
    in_its_unit,
    limits,
    off_zero,
    too_few,
    towards_teacher,
)
from crossdistill.report.words import count, known, listed


def conclusion(rows: Sequence[InheritanceRow], *, one_teacher_checkpoint: bool = False, units: Mapping[str, str] | None = None) -> str:
    """What these rows answer together, in one or two sentences; `units` are those of figures ({metric: unit}) that are no shares."""
    if not rows:
        return "Nothing has been compared yet."
    if all(row.verdict == "not_measurable" for row in rows):
        return f"Nothing can be said: none of {count(len(rows), 'contrast')} could be measured."
    few = too_few(rows)
    answer = (_what_was_seen if few else _what_was_found)(rows, units or {})
    if few and fewest_runs(rows) == 1:
        answer = f"One run, no claim: {answer[:1].lower() + answer[1:]}"
    if one_teacher_checkpoint:
        return f"From this teacher checkpoint: {answer[:1].lower() + answer[1:]}"
    single = dict.fromkeys(f"{row.teacher} → {row.student}" for row in rows if row.n_teachers == 1 < row.n_runs)
    return f"{answer} Of {listed(list(single))}, all this is from one teacher checkpoint." if single else answer


def _what_was_found(rows: Sequence[InheritanceRow], units: Mapping[str, str]) -> str:
    verdicts: tuple[Verdict, ...] = ("inherited", "moved_away")
    moved: dict[Verdict, list[InheritanceRow]] = {bold: [row for row in rows if shown_verdict(row) == bold] for bold in verdicts}
    rest = _counted([row for row in rows if shown_verdict(row) not in verdicts])
    if not any(moved.values()):
        return f"No student was shown to take over anything. Of {count(len(rows), 'contrast')}: {rest}."
    parts = [f"{TITLES[verdict]}: {_enumerated(sorted(found, key=how_telling), units)}." for verdict, found in moved.items() if found]
    return " ".join(parts) + (f" Of the other contrasts: {rest}." if rest else "")


def _what_was_seen(rows: Sequence[InheritanceRow], units: Mapping[str, str]) -> str:
    measured = [row for row in rows if shown_verdict(row) not in NOTHING_SEEN and known(row.difference)]
    if not measured:
        return f"None of {count(len(rows), 'contrast')} shows anything that could have come from the teacher: {_counted(rows)}."
    measured.sort(key=lambda row: -abs(row.difference or 0))
    contrasts, others = count(len(measured), "contrast"), [row for row in rows if row not in measured]
    rest = f" Of the other contrasts: {_counted(others)}." if others else ""
    clear = [row for row in measured if off_zero(row)]
    if clear:
        towards = sum(towards_teacher(row) for row in clear)
        direction = f"{ {0: 'not one of them', len(clear): 'all'}.get(towards, f'{towards} of them') } towards the teacher"
        apart = f"{len(clear)} {'is' if len(clear) == 1 else 'are'} off zero, {direction}"
        return f"Of {contrasts}, {apart}. The largest: {_enumerated(clear, units, most=3)}.{rest}"
    largest = f"{_enumerated(measured[:1], units)}, interval {limits(measured[0], units)}"
    told = f"None of {contrasts} can be told from zero. The largest difference" if len(measured) > 1 else "The only difference"
    return f"{told} is {largest}{'' if len(measured) > 1 else ', not told from zero'}.{rest}"


def _counted(rows: Sequence[InheritanceRow]) -> str:
    """How many rows have each verdict: "2 “nothing to inherit” and 1 “unresolved”"."""
    verdicts = [shown_verdict(row) for row in rows]
    return listed([f"{verdicts.count(verdict)} “{title.lower()}”" for verdict, title in TITLES.items() if verdict in verdicts])


def _enumerated(rows: Sequence[InheritanceRow], units: Mapping[str, str], most: int = 2) -> str:
    """The first contrasts with their differences, those of one pair and method together."""
    groups: dict[str, list[str]] = {}
    for row in rows[:most]:
        against = "" if row.contrast == "independent" else f", {CONTRASTS[row.contrast].against}"
        found = f"{quantity(row)} {in_its_unit(row, units)}"
        groups.setdefault(f"{row.teacher} → {row.student}, {row.method}{against}", []).append(found)
    text = "; ".join(f"{listed(items)} ({name})" for name, items in groups.items())
    return text + (f"; and {len(rows) - most} more" if len(rows) > most else "")


MORE_SEEDS = f"Add seeds to the study file (seeds: {list(range(ENOUGH_RUNS))}) and run it again; what is finished is not repeated."


FINISH = "`crossdistill study run` makes the runs that are missing."


def too_few_runs(rows: Sequence[InheritanceRow], *, remedy: str = MORE_SEEDS) -> str | None:
    """The warning of a study with fewer than five runs an arm; None where there are enough, and where nothing could be measured.

    It ends with the `remedy`; where only some arms are short of runs, these have failed or are not finished.
    """
    measured = [row for row in rows if row.verdict != "not_measurable"]
    few = [row for row in measured if 0 < row.n_runs < ENOUGH_RUNS]
    if not few:  # no run would mend what cannot be measured
        return None
    fewest = fewest_runs(few)
    images = " Where an arm has one run, intervals are over the images of these very networks." if fewest == 1 else ""
    runs, takes = count(fewest, "run"), f"that takes at least {ENOUGH_RUNS} runs an arm.{images}"
    if len(few) < len(measured):
        some = f"{len(few)} of {count(len(measured), 'contrast')}"
        whose = listed(list(dict.fromkeys(f"{row.method} of {row.teacher} → {row.student}" for row in few)))
        return f"In {some} ({whose}) an arm has too few runs for a verdict of inheritance, the smallest {runs}: {takes} {FINISH}"
    return f"With {runs} an arm, differences are reported but no verdict of inheritance is possible: {takes} {remedy}"
