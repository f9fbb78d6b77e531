"""A study, or the profiles of networks, in one look: a sentence and a few small tables, as HTML for a notebook and as text."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from crossdistill.compare.verdicts import ENOUGH_RUNS
from crossdistill.core.records import InheritanceRow, ResultRow
from crossdistill.report.conclusion import conclusion, too_few_runs
from crossdistill.report.contrast_names import CONTRASTS
from crossdistill.report.contrast_tables import difference_cell
from crossdistill.report.headline import headline_rows
from crossdistill.report.intervals import interval_of
from crossdistill.report.names import NOT_RUN, TITLES, capitalised, plain, quantity, shown_verdict
from crossdistill.report.study_files import StudyFiles
from crossdistill.report.tables import Cell, Column, Table, controls_of, partly_measured, series_of
from crossdistill.report.words import NO_NUMBER, SPACE, count, figure, known


@dataclass(frozen=True)
class Summary:
    """What is shown of a result: a title, sentences, tables, and the page that has everything."""

    title: str
    sentences: tuple[str, ...]
    tables: tuple[Table, ...]
    page: Path | None = None

    def as_html(self) -> str:
        """A fragment for a notebook, every text escaped; its look comes from the notebook."""
        from jinja2 import Environment, PackageLoader, StrictUndefined

        environment = Environment(
            loader=PackageLoader("crossdistill.report", ""),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        link = quote(Path(os.path.relpath(self.page)).as_posix()) if self.page else None  # a notebook serves what lies below it
        return environment.get_template("summary.html.j2").render(summary=self, link=link)

    def as_text(self) -> str:
        """The same for a terminal, in columns."""
        blocks = [self.title, "\n".join(self.sentences), *(_as_text(table) for table in self.tables)]
        return "\n\n".join(block for block in (*blocks, f"The page: {self.page}" if self.page else "") if block)


def study_summary(study: StudyFiles) -> Summary:
    """What a study of one pair found: the conclusion, the networks' accuracies, and how students differ from their controls."""
    rows = headline_rows(study.inheritance, study.choice_sets)
    said = [
        _models(study),
        conclusion(rows, one_teacher_checkpoint=study.one_teacher_checkpoint, units=study.units),
        too_few_runs(rows, remedy=MORE_RUNS),
        *study.missing,
        *(f"Failed: {task}: {message}" for task, message in study.failures),
    ]
    title = "; ".join(f"{pair.title} by {', '.join(pair.taught_by)}" for pair in study.pairs)
    tables = [_accuracies(study), _differences(study, rows) if rows else None]
    page = study.folder.resolve() / "report.html"
    return Summary(title, tuple(filter(None, said)), tuple(filter(None, tables)), page if page.exists() else None)


MORE_RUNS = f"Call again with seeds={ENOUGH_RUNS}; what is finished is not repeated."


def _models(study: StudyFiles) -> str:
    """Who is behind the names "teacher" and "student"."""
    models = {record.student: record.model for record in sorted(study.records, key=lambda record: record.arm != "teacher")}
    return "; ".join(f"{name}: {model}" for name, model in models.items())


def _accuracies(study: StudyFiles) -> Table | None:
    columns = {
        series.arm: [row for row in study.results if series.holds(row)]
        for pair in study.pairs
        for series in (*series_of(pair), *controls_of(pair))
    }
    overall_last = sorted(study.gates.items(), key=lambda found: found[0][1] == "auc")
    gates = {probe: gate.status for (probe, _), gate in overall_last}  # over all levels, or at the only one
    return _accuracy_table({name: rows for name, rows in columns.items() if rows}, gates)


def _accuracy_table(columns: Mapping[str, Sequence[ResultRow]], gates: Mapping[str, str] = {}) -> Table | None:
    """Accuracy on clean images and on each probe over all its levels: one column for the rows of each kind of network."""
    shown = {name: [row for row in rows if row.metric == "accuracy"] for name, rows in columns.items()}
    sets = dict.fromkeys(row.probe for rows in shown.values() for row in rows)
    table = Table(ACCURACY, [Column("Images"), *(Column(name) for name in columns)])
    for probe in sets:
        found = {name: _whole([row for row in rows if row.probe == probe]) for name, rows in shown.items()}
        head = Cell(plain(probe), small=GATES.get(gates.get(probe, ""), ""))
        table.rows.append([head, *(_figure_cell(table, rows) for rows in found.values())])
    return table if table.rows else None


ACCURACY = "Accuracy, with 95 % intervals over runs where there are three or more that differ, else over images"
GATES = {"failed": "signal gate failed", "not run": NOT_RUN}


def _whole(rows: Sequence[ResultRow]) -> list[ResultRow]:
    """The rows over all levels, or those of the only level."""
    return [row for row in rows if row.level == "auc"] or [row for row in rows if row.level == rows[0].level]


def _figure_cell(table: Table, rows: Sequence[ResultRow]) -> Cell:
    if not rows:
        return Cell("not observed")
    found = interval_of(rows)
    if found is None:
        reason = next((row.reason for row in rows if row.reason), "no reason was recorded")
        return Cell(NO_NUMBER, footnote=table.footnote(reason))
    limits = " to ".join(figure(end, found.unit).split(SPACE)[0] for end in (found.low, found.high) if end is not None)
    near = ", near chance" if rows[0].chance is not None and known(found.low) and found.low <= rows[0].chance else ""  # type: ignore[operator]
    runs = f", {count(found.n_runs, 'run')}" if found.n_runs > 1 else ""
    lost = partly_measured(rows)
    return Cell(figure(found.value, found.unit), found.value, limits + near + runs, table.footnote(lost) if lost else None)


def _differences(study: StudyFiles, rows: Sequence[InheritanceRow]) -> Table:
    heads = ["Measured", "Student minus control", "Control", "Verdict"]
    table = Table("Differences, shares in points, with 95 % intervals", [Column(name) for name in heads])
    for row in rows:
        verdict = shown_verdict(row)
        unit = study.units.get(row.metric, "")
        cell = difference_cell(row.difference, row.low, row.high, unit) if verdict != "not_measurable" else Cell(NO_NUMBER)
        reason = table.footnote(row.reason) if row.reason else None
        control = CONTRASTS[row.contrast].control
        table.rows.append([Cell(capitalised(quantity(row))), cell, Cell(control), Cell(TITLES[verdict], footnote=reason)])
    return table


def evaluation_summary(results: Sequence[ResultRow]) -> Summary:
    """The accuracies of networks on clean images and on each probe over all its levels."""
    networks = dict.fromkeys(row.student for row in results)
    table = _accuracy_table({name: [row for row in results if row.student == name] for name in networks})
    return Summary(f"{count(len(networks), 'network')} evaluated", (), (table,) if table else ())


def _as_text(table: Table) -> str:
    heads = [" ".join(filter(None, (column.name, column.small))) for column in table.columns]
    rows = [heads, *([_cell_text(cell) for cell in row] for row in table.rows)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(heads))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    notes = [f"[{number}] {note}" for number, note in enumerate(table.footnotes, start=1)]
    return "\n".join([table.caption, *lines, *notes])


def _cell_text(cell: Cell) -> str:
    small = f" ({cell.small})" if cell.small else ""
    return f"{cell.text}{small}" + (f" [{cell.footnote}]" if cell.footnote else "")
