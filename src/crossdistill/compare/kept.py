"""Rows of an earlier table that cannot be made again where only decisions are left of a network: no logits, no features.

A row is about runs by name, and a name is that of all that a training's bytes depend on. Where a network was trained again and gives
other answers all the same, as on another machine, none of its earlier rows are kept.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from functools import cache
from itertools import groupby

from crossdistill.compare.applied import needed_by
from crossdistill.compare.figures import ACCURACY
from crossdistill.compare.gates import read_as_a_bias
from crossdistill.compare.observed import ObservedRun, Pair, probes
from crossdistill.compare.similarity import FEATURES, compared_networks
from crossdistill.core import registry
from crossdistill.core.records import ResultRow, SimilarityRow

LOGITS = frozenset({"logits", "probabilities", "clean_logits", "probe_logits", "student_logits", "teacher_logits"})
"""The inputs of metrics that decisions cannot give."""

Key = tuple[str, str, str, str, str | None]


def with_kept_results(
    rows: Sequence[ResultRow], earlier: Sequence[ResultRow], runs: Sequence[ObservedRun], *, bare: Collection[str],
    instruments: Collection[str],
) -> list[ResultRow]:  # fmt: skip
    """The rows, and of an `earlier` table those of the same runs that need what is not here any more, in their former places.

    `bare` are the runs of which decisions alone are known, somewhere. Kept are figures of their logits, and those of `instruments` that
    the study still has, of runs whose measurements are not here.
    """
    by_name, there = {run.record.run: run for run in runs}, {_key(row) for row in rows}
    shown = {name: set(probes(run)) for name, run in by_name.items()}
    changed, gates = changed_runs(rows, earlier), {(row.probe, row.level): row.signal_gate for row in rows}

    def kept(row: ResultRow) -> ResultRow | None:
        run, needed = by_name.get(row.run), _needed(row.metric)
        if run is None or row.run in changed or row.probe not in shown[row.run]:
            return None
        if needed & {"teacher_logits"} and (row.teacher_run not in by_name or row.teacher_run in changed):
            return None
        beside = {row.run, row.teacher_run} if "teacher_logits" in needed else {row.run}
        if not (beside & set(bare) if needed & LOGITS else (needed & set(instruments)) - set(run.measured)):
            return None
        gate = gates.get((row.probe, row.level), row.signal_gate)
        if gate == row.signal_gate:
            return row
        if read_as_a_bias(needed) and "failed" in (gate, row.signal_gate):  # what it says now would have to be made anew
            return None
        return row.model_copy(update={"signal_gate": gate})

    after: dict[str, dict[Key | None, list[ResultRow]]] = {}  # by run: what follows each of its rows
    for run, of_run in groupby(earlier, key=lambda row: row.run):
        place: Key | None = None
        for row in of_run:
            if _key(row) in there:
                place = _key(row)
            elif found := kept(row):
                after.setdefault(run, {}).setdefault(place, []).append(found)
    return list(_inserted(rows, after))


def with_kept_similarity(
    rows: Sequence[SimilarityRow], earlier: Sequence[SimilarityRow], runs: Sequence[ObservedRun], pairs: Sequence[Pair],
    changed: Collection[str],
) -> list[SimilarityRow]:  # fmt: skip
    """The rows, and of an `earlier` table those of networks that are still compared and whose features are not here, in the same order."""
    measured = {run.record.run: FEATURES in run.measured for run in runs}
    of_now, of_before = _by_networks(rows), _by_networks(earlier)
    found: list[SimilarityRow] = []
    for a, b in dict.fromkeys(compared_networks(runs, pairs)):
        if (a, b) in of_now:
            found += of_now[a, b]
        elif {a, b} <= measured.keys() and not (measured[a] and measured[b]) and not {a, b} & set(changed):
            found += of_before.get((a, b), [])
    return found


def changed_runs(rows: Iterable[ResultRow], earlier: Iterable[ResultRow]) -> set[str]:
    """The runs that are no longer right on as many images as they were."""
    before = {_key(row): row.value for row in earlier if row.metric == ACCURACY}
    return {row.run for row in rows if row.metric == ACCURACY and before.get(_key(row), row.value) != row.value}


def _key(row: ResultRow) -> Key:
    return row.run, row.probe, row.level, row.metric, row.teacher_run


def _inserted(rows: Iterable[ResultRow], after: dict[str, dict[Key | None, list[ResultRow]]]) -> Iterable[ResultRow]:
    for run, of_run in groupby(rows, key=lambda row: row.run):
        yield from after.get(run, {}).get(None, ())
        for row in of_run:
            yield row
            yield from after.get(run, {}).get(_key(row), ())


def _by_networks(rows: Iterable[SimilarityRow]) -> dict[tuple[str, str], list[SimilarityRow]]:
    found: dict[tuple[str, str], list[SimilarityRow]] = {}
    for row in rows:
        found.setdefault((row.a, row.b), []).append(row)
    return found


@cache
def _needed(figure: str) -> frozenset[str]:
    """The inputs of the metric of which a row is a figure: its own name, or one that goes on with the figure's; none where it has none."""
    names = [name for name in registry.names("metric") if figure == name or figure.startswith(f"{name}_")]
    return needed_by(max(names, key=len)) if names else frozenset()
