"""The table of pairs: what two networks that answered the same images have in common."""

from collections.abc import Iterator, Sequence
from itertools import combinations

from crossdistill.compare.applied import applicable, figures_of, needed_by
from crossdistill.compare.inputs import inputs_of_two
from crossdistill.compare.observed import Answers, ObservedRun, curve, draws_of, probes, shared_index
from crossdistill.core.records import PairRow

OF_TWO = {"decisions_a", "decisions_b", "correct_a", "correct_b"}
"""The inputs that make a metric one of two networks; `labels` may stand beside them."""


def pairs_table(runs: Sequence[ObservedRun]) -> list[PairRow]:
    """One row per pair of networks, set, level and figure, with intervals over the images that both answered.

    A metric is applied wherever all its inputs exist, as in `results_table`. The figures are about these networks and not about the
    methods that made them. Raises ValueError where two networks were shown other labels, or another number of draws.
    """
    curves = [{(probe, level): answers for probe in probes(run) for level, answers in curve(draws_of(run, probe)).items()} for run in runs]
    return [
        row
        for (run_a, of_a), (run_b, of_b) in combinations(zip(runs, curves, strict=True), 2)
        for place in of_a
        if place in of_b
        for row in _rows(run_a.record.run, run_b.record.run, place, of_a[place], of_b[place])
    ]


def _rows(a: str, b: str, place: tuple[str, str], answers_a: Answers, answers_b: Answers) -> Iterator[PairRow]:
    kept = shared_index([answers_a.index, answers_b.index])
    if not len(kept) or answers_a.split != answers_b.split:
        return
    inputs = inputs_of_two(answers_a.at(kept), answers_b.at(kept), f"'{a}' and '{b}' on '{place[0]}'")
    for metric in sorted(applicable(inputs)):
        if needed_by(metric) & OF_TWO:
            for figure, e in figures_of(metric, inputs).items():
                yield PairRow(
                    a=a, b=b, probe=place[0], level=place[1], metric=figure, value=e.value, low=e.low, high=e.high, n=e.n, unit=e.unit,
                    status=e.status, reason=e.reason,
                )  # fmt: skip
