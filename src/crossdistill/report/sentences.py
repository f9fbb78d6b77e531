"""Verdicts as sentences: what was inherited, by how much, how sure, and what could not be measured.

The sentences are made from the rows of `inheritance.parquet` alone. With fewer than five runs an arm the word "inherited" never appears,
whatever a table may claim: the difference and its interval are reported, and the number of runs that a verdict would need.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

from crossdistill.compare.verdicts import ENOUGH_RUNS, SMALL
from crossdistill.core.records import InheritanceRow, ResultRow, RunRecord, Verdict
from crossdistill.report.contrast_names import CONTRASTS
from crossdistill.report.names import TITLES, capitalised, quantity, shown_verdict
from crossdistill.report.study_files import PlannedPair
from crossdistill.report.words import SPACE, count, interval, known, listed, percent, points, points_with_interval, size_in_points

ONE_RUN = "One run, no claim: the interval is over the images of these networks and says nothing of the method."

TEACHERS_COMPARED = "Teacher and control teacher in validation accuracy"
"""How the note begins that both arms of a matched comparison carry in their records."""

_IN_GROUPS: tuple[Verdict, ...] = ("nothing_to_inherit", "method_did_not_act", "not_measurable")


@dataclass(frozen=True)
class Sentence:
    """One or more contrasts in words: `subject` names the figure, `text` says what was found, figure by figure in `items`
    where there are several, and `declared` what was declared in advance."""

    verdict: Verdict
    subject: str
    text: str
    declared: str = ""
    items: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        return TITLES[self.verdict]


def verdict_sentences(rows: Sequence[InheritanceRow], *, one_teacher_checkpoint: bool = False) -> list[Sentence]:
    """The sentences of one pair, method and contrast: declared ones first, then the verdicts that say most, then the largest.

    Figures in which nothing could be seen are drawn together: those that cannot be told from zero, and those with one reason.
    """
    one_teacher_checkpoint |= bool(rows) and all(row.n_teachers == 1 for row in rows)
    origin = " from this teacher checkpoint" if one_teacher_checkpoint else ""
    faint = [row for row in rows if _is_faint(row)]
    alone = [row for row in rows if shown_verdict(row) not in _IN_GROUPS and (len(faint) < 2 or row not in faint)]
    alone.sort(key=_how_telling)
    sentences = [_single(row, origin) for row in alone]
    if len(faint) > 1:
        sentences.append(_faint_group(sorted(faint, key=_how_telling), origin))
    groups: dict[tuple[Verdict, str], list[InheritanceRow]] = {}
    for row in rows:
        if shown_verdict(row) in _IN_GROUPS:
            groups.setdefault((row.verdict, (row.reason or "") if row.verdict == "not_measurable" else ""), []).append(row)
    order = sorted(groups, key=lambda key: list(TITLES).index(key[0]))
    return sentences + [_group(verdict, groups[verdict, reason], origin) for verdict, reason in order]


def _how_telling(row: InheritanceRow) -> tuple[bool, int, bool, float]:
    return row.role != "primary", list(TITLES).index(shown_verdict(row)), not _off_zero(row), -abs(row.difference or 0)


def _is_faint(row: InheritanceRow) -> bool:
    """Whether a contrast, not declared in advance, has an interval that reaches over zero and allows no verdict."""
    return shown_verdict(row) == "unresolved" and not _off_zero(row) and row.role != "primary"


def _direction(row: InheritanceRow) -> str:
    """Where a difference points, beside the teacher's; empty where the teacher's lead is not known."""
    if not known(row.teacher_gap) or not known(row.difference):
        return ""
    return " and towards the teacher" if _towards_teacher(row) else " and away from the teacher"


def _towards_teacher(row: InheritanceRow) -> bool:
    return (row.difference or 0) * (row.teacher_gap or 0) > 0


def _off_zero(row: InheritanceRow) -> bool:
    return known(row.low) and known(row.high) and not (row.low <= 0 <= row.high)  # type: ignore[operator]


def _single(row: InheritanceRow, origin: str) -> Sentence:
    words = CONTRASTS[row.contrast]
    found = f"{points_with_interval(row.difference, row.low, row.high)} {words.against}{origin and ',' + origin}"
    gap = ""
    if known(row.teacher_gap):
        gap_limits = interval(row.gap_low, row.gap_high)
        gap = f"; {words.lead}: {points(row.teacher_gap)}" + (f" ({gap_limits})" if gap_limits else "")
    text = f"{found}{gap}. {_CERTAINTY[shown_verdict(row)](row)}{_noted([row])}"
    return Sentence(shown_verdict(row), capitalised(quantity(row)), text, "declared in advance" if row.role == "primary" else "")


def _noted(rows: Sequence[InheritanceRow]) -> str:
    """What to know beside figures, as a sentence of its own: each note with its figure, where there are several figures."""
    noted = [row.note if len(rows) == 1 else f"{quantity(row)}: {row.note}" for row in rows if row.note]
    return "".join(f" {capitalised(note)}." for note in noted)


def _faint_group(rows: Sequence[InheritanceRow], origin: str) -> Sentence:
    items = tuple(f"{capitalised(quantity(row))} {points(row.difference)} ({_limits_of_knowledge(row)})" for row in rows)
    fewest = min(row.n_runs for row in rows)
    against = f", {CONTRASTS[rows[0].contrast].against},"
    text = f"{capitalised(count(fewest, 'run'))} an arm cannot tell these{against} from zero"
    text += f", so nobody can say whether they came{origin or ' from the teacher'}."
    if fewest == 1:
        text = f"{ONE_RUN} Taken{against[:-1]}, these cannot be told from zero."
    return Sentence("unresolved", f"{len(rows)} differences not told from zero", text, items=items)


def _limits_of_knowledge(row: InheritanceRow) -> str:
    parts = [interval(row.low, row.high)]
    if row.minimum_detectable is not None and known(row.minimum_detectable):
        parts.append(f"smallest detectable {size_in_points(row.minimum_detectable)}")
    if row.runs_needed is not None:
        needed = max(row.runs_needed, ENOUGH_RUNS)
        parts.append("more than 1,000 runs needed" if needed > 1000 else f"about {needed:,} runs needed")
    parts.append(row.note or "")
    return "; ".join(part for part in parts if part)


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
        return f"{f'Off zero{_direction(row)}. ' if _off_zero(row) else ''}{ONE_RUN}"
    runs = count(row.n_runs, "run")
    if _off_zero(row) and row.n_runs < ENOUGH_RUNS:
        return f"Off zero{_direction(row)}, but {runs} an arm are too few for a verdict."
    if _off_zero(row):
        return f"Off zero{_direction(row)}, and no verdict all the same: {row.reason or 'no reason was recorded'}."
    detectable = f" (they would find one of {size_in_points(row.minimum_detectable)})" if known(row.minimum_detectable) else ""  # type: ignore[arg-type]
    return f"{capitalised(runs)} an arm cannot tell this difference from zero{detectable}; {runs_needed(row)}."


_CERTAINTY = {"inherited": _inherited, "moved_away": _moved_away, "equivalent": _equivalent, "unresolved": _unresolved}


def runs_needed(row: InheritanceRow) -> str:
    """How many runs an arm would settle the contrast: never fewer than a verdict asks for."""
    if row.runs_needed is None:
        return f"at least {ENOUGH_RUNS} are needed" if row.n_runs < ENOUGH_RUNS else "more runs of the same size may not settle it"
    if row.runs_needed > 1000:
        return "more than 1,000 would be needed"
    needed = max(row.runs_needed, ENOUGH_RUNS)
    return f"about {needed:,} would be needed" if needed > ENOUGH_RUNS else f"at least {ENOUGH_RUNS} are needed"


def _group(verdict: Verdict, rows: list[InheritanceRow], origin: str) -> Sentence:
    names = [quantity(row) for row in rows]
    declared = [quantity(row) for row in rows if row.role == "primary"]
    which = f"{listed(declared)} " if len(rows) > 1 else ""
    remark = f"{which}declared in advance" if declared else ""
    return Sentence(verdict, capitalised(listed(names)), _REASONS[verdict](rows, origin) + _noted(rows), remark)


def _nothing_to_inherit(rows: list[InheritanceRow], origin: str) -> str:
    leads = [f"{points(row.teacher_gap)} ({interval(row.gap_low, row.gap_high)})" for row in rows if known(row.teacher_gap)]
    lead = f": the teacher stands at {listed(leads)}" if leads else ""
    return f"{CONTRASTS[rows[0].contrast].no_lead}{lead}. There is nothing to inherit{origin}."


def _did_not_act(rows: list[InheritanceRow], origin: str) -> str:
    why = f" ({rows[0].reason.rstrip('.')})" if rows[0].reason else ""
    against = CONTRASTS[rows[0].contrast].against
    return (
        f"The method did not bring the student closer to its teacher{why}. Whatever differs {against} did not come"
        f"{origin or ' from the teacher'}."
    )


def _not_measurable(rows: list[InheritanceRow], origin: str) -> str:
    reason = (rows[0].reason or "no reason was recorded").rstrip(".")
    if not _OF_A_RUN.match(reason):  # the name of an arm stays as it is in the tables
        reason = capitalised(reason)
    return f"{reason}. Nothing can be said, {CONTRASTS[rows[0].contrast].against}, about what came{origin or ' from the teacher'}."


_OF_A_RUN = re.compile(r"[\w.+-]+: ")
"""How a reason begins that is about one run: with its label."""


_REASONS = {"nothing_to_inherit": _nothing_to_inherit, "method_did_not_act": _did_not_act, "not_measurable": _not_measurable}


def conclusion(rows: Sequence[InheritanceRow], *, one_teacher_checkpoint: bool = False) -> str:
    """The answer of the whole study in one or two sentences, from its headline rows."""
    if not rows:
        return "Nothing has been compared yet."
    fewest = _fewest_runs(rows)
    answer = _what_was_seen(rows) if fewest < ENOUGH_RUNS else _what_was_found(rows)
    if fewest == 1:
        answer = f"One run, no claim: {answer[:1].lower() + answer[1:]}"
    if one_teacher_checkpoint:
        return f"From this teacher checkpoint: {answer[:1].lower() + answer[1:]}"
    single = dict.fromkeys(f"{row.teacher} → {row.student}" for row in rows if row.n_teachers == 1 < row.n_runs)
    return f"{answer} Of {listed(list(single))}, all this is from one teacher checkpoint." if single else answer


def _fewest_runs(rows: Sequence[InheritanceRow]) -> int:
    """The runs of the smallest arm that was compared: an arm that does not exist has its own sentence, and no say in the others'."""
    return min((row.n_runs for row in rows if row.n_runs), default=0)


