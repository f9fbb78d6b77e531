"""The transfer table: tau, the share of its distance to the teacher that a student has covered, where such a ratio may be read.

tau = (student - independent) / (teacher - second independent). The second, disjoint independents stand in the denominator
because with one set in both parts its noise alone gives a slope: where nothing is inherited and there is no gap, one half.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from crossdistill.compare.arms import Arms
from crossdistill.compare.figures import Figure, Figures, unreadable, values
from crossdistill.compare.gates import Gates
from crossdistill.compare.observed import AVERAGE, ObservedRun, Pair
from crossdistill.compare.verdicts import READABLE_GAP, with_interval
from crossdistill.core.records import ResultRow, TransferRow
from crossdistill.core.types import Estimate
from crossdistill.stats import Ratio, fieller, has_spread, mean_interval

METRIC = "accuracy"
ALL_PROBES = "all"
NO_SECOND = (
    "there is no second_independent arm, from which the teacher's gap is taken: independents in both parts of a ratio make one by chance"
)
ONE_TEACHER = "from one teacher checkpoint: the interval holds no spread between teachers"
CHANGED = "a token, head or view that the method adds is counted as transfer: its twin tells how much that is"


class Quartet(NamedTuple):
    """The runs of one run seed, by name."""

    student: str
    independent: str
    teacher: str  # the run that taught the student
    second_independent: str


@dataclass(frozen=True)
class Reading:
    """One probe's differences by run seed, [seeds] in shares, with the mean gap; `refusal` says why no ratio is made of them."""

    figure: Figure
    gap: Estimate  # teacher minus second independent
    gains: np.ndarray = field(default_factory=lambda: np.empty(0))  # student minus independent
    gaps: np.ndarray = field(default_factory=lambda: np.empty(0))
    refusal: str | None = None


def transfer_table(
    results: Sequence[ResultRow], runs: Sequence[ObservedRun], pairs: Sequence[Pair], gates: Gates | None = None
) -> list[TransferRow]:
    """Per pair and method a row for each probe, of accuracy at "auc" or its only level, and one for all probes together.

    tau is given where teacher minus second independent is 5 points or more with a t interval over run seeds that excludes 0; else,
    and where the accuracy gate of a run or the probe's signal gate failed, the row is not measurable. Fieller's interval over
    run seeds; with one teacher checkpoint all of it is about that checkpoint, and what a method adds to its students counts in it: `reason`
    then says so beside the figure. Run seeds that lack one of the four arms are left out. `gates` are those of the runs, where known.
    """
    figures, arms, known = Figures(results), Arms(runs), gates or Gates.of(runs)
    return [row for pair in pairs for method in pair.methods for row in _rows(pair, method, figures, known, arms)]


def pooled_ratio(gains: np.ndarray, gaps: np.ndarray) -> Ratio:
    """sum(dS dT) / sum(dT^2) over probes with Fieller's interval over seeds, of gains and gaps [probes, seeds].

    dS and dT are a probe's means over seeds. It is mean(a) / mean(b) of a_s = sum_p w_p gain_ps and b_s = sum_p w_p gap_ps with
    weights w_p = dT: probes with a small gap, whose own ratios would be anything, count little.
    """
    weights = gaps.mean(axis=1)
    return fieller(weights @ gains, weights @ gaps)


def _rows(pair: Pair, method: str, figures: Figures, gates: Gates, arms: Arms) -> list[TransferRow]:
    sides = arms.sides(pair, method, "second_independent")
    quartets = _quartets(arms, sides.students, sides.independents, sides.controls)
    if refusal := _refusal(sides.students, sides.controls, quartets):
        return [_row(pair, method, _together(refusal), quartets, None)]
    readings = [_reading(figure, quartets, figures, gates) for figure in _probes(figures, quartets, gates)]
    rows = [_row(pair, method, r, quartets, None if r.refusal else fieller(r.gains, r.gaps)) for r in readings]
    readable = [reading for reading in readings if reading.refusal is None]
    if not readable:
        refusal = f"none of {len(readings)} probes has a teacher's gap of which a ratio can be made"
        return [*rows, _row(pair, method, _together(refusal), quartets, None)]
    pooled = pooled_ratio(np.stack([r.gains for r in readable]), np.stack([r.gaps for r in readable]))
    return [*rows, _row(pair, method, _together(), quartets, pooled)]


def _together(refusal: str | None = None) -> Reading:
    """The head of the row for all probes, which has a ratio or a refusal and no gap of its own."""
    return Reading(Figure(ALL_PROBES, "", METRIC), Estimate.not_measurable(refusal or ""), refusal=refusal)


