"""The page's section "Questions": the three questions that this project began with, answered from the tables of this study."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from crossdistill.core.records import InheritanceRow
from crossdistill.report.conclusion import conclusion
from crossdistill.report.epoch_cost import cost_answer, cost_lines
from crossdistill.report.headline import headline_contrasts, headline_rows, whole_curves
from crossdistill.report.names import is_choice, quantity, shown_verdict
from crossdistill.report.readings import fewest_runs, how_telling, in_short, too_few
from crossdistill.report.study_files import PlannedPair, StudyFiles
from crossdistill.report.tables import in_words
from crossdistill.report.words import count, known, listed

TITLE, PLACE = "Three questions", 15

MOST = 3
"""Figures that a line names; the chart above has all of them."""


@dataclass(frozen=True)
class Question:
    """A question, and what it is about: the words that probes declare (`about`), each with a probe that a study may add."""

    anchor: str
    text: str
    about: Mapping[str, str]
    invariance: bool = False  # whether it asks for answers that stay, beside answers that are right
    choices: bool = False  # whether choices between cues answer it too
    locality: tuple[str, ...] = ()  # figures of clean images that speak of it
    cost: bool = False
    evidence: Mapping[str, str] = field(default_factory=dict)  # {words: anchor on the page}


_EVIDENCE = {"the chart": "answer", "accuracy by level": "curves", "all figures": "figures", "the probes": "probes"}

BIASES = Question(
    "biases",
    "Are shape, texture and locality biases transferred?",
    {"shape": "silhouette", "texture": "superpixel", "locality": "patch_drop"},
    choices=True,
    locality=("effective_receptive_field_side_50",),
    evidence=_EVIDENCE,
)
PERMUTATION = Question(
    "permutation",
    "Does permutation invariance survive distillation?",
    {"permutation": "scramble"},
    invariance=True,
    evidence=_EVIDENCE,
)
COST_AND_NOISE = Question(
    "cost-and-noise",
    "What do the methods cost, and how do students behave under noise?",
    {"noise": "localized_noise"},
    cost=True,
    evidence={"the table of costs": "cost", **_EVIDENCE},
)


@dataclass(frozen=True)
class Line:
    """What one method did between one teacher and one student."""

    pair: PlannedPair
    method: str
    texts: list[str]


@dataclass(frozen=True)
class Answer:
    """A question with its answer in a few sentences, and method by method."""

    question: Question
    sentences: list[str]
    lines: list[Line]


def contents(study: StudyFiles) -> dict[str, Any]:
    """What the template prints."""
    return dict(questions=[_answer(study, question) for question in (BIASES, PERMUTATION, COST_AND_NOISE)])


def _answer(study: StudyFiles, question: Question) -> Answer:
    rows = _rows(study, question)
    sentences = [cost_answer(study)] if question.cost else []
    sentences += [_in_one_word(study, question, rows), *_unasked(study, question)]
    lines = [
        Line(pair, method, [*(cost_lines(study, pair, method) if question.cost else ()), *_figures(study, pair, method, rows, question)])
        for pair in study.pairs
        for method in pair.taught_by
    ]
    return Answer(question, [sentence for sentence in sentences if sentence], [line for line in lines if line.texts])


def _rows(study: StudyFiles, question: Question) -> list[InheritanceRow]:
    """The contrasts that speak of a question, each method against the control by which the page reads it first."""
    probes = {probe.name for probe in study.probes if probe.about & set(question.about)}
    headline = headline_rows(study.inheritance, study.choice_sets)
    found = [row for row in headline if row.probe in probes or (question.choices and is_choice(row.metric))]
    own = headline_contrasts(study.inheritance)
    metrics = {*(("agreement_kappa",) if question.invariance else ())}

    def speaks(row: InheritanceRow) -> bool:
        return (row.metric in metrics and row.probe in probes) or (row.metric in question.locality and row.probe == "clean")

    return found + [row for row in whole_curves(study.inheritance) if speaks(row) and row.contrast in own[row.pair, row.method]]


def _in_one_word(study: StudyFiles, question: Question, rows: Sequence[InheritanceRow]) -> str:
    """The answer: one word as far as there is one, and what it rests on."""
    if not study.inheritance:
        return "This study cannot say yet: nothing has been compared."
    if not rows:
        return ""  # what is missing is told beside it
    if question.invariance:
        behind = _behind(rows)
        rows = [row for row in rows if row.pair not in behind]
        if not rows:
            return "There is nothing to survive: no teacher here keeps more of its answers than the same students do without it."
    told = conclusion(rows, one_teacher_checkpoint=study.one_teacher_checkpoint, units=study.units)
    whole = not _uncovered(study, question) and all(shown_verdict(row) != "not_measurable" for row in rows)
    return f"{_word(rows, question, whole=whole)} {told}".strip()


def _word(rows: Sequence[InheritanceRow], question: Question, *, whole: bool) -> str:
    """The word, for so much as was measured where that is not the `whole` question."""
    verdicts = {shown_verdict(row) for row in rows} - {"not_measurable"}
    if not verdicts:
        return ""
    if too_few(rows):
        return f"Open: {count(fewest_runs(rows), 'run')} an arm are too few for a verdict."
    if question.cost:  # it does not ask for a yes or no
        return "Under noise:"
    if verdicts == {"inherited"}:
        return "Yes." if whole else "As far as it could be measured, yes."
    if "inherited" in verdicts:
        return "In part."
    if verdicts <= {"equivalent", "moved_away"}:
        return "No." if whole else "As far as it could be measured, no."
    return "Not shown."


def _behind(rows: Sequence[InheritanceRow]) -> set[int]:
    """The pairs whose teacher certainly keeps fewer of its answers (is less often right, where that was not measured) than the control."""
    behind = set()
    for pair in {row.pair for row in rows}:
        own = [row for row in rows if row.pair == pair and known(row.gap_high)]
        asked = [row for row in own if row.metric == "agreement_kappa"] or own
        if asked and all(row.gap_high is not None and row.gap_high <= 0 for row in asked):
            behind.add(pair)
    return behind


def _uncovered(study: StudyFiles, question: Question) -> list[str]:
    """What the question is about and no probe of the study."""
    covered = {word for probe in study.probes for word in probe.about}
    covered |= {"shape", "texture"} if question.choices and study.choice_sets else set()
    return [word for word in question.about if word not in covered]


def _unasked(study: StudyFiles, question: Question) -> Iterator[str]:
    """What the study cannot say because it has no probe for it."""
    if missing := _uncovered(study, question):
        examples = listed([f"“{question.about[word]}”" for word in missing], last="or")
        yield f"Of {listed(missing)} this study cannot say anything: no probe of it is about that. The study file may name {examples}."


def _figures(study: StudyFiles, pair: PlannedPair, method: str, rows: Sequence[InheritanceRow], question: Question) -> Iterator[str]:
    """The most telling figures of one method, and how many more there are; what cannot be measured once for each reason."""
    own = sorted((row for row in rows if (row.pair, row.method) == (pair.index, method)), key=how_telling)
    lost: dict[str, list[str]] = {}
    measured = []
    for row in own:
        if shown_verdict(row) == "not_measurable" or not known(row.difference):
            lost.setdefault((row.reason or "no reason was recorded").rstrip("."), []).append(quantity(row))
        else:
            measured.append(row)
    if question.invariance:  # answers that stay come before answers that are right
        measured.sort(key=lambda row: row.metric != "agreement_kappa")
        if pair.index in _behind(rows):
            yield f"nothing to survive: {pair.teacher} keeps fewer of its answers than {pair.student} does without it"
    for row in measured[:MOST]:
        levels = in_words(study, pair, row) if question.invariance else ""
        yield in_short(row, study.units) + (f" ({levels})" if levels else "")
    if len(measured) > MOST:
        yield f"and {count(len(measured) - MOST, 'more figure')}, in the chart"
    for reason, figures in lost.items():
        yield f"not measurable: {listed(list(dict.fromkeys(figures)))} ({reason})"