def _what_was_found(rows: Sequence[InheritanceRow]) -> str:
    by_verdict: dict[Verdict, list[InheritanceRow]] = {
        verdict: [row for row in rows if shown_verdict(row) == verdict] for verdict in TITLES
    }
    moved: dict[Verdict, list[InheritanceRow]] = {
        "inherited": by_verdict.pop("inherited"),
        "moved_away": by_verdict.pop("moved_away"),
    }
    rest = listed([f"{len(found)} “{TITLES[verdict].lower()}”" for verdict, found in by_verdict.items() if found])
    if not any(moved.values()):
        return f"No student was shown to take over anything. Of {count(len(rows), 'contrast')}: {rest}."
    parts = [f"{TITLES[verdict]}: {_enumerated(sorted(found, key=_how_telling))}." for verdict, found in moved.items() if found]
    return " ".join(parts) + (f" Of the other contrasts: {rest}." if rest else "")


def _what_was_seen(rows: Sequence[InheritanceRow]) -> str:
    contrasts = count(len(rows), "contrast")
    measured = [row for row in rows if shown_verdict(row) not in _IN_GROUPS and known(row.difference)]
    measured.sort(key=lambda row: -abs(row.difference or 0))
    clear = [row for row in measured if _off_zero(row)]
    if clear:
        towards = sum(_towards_teacher(row) for row in clear)
        direction = "all towards the teacher" if towards == len(clear) else f"{towards} of them towards the teacher"
        off_zero = f"{len(clear)} {'is' if len(clear) == 1 else 'are'} off zero, {direction}"
        return f"Of {contrasts}, {off_zero}. The largest: {_enumerated(clear, most=3)}."
    if all(row.verdict == "not_measurable" for row in rows):
        return f"Nothing can be said: none of {contrasts} could be measured."
    if not measured:
        return f"None of {contrasts} shows anything that could have come from the teacher."
    largest = measured[0]
    limits = interval(largest.low, largest.high)
    return f"None of {contrasts} can be told from zero. The largest difference is {_enumerated([largest])}, interval {limits}."