def _quartets(arms: Arms, students: Sequence[str], independents: Sequence[str], second: Sequence[str]) -> list[Quartet]:
    """The run seeds that have all four runs."""
    by_seed: list[Mapping[int, list[str]]] = [arms.by_seed(runs) for runs in (independents, second)]
    found = []
    for seed, (student, *_) in arms.by_seed(students).items():
        teacher = arms.records[student].teacher_run
        if teacher is not None and teacher in arms.records and all(seed in of_arm for of_arm in by_seed):
            found.append(Quartet(student, by_seed[0][seed][0], teacher, by_seed[1][seed][0]))
    return found


def _refusal(students: Sequence[str], second: Sequence[str], quartets: Sequence[Quartet]) -> str | None:
    """Why nothing of a method can be read as a ratio."""
    if not students:
        return "no student run has been observed"
    if not second:
        return NO_SECOND
    if len(quartets) < 2:
        n = f"{len(quartets)} run seed{' has' if len(quartets) == 1 else 's have'}"
        return f"{n} a student, its teacher, an independent and a second independent: a ratio takes at least 2"
    return None


def _probes(figures: Figures, quartets: Sequence[Quartet], gates: Gates) -> list[Figure]:
    """Accuracy on each probe that any of the runs was shown: the mean over its levels, or its only level."""
    runs = [run for quartet in quartets for run in quartet]
    shown = [f for f in figures.contrasted(runs) if f.metric == METRIC and (f.probe, f.level) in gates.signal]
    averaged = {figure.probe for figure in shown if figure.level == AVERAGE}
    return [figure for figure in shown if figure.level == AVERAGE or figure.probe not in averaged]


def _reading(figure: Figure, quartets: Sequence[Quartet], figures: Figures, gates: Gates) -> Reading:
    by_arm = {arm: figures.of([quartet[place] for quartet in quartets], figure) for place, arm in enumerate(Quartet._fields)}
    lacking = next((arm for arm, rows in by_arm.items() if len(rows) < len(quartets)), None)
    refusal = (
        gates.refusal([run for quartet in quartets for run in quartet], figure)
        or (lacking and f"a {lacking} run does not have this figure")
        or next(filter(None, (unreadable(arm, rows) for arm, rows in by_arm.items())), None)
    )
    if refusal:
        return Reading(figure, Estimate.not_measurable(refusal), refusal=refusal)
    student, independent, teacher, second = (values(rows) for rows in by_arm.values())
    gains, gaps = student - independent, teacher - second
    gap = Estimate(float(gaps.mean()), *mean_interval(gaps), n=len(gaps))
    return Reading(figure, gap, gains, gaps, _refusal_of_gap(gap) or _without_spread(gains, gaps))


def _refusal_of_gap(gap: Estimate) -> str | None:
    """Why a gap is no denominator."""
    assert gap.value is not None
    assert gap.low is not None
    assert gap.high is not None
    found = f"teacher minus second independent, {with_interval(gap)},"
    if abs(gap.value) < READABLE_GAP:
        return f"{found} is under {100 * READABLE_GAP:.0f} points: a ratio to it would be mostly noise"
    if gap.low <= 0 <= gap.high:
        return f"{found} is not told from zero: a ratio to it could be anything"
    return None


def _without_spread(gains: np.ndarray, gaps: np.ndarray) -> str | None:
    return None if has_spread(gains, gaps) else f"all {len(gains)} run seeds gave the same figures: there is no spread to judge by"


def _row(pair: Pair, method: str, reading: Reading, quartets: Sequence[Quartet], tau: Ratio | None) -> TransferRow:
    notes = [ONE_TEACHER] if len({quartet.teacher for quartet in quartets}) == 1 else []
    notes += [CHANGED] if method in pair.changed else []
    return TransferRow(
        pair=pair.index,
        teacher=pair.teacher,
        student=pair.student,
        method=method,
        metric=METRIC,
        probe=reading.figure.probe,
        level_or_auc=reading.figure.level,
        tau=tau.value if tau else None,
        low=tau.low if tau else None,
        high=tau.high if tau else None,
        teacher_gap=reading.gap.value,
        gap_low=reading.gap.low,
        gap_high=reading.gap.high,
        n_runs=len(quartets),
        status="ok" if tau else "not_measurable",
        reason=("; ".join(notes) or None) if tau else reading.refusal,
    )
