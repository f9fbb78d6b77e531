"""The page's first section: what the students took over, in sentences and as a chart of figures by methods."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from crossdistill.core.records import InheritanceRow, Verdict
from crossdistill.report import charts, contrast_tables, sentences, tables
from crossdistill.report.charts import LegendItem
from crossdistill.report.conclusion import conclusion, too_few_runs
from crossdistill.report.contrast_names import CONTRASTS, meanings
from crossdistill.report.headline import headline_rows
from crossdistill.report.matrix import Matrix, inheritance_matrix, scale_limit
from crossdistill.report.names import MEANINGS, TITLES, capitalised, plain, quantity, shown_verdict
from crossdistill.report.network_notes import notes, weak_teachers
from crossdistill.report.readings import how_telling, in_short
from crossdistill.report.study_files import PlannedPair, StudyFiles
from crossdistill.report.wanted import NOT_SAID, UNSORTED, by_wish, direction_of
from crossdistill.report.words import listed

TITLE, PLACE = "Answer", 10

MOST_TELLING = 3
"""Contrasts that the first screen puts into words below the conclusion."""


@dataclass(frozen=True)
class MethodAnswer:
    """What one method did between one teacher and one student."""

    method: str
    evidence: str
    sentences: list[tuple[sentences.Sentence, str]]  # with the figures behind each, which may be empty


@dataclass(frozen=True)
class PairAnswer:
    """What came from one teacher to one student: as a chart, and in words, method by method."""

    index: int
    title: str
    methods: list[MethodAnswer]
    matrix: Matrix


@dataclass(frozen=True)
class SortedRows:
    """Contrasts of one kind, each in a line; `open` unfolds those that a reader asks for first."""

    title: str
    meaning: str
    items: list[tuple[InheritanceRow, str]]
    open: bool


def contents(study: StudyFiles) -> dict[str, Any]:
    """What the template prints."""
    headline = headline_rows(study.inheritance, study.choice_sets, study.wanted)
    contrasts = contrast_tables.shown_contrasts(study.inheritance)
    answers = list(_answers(study, headline))
    return dict(
        conclusion=conclusion(headline, one_teacher_checkpoint=study.one_teacher_checkpoint, units=study.units),
        telling=_telling(study, headline),
        too_few_runs=too_few_runs(headline),
        absent=_absent(study),
        left_out=listed(list(study.left_out)),
        answers=answers,
        widest=max((len(answer.matrix.columns) for answer in answers), default=0),
        declared=any(row.role == "primary" for row in headline),
        wanted=listed([f"{plain(name)} {way}" for name, way in study.wanted.items()]),
        wishes=list(_wishes(study, headline)) if study.wanted else [],
        notes=weak_teachers(study.pairs, study.results) + notes(study.records),
        verdict_legend=_verdict_legend(headline),
        verdict_names=[replace(item, meaning="") for item in _verdict_legend(headline)],
        against=meanings(headline),
        architecture_untested=any(row.contrast == "independent" and shown_verdict(row) == "inherited" for row in headline),
        contrasts=contrast_tables.contrast_table(contrasts, study.units) if contrasts else None,
    )


def _absent(study: StudyFiles) -> str:
    """What is not there, in short: the names and reasons follow below."""
    parts = [sentence.split(":")[0].rstrip(".") for sentence in study.missing]
    parts += [f"{len(study.failures)} failed"] if study.failures else []
    return f"{'; '.join(parts)}. The page shows what is there."


def _telling(study: StudyFiles, headline: Sequence[InheritanceRow]) -> list[tuple[InheritanceRow, str]]:
    """The contrasts that were declared in advance and those with the boldest verdicts, in a line each; no more than a few."""
    found = sorted(
        (row for row in headline if shown_verdict(row) in ("inherited", "moved_away", "equivalent", "unresolved")), key=how_telling
    )
    return [(row, _line(study, row)) for row in found[:MOST_TELLING]]


def _line(study: StudyFiles, row: InheritanceRow) -> str:
    declared = ", declared in advance" if row.role == "primary" else ""
    return f"{row.teacher} → {row.student}, {row.method}: {in_short(row, study.units)}{declared}."


def _wishes(study: StudyFiles, headline: Sequence[InheritanceRow]) -> Iterator[SortedRows]:
    for wish in by_wish(headline, study.wanted):
        items = [(row, f"{_line(study, row)[:-1]}{_wanted_way(row, study.wanted)}.") for row in wish.rows]
        yield SortedRows(wish.title, wish.meaning, items, open=wish.title not in (NOT_SAID, UNSORTED))


def _wanted_way(row: InheritanceRow, wanted: Mapping[str, str]) -> str:
    way = direction_of(row, wanted)
    return f"; wanted: {way}" if way else ""


def _answers(study: StudyFiles, headline: Sequence[InheritanceRow]) -> Iterator[PairAnswer]:
    limit = scale_limit(headline)
    for pair in study.pairs:
        rows = [row for row in headline if row.pair == pair.index]
        methods = [method for method in pair.methods if any(row.method == method for row in rows)]
        if methods:
            answers = [_method_answer(study, pair, method, [row for row in rows if row.method == method]) for method in methods]
            yield PairAnswer(pair.index, pair.title, answers, inheritance_matrix(study, pair, rows, limit))


def _method_answer(study: StudyFiles, pair: PlannedPair, method: str, rows: list[InheritanceRow]) -> MethodAnswer:
    """The sentences of a method, contrast by contrast, with the figures behind each."""
    answers = []
    for contrast in CONTRASTS:
        of_contrast = [row for row in rows if row.contrast == contrast]
        figures = {capitalised(quantity(row)): tables.in_words(study, pair, row) for row in of_contrast}
        found = sentences.verdict_sentences(of_contrast, one_teacher_checkpoint=study.one_teacher_checkpoint)
        answers += [(sentence, figures.get(sentence.subject, "")) for sentence in found]
    return MethodAnswer(method, sentences.evidence(rows), answers)


def _verdict_legend(rows: Sequence[InheritanceRow]) -> list[LegendItem]:
    """The verdicts that occur, and no others."""
    occurring: set[Verdict] = {shown_verdict(row) for row in rows}
    return [
        LegendItem(title, charts.VERDICT_COLOURS[verdict], charts.VERDICT_SHAPES[verdict], MEANINGS[verdict])
        for verdict, title in TITLES.items()
        if verdict in occurring
    ]
