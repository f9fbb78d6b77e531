"""The inheritance table: each student arm against the independents, figure by figure, with the teacher's gap and a verdict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from crossdistill.compare.evidence import Action, Comparison, action, arm_comparison, teacher_gap
from crossdistill.compare.figures import Figure, Figures
from crossdistill.compare.gates import SignalGate, signal_gates
from crossdistill.compare.observed import AVERAGE, CLEAN, Contrast, ObservedRun, Pair, chance_level, clean_answers, correct
from crossdistill.compare.verdicts import Evidence, judge
from crossdistill.core.records import InheritanceRow, ResultRow
from crossdistill.core.types import Estimate
from crossdistill.metrics._gates import accuracy_gate
from crossdistill.stats import holm

PRIMARY_METRIC = "accuracy"


@dataclass(frozen=True)
class Arms:
    """The runs that one contrast compares: names of student, independent and teacher runs, of one pair and method."""

    pair: Pair
    method: str
    students: tuple[str, ...]
    independents: tuple[str, ...]
    teachers: tuple[str, ...]  # those that taught the students


@dataclass(frozen=True)
class Draft:
    """A contrast before Holm's correction and its verdict."""

    arms: Arms
    figure: Figure
    primary: bool
    sizes: tuple[int, int]  # student and independent runs that have the figure
    compared: Comparison
    gap: Estimate
    action: Action
    signal: SignalGate | None  # None for images that are no probe


@dataclass(frozen=True)
class Gates:
    """The validity gates of a study: why networks cannot be read, by run, and what became of each probe's signal gate."""

    accuracy: Mapping[str, str | None]
    signal: Mapping[tuple[str, str], SignalGate]

    def refusal(self, arms: Arms, figure: Figure) -> str | None:
        """Why a contrast of these arms cannot be read; None where it can."""
        of_runs = next((self.accuracy[run] for run in (*arms.students, *arms.independents, *arms.teachers) if self.accuracy.get(run)), None)
        signal = self.signal.get((figure.probe, figure.level))
        return of_runs or (signal and signal.reason)


def inheritance_table(
    results: Sequence[ResultRow], runs: Sequence[ObservedRun], pairs: Sequence[Pair], primary: Sequence[Contrast]
) -> list[InheritanceRow]:
    """One row per pair, method and figure: students minus independents, Welch on run means, beside the teacher's gap.

    Differences are in the figure's own unit (shares: 0.01 is one point). The declared contrasts are of accuracy at level
    "auc" (the only level where a probe has one); Holm's correction runs over them all, counting those that could not be
    measured as p = 1. Where an accuracy gate or a probe's signal gate failed, the contrast is not measurable and has no figures,
    accuracy included: a difference between networks on images without signal would be read as a bias.
    Raises ValueError for a declared contrast of a pair or method that does not exist.
    """
    _check(pairs, primary)
    figures = Figures(results)
    gates = Gates({run.record.run: _gate(run) for run in runs}, signal_gates(runs))
    drafts = [
        draft
        for pair in pairs
        for method in pair.methods
        for draft in _drafts(_arms(runs, pair, method), figures, gates, _declared(primary, pair, method))
    ]
    declared = [place for place, draft in enumerate(drafts) if draft.primary]
    family = [drafts[place].compared.p for place in declared]
    adjusted = dict(zip(declared, holm([1.0 if p is None else p for p in family]), strict=True))
    return [_row(draft, adjusted.get(place), len(declared)) for place, draft in enumerate(drafts)]


def _check(pairs: Sequence[Pair], primary: Sequence[Contrast]) -> None:
    known = {(pair.index, method) for pair in pairs for method in pair.methods}
    for contrast in primary:
        if (contrast.pair, contrast.method) not in known:
            raise ValueError(f"the declared contrast of '{contrast.method}' in pair {contrast.pair} has no such pair and method")


def _declared(primary: Sequence[Contrast], pair: Pair, method: str) -> list[str]:
    """The probes of a pair and method's declared contrasts."""
    return [contrast.probe for contrast in primary if (contrast.pair, contrast.method) == (pair.index, method)]


