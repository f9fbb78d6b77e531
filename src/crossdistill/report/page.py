"""The page of a study: one HTML file that opens offline, built from what the study left on disk and nothing else."""

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING

from crossdistill.core.records import CEILING, EARLIER_TEACHER
from crossdistill.core.store import write_text
from crossdistill.report import sections
from crossdistill.report.directions import isolated, spelled_out
from crossdistill.report.filters import filter_choices
from crossdistill.report.study_files import StudyFiles, read_study
from crossdistill.report.words import count, listed

if TYPE_CHECKING:
    from jinja2 import Environment


@dataclass(frozen=True)
class Section:
    """A section of the page, drawn."""

    anchor: str
    title: str
    html: str


def build_page(folder: Path) -> Path:
    """Write `folder/report.html` from the records in `folder` and return its path; what is not there yet is named on the page.

    Raises StudyError where the folder holds no study, a file is damaged, or the page cannot be written.
    """
    study = read_study(Path(folder))
    page = study.folder / "report.html"
    write_text(page, render(study))
    return page


def render(study: StudyFiles, *, reload_seconds: int | None = None) -> str:
    """The page as HTML, every text escaped. With `reload_seconds` it loads itself again in a browser."""
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("crossdistill.report", ""),
        autoescape=select_autoescape(("html", "j2")),
        undefined=StrictUndefined,
        finalize=isolated,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= dict(svg=lambda drawing: Markup(spelled_out(drawing)), shape_of=_SHAPES.__getitem__, tone_of=_tone)
    script = _script()
    return environment.get_template("page.html.j2").render(
        study=study,
        question=_question(study),
        facts=_facts(study),
        sections=list(_sections(study, environment)),
        choices=filter_choices(study),
        reload_seconds=reload_seconds,
        style=Markup("\n".join([_text("style.css"), *_parts(".css")])),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _script() -> str:
    """The page's one script: the theme before the first paint, and everything else when the page has been read."""
    return "\n".join([_text("theme.js"), 'addEventListener("DOMContentLoaded", () => {', _text("announce.js"), *_parts(".js"), "});"])


def _parts(suffix: str) -> Iterator[str]:
    """What the page does and looks like beyond its basis: the files of `behaviour`, then those that sections have for themselves."""
    for folder in (files("crossdistill.report") / "behaviour", files(sections)):
        found = [file for file in folder.iterdir() if file.name.endswith(suffix)]
        yield from (file.read_text(encoding="utf-8") for file in sorted(found, key=lambda file: file.name))


def _text(name: str) -> str:
    return (files("crossdistill.report") / name).read_text(encoding="utf-8")


def _sections(study: StudyFiles, environment: "Environment") -> Iterator[Section]:
    """Every file of `sections` in the order of its PLACE: what it has to show of this study, by the template beside it."""
    from markupsafe import Markup

    found = [import_module(f"crossdistill.report.sections.{module.name}") for module in iter_modules(sections.__path__)]
    for module in sorted(found, key=lambda module: module.PLACE):
        name = module.__name__.rpartition(".")[2]
        if (shown := module.contents(study)) is not None:
            html = environment.get_template(f"sections/{name}.html.j2").render(study=study, **shown)
            yield Section(name.replace("_", "-"), module.TITLE, Markup(html))


def _question(study: StudyFiles) -> str:
    """What the study asked, in one sentence."""
    pairs = listed([pair.title for pair in study.pairs])
    methods = listed(list(dict.fromkeys(method for pair in study.pairs for method in pair.taught_by)))
    alone = any(str(task.get("run", "")).startswith("independent-") for task in study.plan.get("tasks", ()))
    beside = ", beside the same students trained without a teacher" if alone or not study.plan.get("tasks") else ""
    how = f"Distilled with {methods}: {pairs}{beside}." if methods else ""
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
