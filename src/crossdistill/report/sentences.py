"""Verdicts as sentences: what was inherited, by how much, how sure, and what could not be measured.

The sentences are made from the rows of `inheritance.parquet` alone. With fewer than five runs an arm the word "inherited" never appears,
whatever a table may claim: the difference and its interval are reported, and the number of runs that a verdict would need.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from crossdistill.compare.verdicts import ENOUGH_RUNS
from crossdistill.core.records import InheritanceRow, Verdict
from crossdistill.report.certainty import HOW_SURE, ONE_RUN
from crossdistill.report.contrast_names import CONTRASTS
from crossdistill.report.names import TITLES, capitalised, quantity, shown_verdict
from crossdistill.report.readings import NOTHING_SEEN, how_telling, off_zero, ungated
from crossdistill.report.words import count, interval, known, listed, points, points_with_interval, size_in_points


@dataclass(frozen=True)
class Sentence:
    """One or more contrasts in words: `subject` names the figure, `text` says what was found, figure by figure in `items`
    where there are several, `declared` what was declared in advance, and `probe` whose it is where it is of one."""

    verdict: Verdict
    subject: str
    text: str
    declared: str = ""
    items: tuple[str, ...] = ()
    probe: str = ""

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
    alone = [row for row in rows if shown_verdict(row) not in NOTHING_SEEN and (len(faint) < 2 or row not in faint)]
    alone.sort(key=how_telling)
    sentences = [_single(row, origin) for row in alone]
    if len(faint) > 1:
        sentences.append(_faint_group(sorted(faint, key=how_telling), origin))
    groups: dict[tuple[Verdict, str], list[InheritanceRow]] = {}
    for row in rows:
        if shown_verdict(row) in NOTHING_SEEN:
            groups.setdefault((row.verdict, (row.reason or "") if row.verdict == "not_measurable" else ""), []).append(row)
    order = sorted(groups, key=lambda key: list(TITLES).index(key[0]))
    return sentences + [_group(verdict, groups[verdict, reason], origin) for verdict, reason in order]


def _is_faint(row: InheritanceRow) -> bool:
    """Whether a contrast, not declared in advance, has an interval that reaches over zero and allows no verdict."""
    return shown_verdict(row) == "unresolved" and not off_zero(row) and row.role != "primary"


def _single(row: InheritanceRow, origin: str) -> Sentence:
    words = CONTRASTS[row.contrast]
    found = f"{points_with_interval(row.difference, row.low, row.high)} {words.against}{origin and ',' + origin}"
    gap = ""
    if known(row.teacher_gap):
        gap_limits = interval(row.gap_low, row.gap_high)
        gap = f"; {words.lead}: {points(row.teacher_gap)}" + (f" ({gap_limits})" if gap_limits else "")
    text = f"{found}{gap}. {HOW_SURE[shown_verdict(row)](row)}{_noted([row])}"
    declared = "declared in advance" if row.role == "primary" else ""
    return Sentence(shown_verdict(row), capitalised(quantity(row)), text, declared, probe=row.probe)


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


def sentence_of(row: InheritanceRow, *, one_teacher_checkpoint: bool = False) -> str:
    """One contrast in a sentence of its own, with what was found and how sure it is."""
    (sentence,) = verdict_sentences([row], one_teacher_checkpoint=one_teacher_checkpoint)
    return f"{sentence.title}. {sentence.text}"


def _group(verdict: Verdict, rows: list[InheritanceRow], origin: str) -> Sentence:
    names = [quantity(row) for row in rows]
    declared = [quantity(row) for row in rows if row.role == "primary"]
    which = f"{listed(declared)} " if len(rows) > 1 else ""
    remark = f"{which}declared in advance" if declared else ""
    probe = rows[0].probe if len({row.probe for row in rows}) == 1 else ""
    return Sentence(verdict, capitalised(listed(names)), _REASONS[verdict](rows, origin) + _noted(rows), remark, probe=probe)


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


def evidence(rows: Sequence[InheritanceRow]) -> str:
    """What stands behind the sentences of one pair and method: runs, teachers, whether the method acted, gates that were not run."""
    runs, teachers = max(row.n_runs for row in rows), max(row.n_teachers for row in rows)
    text = f"{count(runs, 'run')} an arm, {count(teachers, 'teacher run')}"
    fidelity = next((row.fidelity for row in rows if known(row.fidelity)), None)
    if fidelity is not None:
        more = "more" if fidelity >= 0 else "less"
        text += f"; on clean images the student agrees with its teacher {size_in_points(fidelity)} {more} often than an independent student"
    return f"{text}. {ungated(rows)}".strip()