def _enumerated(rows: Sequence[InheritanceRow], most: int = 4) -> str:
    """The first contrasts with their differences, those of one pair and method together."""
    groups: dict[str, list[str]] = {}
    for row in rows[:most]:
        against = "" if row.contrast == "independent" else f", {CONTRASTS[row.contrast].against}"
        groups.setdefault(f"{row.teacher} → {row.student}, {row.method}{against}", []).append(f"{quantity(row)} {points(row.difference)}")
    text = "; ".join(f"{listed(items)} ({name})" for name, items in groups.items())
    return text + (f"; and {len(rows) - most} more" if len(rows) > most else "")


def too_few_runs(rows: Sequence[InheritanceRow]) -> str | None:
    """The warning of a study with fewer than five runs an arm; None where there are enough, and where nothing could be measured."""
    fewest = _fewest_runs(rows)
    if fewest == 0 or fewest >= ENOUGH_RUNS or all(row.verdict == "not_measurable" for row in rows):  # no run would mend that
        return None
    runs = count(fewest, "run")
    images = " Where an arm has one run, intervals are over the images of these very networks." if fewest == 1 else ""
    return (
        f"With {runs} an arm, differences are reported but no verdict of inheritance is possible: "
        f"that takes at least {ENOUGH_RUNS} runs an arm.{images} "
        f"Add seeds to the study file (seeds: {list(range(ENOUGH_RUNS))}) and run it again; what is finished is not repeated."
    )


