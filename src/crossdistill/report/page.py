"""The page of a study: one HTML file that opens offline, built from what the study left on disk and nothing else."""

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from crossdistill.core.records import CEILING, EARLIER_TEACHER, InheritanceRow, RunRecord, Verdict
from crossdistill.core.store import write_text
from crossdistill.report import charts, contrast_tables, controls_section, drawings, sentences, tables
from crossdistill.report.charts import LegendItem
from crossdistill.report.contrast_names import CONTRASTS
from crossdistill.report.figure_tables import figure_tables
from crossdistill.report.headline import headline_rows
from crossdistill.report.heat_maps import heat_maps
from crossdistill.report.look_section import pair_strips
from crossdistill.report.names import MEANINGS, TITLES, capitalised, quantity, shown_verdict
from crossdistill.report.probe_section import probe_picture
from crossdistill.report.study_files import PlannedPair, StudyFiles, read_study
from crossdistill.report.words import count, listed, percent


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


def build_page(folder: Path) -> Path:
    """Write `folder/report.html` from the records in `folder` and return its path; what is not there yet is named on the page.

    Raises StudyError where the folder holds no study, a file is damaged, or the page cannot be written.
    """
    study = read_study(Path(folder))
    page = study.folder / "report.html"
    write_text(page, render(study))
    return page


def render(study: StudyFiles) -> str:
    """The page as HTML, every text escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("crossdistill.report", ""),
        autoescape=select_autoescape(("html", "j2")),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = _package_text("sort.js")
    script_hash = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    own: dict[str, Any] = dict(script=Markup(script), script_hash=script_hash, style=Markup(_package_text("style.css")))
    own |= dict(svg=Markup, shape_of=_SHAPES.__getitem__, tone_of=_tone)
    return environment.get_template("page.html.j2").render(**own, **_contents(study))


def _package_text(name: str) -> str:
    return (files("crossdistill.report") / name).read_text(encoding="utf-8")


def _contents(study: StudyFiles) -> dict[str, Any]:
    """Everything that the template prints, section by section."""
    headline = headline_rows(study.inheritance, study.choice_sets)
    contrasts = contrast_tables.shown_contrasts(study.inheritance)
    one_checkpoint = study.one_teacher_checkpoint
    return dict(
        study=study,
        question=_question(study),
        facts=_facts(study),
        conclusion=sentences.conclusion(headline, one_teacher_checkpoint=one_checkpoint),
        too_few_runs=sentences.too_few_runs(headline),
        answers=list(_answers(study, headline)),
        notes=sentences.weak_teachers(study.pairs, study.results) + sentences.notes(study.records),
        verdict_legend=_verdict_legend(headline),
        against=controls_section.meanings(headline),
        architecture_untested=any(row.contrast == "independent" and shown_verdict(row) == "inherited" for row in headline),
        contrasts=contrast_tables.contrast_table(contrasts, study.units) if contrasts else None,
        controls=controls_section.method_controls(study),
        controls_meanings=controls_section.meanings(study.inheritance),
        transfer=controls_section.transfer_table(study.transfer),
        figure_tables=figure_tables(study),
        curves=drawings.curves(study),
        series_legends=[(pair.title, drawings.series_legend(pair)) for pair in study.pairs],
        heat_maps=[(pair.title, maps) for pair in study.pairs if (maps := heat_maps(study, pair))],
        looks=pair_strips(study),
        probe_pictures=[probe_picture(study, probe) for probe in study.probes],
        training=drawings.training(study),
        training_legend=drawings.training_legend(study),
        cost=tables.cost_table(study.records) if study.records else None,
        seed_ratios=tables.metric_table(study, "Probe accuracy / clean accuracy", ["seed_ratio"]),
        chance=percent(chance) if (chance := study.chance_on("clean")) else None,
        versions=_distinct(study.records, "software"),
        machines=_distinct(study.records, "hardware"),
        plugins=sorted({(name, source) for record in study.records for name, source in record.plugins.items()}),
    )


def _question(study: StudyFiles) -> str:
    """What the study asked, in one sentence."""
    pairs = listed([pair.title for pair in study.pairs])
    methods = listed(list(dict.fromkeys(method for pair in study.pairs for method in pair.taught_by)))
    beside = "beside the same students trained without a teacher"
    how = f"Distilled with {methods}: {pairs}, {beside}." if methods else ""
    return f"What do students take over from a teacher of another architecture? {how}".strip()


def _facts(study: StudyFiles) -> str:
    """The size of the study: images, classes, runs, and from how many teachers."""
    images = study.plan.get("images", {})
    splits = [f"{images[split]:,} {word}" for split, word in _SPLITS.items() if isinstance(images.get(split), int)]
    size = images.get("size")
    sides = size if isinstance(size, list | tuple) else [size, size]
    classes = images.get("class_names") or ()
    teachers = sum(record.arm == "teacher" for record in study.records)
    ceilings = sum(record.arm == CEILING for record in study.records)
    students = len(study.records) - teachers - ceilings - sum(record.arm == EARLIER_TEACHER for record in study.records)
    parts = [
        f"Images: {images['source']}" if images.get("source") else "",
        listed(splits),
        f"{sides[0]} by {sides[1]} pixels" if size else "",
        f"{len(classes)} classes" if classes else "",
        f"{count(teachers, 'teacher')} and {count(students, 'student')} trained" if study.records else "nothing trained yet",
        f"{count(ceilings, 'network')} trained on probes for their signal gate" if ceilings else "",
    ]
    return ", ".join(part for part in parts if part) + "."


_SPLITS = {"train": "for training", "validation": "for validation", "test": "for the test"}


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


def _distinct(records: tuple[RunRecord, ...], name: str) -> list[dict[str, str]]:
    """The different values of a mapping that every record carries; one where all runs were made alike."""
    found: list[dict[str, str]] = []
    for record in records:
        if (value := getattr(record, name)) not in found:
            found.append(value)
    return found


_SHAPES = {
    "circle": "M0,-5A5,5 0 1 1 0,5A5,5 0 1 1 0,-5Z",
    "square": "M-4.5,-4.5h9v9h-9Z",
    "diamond": "M0,-6L5,0L0,6L-5,0Z",
    "triangle-up": "M0,-5L5,4.5H-5Z",
    "triangle-down": "M0,5L5,-4.5H-5Z",
    "triangle-left": "M-5,0L4.5,-5V5Z",
    "triangle-right": "M5,0L-4.5,-5V5Z",
    "cross": "M-2,-5h4v3h3v4h-3v3h-4v-3h-3v-4h3Z",
    "stroke": "M-6,-1.5h12v3h-12Z",
}

_TONES = {
    "inherited": "green",
    "moved_away": "red",
    "equivalent": "blue",
    "unresolved": "violet",
    "nothing_to_inherit": "grey",
    "method_did_not_act": "ochre",
    "not_measurable": "grey",
}


def _tone(mark: str) -> str:
    """The style class of a cell or verdict. Classes are named by colour: a page without a verdict must not even hold its name."""
    return _TONES.get(mark, mark)