def _arms(runs: Sequence[ObservedRun], pair: Pair, method: str) -> Arms:
    records = [run.record for run in runs]
    students = [r for r in records if (r.arm, r.teacher, r.student) == (method, pair.teacher, pair.student)]
    independents = [r.run for r in records if (r.arm, r.student) == ("independent", pair.student)]
    taught_by = {r.teacher_run for r in students}
    teachers = [r.run for r in records if (r.arm, r.student) == ("teacher", pair.teacher) and (r.run in taught_by or not students)]
    return Arms(pair, method, tuple(r.run for r in students), tuple(independents), tuple(teachers))


def _gate(run: ObservedRun) -> str | None:
    """Why a network cannot be read: its accuracy gate. None also where its clean images were not observed or labelled."""
    clean = clean_answers(run)
    if clean is None or not clean.labelled:
        return None
    refusal = accuracy_gate(correct(clean), chance_level(clean.labels))
    return refusal and f"{run.record.label}: {refusal}"


def _drafts(arms: Arms, figures: Figures, gates: Gates, declared: Sequence[str]) -> Iterator[Draft]:
    acted = _action(arms, figures)
    shown = figures.contrasted((*arms.independents, *arms.teachers))
    primaries = [_primary_figure(shown, probe) for probe in dict.fromkeys(declared)]
    for figure in dict.fromkeys([*shown, *primaries]):
        students, independents = figures.of(arms.students, figure), figures.of(arms.independents, figure)
        compared, gap = arm_comparison(students, independents), teacher_gap(figures.of(arms.teachers, figure), independents)
        if refusal := gates.refusal(arms, figure):  # what a failed gate makes meaningless is not printed at all
            compared, gap = Comparison(Estimate.not_measurable(refusal)), Estimate.not_measurable(refusal)
        signal = gates.signal.get((figure.probe, figure.level))
        yield Draft(arms, figure, figure in primaries, (len(students), len(independents)), compared, gap, acted, signal)


def _action(arms: Arms, figures: Figures) -> Action:
    """Whether the method acted, by fidelity on the clean images."""

    def beside(metric: str) -> tuple[list[ResultRow], list[ResultRow]]:
        figure = Figure(CLEAN[0], CLEAN[1], metric)
        return figures.beside(arms.students, arms.teachers, figure), figures.beside(arms.independents, arms.teachers, figure)

    return action(beside("fidelity_agreement"), beside("fidelity_kl"))


def _primary_figure(shown: Sequence[Figure], probe: str) -> Figure:
    """The figure of a declared contrast: accuracy at "auc", or at the only level; there even when nothing was observed."""
    levels = [figure.level for figure in shown if (figure.probe, figure.metric) == (probe, PRIMARY_METRIC)]
    return Figure(probe, levels[0] if len(levels) == 1 else AVERAGE, PRIMARY_METRIC)


def _row(draft: Draft, p_holm: float | None, n_declared: int) -> InheritanceRow:
    arms, compared, gap = draft.arms, draft.compared, draft.gap
    if compared.p is None:
        p_holm = None
    judgement = judge(
        Evidence(
            n_runs=min(draft.sizes),
            difference=compared.difference,
            gap=gap,
            minimum_detectable=compared.minimum_detectable,
            runs_needed=compared.runs_needed,
            inaction=draft.action.inaction,
            p_holm=p_holm,
        )
    )
    return InheritanceRow(
        pair=arms.pair.index,
        teacher=arms.pair.teacher,
        student=arms.pair.student,
        method=arms.method,
        contrast="independent",
        probe=draft.figure.probe,
        metric=draft.figure.metric,
        level_or_auc=draft.figure.level,
        role="primary" if draft.primary else "secondary",
        difference=compared.difference.value,
        low=compared.difference.low,
        high=compared.difference.high,
        p_raw=compared.p,
        p_holm=p_holm,
        p_source="Welch t on run means, {} v {} runs".format(*draft.sizes),
        family_size=n_declared if draft.primary else 0,
        minimum_detectable=compared.minimum_detectable,
        runs_needed=compared.runs_needed,
        teacher_gap=gap.value,
        gap_low=gap.low,
        gap_high=gap.high,
        fidelity=draft.action.gained_agreement,
        n_runs=min(draft.sizes),
        n_teachers=len(arms.teachers),
        verdict=judgement.verdict,
        reason=judgement.reason,
        signal_gate=draft.signal.status if draft.signal else "",
        note=draft.signal.note if draft.signal else None,
    )