def evidence(rows: Sequence[InheritanceRow]) -> str:
    """How much stands behind the sentences of one pair and method: runs, teachers, and whether the method acted."""
    runs, teachers = max(row.n_runs for row in rows), max(row.n_teachers for row in rows)
    text = f"{count(runs, 'run')} an arm, {count(teachers, 'teacher run')}"
    fidelity = next((row.fidelity for row in rows if known(row.fidelity)), None)
    if fidelity is None:
        return text
    more = "more" if fidelity >= 0 else "less"
    return (
        f"{text}; on clean images the student agrees with its teacher {size_in_points(fidelity)} {more} often than an independent student"
    )


def notes(records: Sequence[RunRecord]) -> list[tuple[str, str]]:
    """What the runs themselves had to say: (whose, note), teachers first, one note of several runs once.

    How teacher and control teacher compare stands in the records of both arms that it concerns, and is told of one of them.
    """
    matched = any(record.control == "matched_teacher" for record in records)
    seen: dict[str, dict[str, None]] = {}
    for record in sorted(records, key=lambda record: (record.arm != "teacher", record.label)):
        whose = f"Teacher {record.student}" if record.arm == "teacher" else record.label
        for note in record.notes:
            if not (matched and record.control == "control_teacher" and note.startswith(TEACHERS_COMPARED)):
                seen.setdefault(note, {}).setdefault(whose)
    return [(listed(list(whose)), note) for note, whose in seen.items()]


def weak_teachers(pairs: Sequence[PlannedPair], results: Sequence[ResultRow]) -> list[tuple[str, str]]:
    """A note for each pair whose teacher is no better on clean images than the student is without it."""
    found = []
    for pair in pairs:
        teacher, alone = _clean_accuracy(results, "teacher", pair.teacher), _clean_accuracy(results, "independent", pair.student)
        if teacher and alone and mean(teacher) <= mean(alone):
            better = f"right on {percent(mean(teacher))} of the clean images, no more than the independent student ({percent(mean(alone))})"
            note = f"it is {better}: nothing says that its accuracy could help this student."
            found.append((f"Teacher {pair.teacher} of {pair.student}", note))
    return found


def _clean_accuracy(results: Sequence[ResultRow], arm: str, network: str) -> list[float]:
    rows = [row for row in results if (row.arm, row.student, row.probe, row.metric) == (arm, network, "clean", "accuracy")]
    return [row.value for row in rows if row.value is not None]
