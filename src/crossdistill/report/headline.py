"""Which rows of `inheritance.parquet` the page opens with: of each method its own contrasts, and of those what a reader asks first."""

from collections.abc import Collection, Mapping, Sequence

from crossdistill.compare.figures import SIDING
from crossdistill.core.records import Against, InheritanceRow
from crossdistill.report.names import is_choice
from crossdistill.report.wanted import direction_of


def headline_rows(
    rows: Sequence[InheritanceRow], choice_sets: Collection[str], wanted: Mapping[str, str] | None = None
) -> list[InheritanceRow]:  # fmt: skip
    """The rows that deserve a sentence: accuracy on clean images and on each probe over all levels, choices between cues, and sides taken.

    Of each method only the contrasts that were declared for it, else that with its twin, else that with the independents. Choices
    count on the `choice_sets`, whose images hold cues of different classes. On sets of their own, such as the cue conflict, no
    answer is right: their accuracy would only repeat one of the choices. Retention and the single levels stay in the tables, unless
    the study file says of a figure which way is `wanted`.
    """
    own = headline_contrasts(rows)
    # A probe shows the clean test images again, so it has a retention; a set of its own has none.
    probes = {"clean"} | {row.probe for row in rows if row.metric == "retention"}
    no_right_answer = {row.probe for row in rows if is_choice(row.metric)} & set(choice_sets) - probes

    def deserves(row: InheritanceRow) -> bool:
        if row.role == "primary":
            return True
        if row.contrast not in own[row.pair, row.method]:
            return False
        if is_choice(row.metric):
            return row.probe in choice_sets
        if row.metric != "accuracy" and direction_of(row, wanted or {}):
            return True
        return row.metric == SIDING or (row.metric == "accuracy" and row.probe not in no_right_answer)

    return [row for row in whole_curves(rows) if deserves(row)]


def whole_curves(rows: Sequence[InheritanceRow]) -> list[InheritanceRow]:
    """The rows that stand for a whole probe, over all its levels or at the only one, and those declared in advance."""
    averaged = {_curve(row) for row in rows if row.level_or_auc == "auc"}
    return [row for row in rows if row.level_or_auc == "auc" or row.role == "primary" or _curve(row) not in averaged]


def headline_contrasts(rows: Sequence[InheritanceRow]) -> dict[tuple[int, str], set[Against]]:
    """{(pair, method): the contrasts to read first}: those declared in advance, else twin, else independent, else whatever there is."""
    declared: dict[tuple[int, str], set[Against]] = {}
    there: dict[tuple[int, str], set[Against]] = {}
    for row in rows:
        there.setdefault((row.pair, row.method), set()).add(row.contrast)
        if row.role == "primary":
            declared.setdefault((row.pair, row.method), set()).add(row.contrast)
    return {key: declared.get(key) or found & {"twin"} or found & {"independent"} or found for key, found in there.items()}


def _curve(row: InheritanceRow) -> tuple[int, str, Against, str, str]:
    return row.pair, row.method, row.contrast, row.probe, row.metric
