"""The page's first section: what the students took over, in sentences and as charts."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from crossdistill.core.records import InheritanceRow, Verdict
from crossdistill.report import charts, contrast_tables, sentences, tables
from crossdistill.report.charts import LegendItem
from crossdistill.report.contrast_names import CONTRASTS, meanings
from crossdistill.report.headline import headline_rows
from crossdistill.report.names import MEANINGS, TITLES, capitalised, quantity, shown_verdict
from crossdistill.report.study_files import PlannedPair, StudyFiles

TITLE, PLACE = "Answer", 10


@dataclass(frozen=True)
class MethodAnswer:
    """What one method did between one teacher and one student."""

    method: str
    evidence: str
    sentences: list[tuple[sentences.Sentence, str]]  # with the figures behind each, which may be empty


@dataclass(frozen=True)
class PairAnswer:
    """What came from one teacher to one student: in words, method by method, and as a chart."""

    title: str
    methods: list[MethodAnswer]
    svg: str


def contents(study: StudyFiles) -> dict[str, Any]:
    """What the template prints."""
    headline = headline_rows(study.inheritance, study.choice_sets)
    contrasts = contrast_tables.shown_contrasts(study.inheritance)
    return dict(
        conclusion=sentences.conclusion(headline, one_teacher_checkpoint=study.one_teacher_checkpoint),
        too_few_runs=sentences.too_few_runs(headline),
        answers=list(_answers(study, headline)),
        notes=sentences.weak_teachers(study.pairs, study.results) + sentences.notes(study.records),
        verdict_legend=_verdict_legend(headline),
        against=meanings(headline),
        architecture_untested=any(row.contrast == "independent" and shown_verdict(row) == "inherited" for row in headline),
        contrasts=contrast_tables.contrast_table(contrasts, study.units) if contrasts else None,
    )


def _answers(study: StudyFiles, headline: list[InheritanceRow]) -> Iterator[PairAnswer]:
    limit = charts.axis_limit(headline)
    for pair in study.pairs:
        rows = [row for row in headline if row.pair == pair.index]
        methods = [method for method in pair.methods if any(row.method == method for row in rows)]
        if methods:
            answers = [_method_answer(study, pair, method, [row for row in rows if row.method == method]) for method in methods]
            yield PairAnswer(pair.title, answers, charts.inheritance_chart(pair, rows, limit))


def _method_answer(study: StudyFiles, pair: PlannedPair, method: str, rows: list[InheritanceRow]) -> MethodAnswer:
    """The sentences of a method, contrast by contrast, with the figures behind each."""
    answers = []
    for contrast in CONTRASTS:
        of_contrast = [row for row in rows if row.contrast == contrast]
        figures = {capitalised(quantity(row)): tables.in_words(study, pair, row) for row in of_contrast}
        found = sentences.verdict_sentences(of_contrast, one_teacher_checkpoint=study.one_teacher_checkpoint)
        answers += [(sentence, figures.get(sentence.subject, "")) for sentence in found]
    return MethodAnswer(method, sentences.evidence(rows), answers)


def _verdict_legend(rows: list[InheritanceRow]) -> list[LegendItem]:
    """The verdicts that occur, and no others."""
    occurring: set[Verdict] = {shown_verdict(row) for row in rows}
    return [
        LegendItem(title, charts.VERDICT_COLOURS[verdict], charts.VERDICT_SHAPES[verdict], MEANINGS[verdict])
        for verdict, title in TITLES.items()
        if verdict in occurring
    ]
