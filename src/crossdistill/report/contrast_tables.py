"""Tables of contrasts: all of them with their numbers, and the controls of one method beside each other."""

from collections.abc import Mapping, Sequence

from crossdistill.compare.figures import SIDING
from crossdistill.core.records import Against, InheritanceRow
from crossdistill.report.contrast_names import CONTRASTS
from crossdistill.report.headline import whole_curves
from crossdistill.report.names import NOT_RUN, TITLES, plain, quantity, shown_verdict
from crossdistill.report.tables import Cell, Column, Table, level_name
from crossdistill.report.words import NO_NUMBER, SPACE, difference, is_share, known

MOST = 1000
"""Contrasts on the page; a row weighs about a kilobyte, and the page stays below 5 MB."""


def shown_contrasts(rows: Sequence[InheritanceRow]) -> list[InheritanceRow]:
    """The contrasts that the page has room for: all, or else those over all levels, or else of those accuracy and sides taken."""
    whole = whole_curves(rows) if len(rows) > MOST else list(rows)
    if len(whole) <= MOST:
        return whole
    first = [row for row in whole if row.role == "primary" or row.metric in ("accuracy", SIDING)]
    return sorted(first, key=lambda row: row.role != "primary")[:MOST]


def contrast_table(rows: Sequence[InheritanceRow], units: Mapping[str, str] | None = None) -> Table:
    """Every contrast with its numbers, the procedure behind them, its verdict and the reason; `units` are those of the metrics."""
    names = ["Pair", "Method", "Against", "Measured", "Difference", "Teacher's lead", "Verdict"]
    names += ["p after Holm (declared)", "p after Benjamini-Hochberg (not declared)", "Smallest detectable", "Procedure", "Why"]
    table = Table("Contrasts of students with their controls; shares in points", [Column(name) for name in names])
    for place, row in enumerate(rows):
        verdict, unit = shown_verdict(row), (units or {}).get(row.metric, "")
        details = [level_name(row.level_or_auc), "declared in advance" if row.role == "primary" else ""]
        details += [NOT_RUN] if row.signal_gate == "not run" else []
        measured = quantity(row.model_copy(update={"level_or_auc": ""}))
        cells = [
            Cell(f"{row.teacher} → {row.student}", place),
            Cell(row.method, row.method),
            Cell(CONTRASTS[row.contrast].title, row.contrast),
            Cell(measured, f"{measured} {row.level_or_auc}", ", ".join(filter(None, details))),
            difference_cell(row.difference, row.low, row.high, unit),
            difference_cell(row.teacher_gap, row.gap_low, row.gap_high, unit),
            Cell(TITLES[verdict], TITLES[verdict], mark=verdict),
            _p_cell(row.p_holm, ""),
            _p_of_others(row),
            _smallest_cell(row.minimum_detectable, unit),
            Cell(row.p_source or "no procedure", row.p_source),
            Cell("; ".join(filter(None, [row.reason, row.note])), row.reason),
        ]
        table.add(cells, pair=row.pair, method=row.method, probe=row.probe)
    return table


def _p_cell(p: float | None, small: str) -> Cell:
    if p is None or not known(p):
        return Cell("no p", None, mark="muted")
    return Cell(f"{p:.3f}" if p >= 0.001 else "< 0.001", p, small)


def _p_of_others(row: InheritanceRow) -> Cell:
    """Declared contrasts have no part in it; tables from before the correction have an uncorrected p, which is named so."""
    if row.role == "primary":
        return _p_cell(None, "")
    return _p_cell(row.p_bh, "") if known(row.p_bh) else _p_cell(row.p_raw, "uncorrected")


def difference_cell(value: float | None, low: float | None, high: float | None, unit: str = "", small: str = "") -> Cell:
    """A difference with its interval below it: in points where it is one of shares, else in its own unit."""
    if value is None or not known(value):
        return Cell(NO_NUMBER, None, small, mark="muted")
    limits = f"{difference(low, unit)}{SPACE}to{SPACE}{difference(high, unit)}" if known(low) and known(high) else ""
    text = difference(value, unit) + ("" if is_share(unit) else f"{SPACE}{unit}")
    return Cell(text, value, ", ".join(filter(None, [limits, small])))


def _smallest_cell(value: float | None, unit: str) -> Cell:
    if value is None or not known(value):
        return Cell(NO_NUMBER, None, mark="muted")
    return Cell(f"{100 * value:.1f}" if is_share(unit) else f"{value:.3f}{SPACE}{unit}", value)


def controls_table(rows: Sequence[InheritanceRow], title: str) -> Table | None:
    """Probes by contrasts of one pair and method: differences of accuracy (and of sides taken) in points, each with its verdict.

    None where the students were compared with independents only.
    """
    shown = [row for row in whole_curves(rows) if row.metric == _metric(row)]
    found: dict[tuple[Against, str], InheritanceRow] = {(row.contrast, row.probe): row for row in shown}
    contrasts: list[Against] = [contrast for contrast in CONTRASTS if any(key[0] == contrast for key in found)]
    if not set(contrasts) - {"independent"}:
        return None
    heads = [Column("Images"), *(Column(CONTRASTS[contrast].title, _what(contrast)) for contrast in contrasts)]
    table = Table(f"{title}: differences from each control, in points", heads)
    for place, probe in enumerate(dict.fromkeys(probe for _, probe in found)):
        cells = [_control_cell(table, found.get((contrast, probe))) for contrast in contrasts]
        table.add([Cell(plain(probe), place), *cells], probe=probe)
    return table


def _metric(row: InheritanceRow) -> str:
    return SIDING if row.contrast == "second_independent" else "accuracy"


def _what(contrast: Against) -> str:
    return "sides taken" if contrast == "second_independent" else "accuracy"


def _control_cell(table: Table, row: InheritanceRow | None) -> Cell:
    if row is None:
        return Cell("not compared", None, mark="muted")
    verdict = shown_verdict(row)
    if verdict == "not_measurable" or not known(row.difference):
        return Cell(NO_NUMBER, None, footnote=table.footnote(row.reason or "no reason was recorded"), mark="muted")
    small = TITLES[verdict].lower() + (", declared in advance" if row.role == "primary" else "")
    return difference_cell(row.difference, row.low, row.high, small=small)
