"""Every contrast of a method with one control, figure by figure, before corrections and verdicts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from crossdistill.compare.accuracy_matched import Accuracies, accuracy_matched
from crossdistill.compare.adjusted import adjusted_for_teachers
from crossdistill.compare.arms import Apart, Arms, Sides
from crossdistill.compare.evidence import Action, Comparison, action, arm_comparison, side_gap, teacher_gap
from crossdistill.compare.figures import ACCURACY, SIDING, WRONG_SIDING, Figure, Figures, primary_figure, unreadable, values
from crossdistill.compare.gates import Gates, SignalGate
from crossdistill.compare.observed import CLEAN, ObservedRun, Pair
from crossdistill.compare.sides import mean_excess
from crossdistill.core.records import Against, ResultRow
from crossdistill.core.types import Estimate


@dataclass(frozen=True)
class Draft:
    """A contrast before it is corrected for the others and judged."""

    sides: Sides
    figure: Figure
    primary: bool
    n_runs: int  # of the smaller arm, that have the figure
    compared: Comparison
    gap: Estimate
    action: Action
    apart: Apart
    signal: SignalGate | None  # None for images that are no probe


@dataclass(frozen=True)
class Found:
    """A comparison beside the teacher's gap, and the runs of the smaller arm."""

    compared: Comparison
    gap: Estimate
    n_runs: int


class Drafter:
    """Drafts contrasts from the results and the runs of a study."""

    def __init__(self, results: Sequence[ResultRow], runs: Sequence[ObservedRun], gates: Gates) -> None:
        self._figures, self._arms, self._gates = Figures(results), Arms(runs), gates

    def drafts(self, pair: Pair, method: str, against: Against, declared: Sequence[str]) -> Iterator[Draft]:
        """A draft for each figure, where any run of the control arm exists; of the `declared` probes in any case."""
        sides = self._arms.sides(pair, method, against)
        exists = sides.controls or (sides.with_control_teacher and sides.students)
        shown = self._shown(sides) if exists else []
        metric = SIDING if against == "second_independent" else ACCURACY
        primaries = [primary_figure(shown, probe, metric) for probe in dict.fromkeys(declared)]
        acted = self._action(sides)
        apart = self._arms.apart(sides) if sides.with_control_teacher else Apart()
        for figure in dict.fromkeys([*shown, *primaries]):
            found = self._found(sides, figure, apart)
            if refusal := self._gates.refusal(sides.runs, figure):  # what a failed gate makes meaningless is not printed at all
                found = Found(Comparison(Estimate.not_measurable(refusal)), Estimate.not_measurable(refusal), found.n_runs)
            signal = self._gates.signal.get((figure.probe, figure.level))
            yield Draft(sides, figure, figure in primaries, found.n_runs, found.compared, found.gap, acted, apart, signal)

    def has_twin(self, pair: Pair, method: str) -> bool:
        return bool(self._arms.sides(pair, method, "twin").controls)

    def _shown(self, sides: Sides) -> list[Figure]:
        """The figures of a contrast, in the order of the table."""
        if sides.against == "second_independent":
            return [
                Figure(*place, siding)
                for siding in (SIDING, WRONG_SIDING)
                for place in self._figures.places(sides.students, f"{siding}_excess")
            ]
        contrasted = self._figures.contrasted((*sides.independents, *sides.teachers, *sides.control_teachers))
        if sides.against == "accuracy_matched":
            return [figure for figure in contrasted if figure.metric == ACCURACY and figure.probe != CLEAN[0]]
        return contrasted

    def _action(self, sides: Sides) -> Action:
        """Whether the method acted, by fidelity on the clean images."""

        def beside(metric: str) -> tuple[list[ResultRow], list[ResultRow]]:
            figure = Figure(CLEAN[0], CLEAN[1], metric)
            beside, teachers = self._figures.beside, sides.teachers
            return beside(sides.students, teachers, figure), beside(sides.independents, teachers, figure)

        return action(beside("fidelity_agreement"), beside("fidelity_kl"))

    def _found(self, sides: Sides, figure: Figure, apart: Apart) -> Found:
        if sides.against == "second_independent":
            return self._siding(sides, figure)
        students, controls = self._figures.of(sides.students, figure), self._figures.of(sides.controls, figure)
        gap, n_runs = self._gap(sides, figure), min(len(students), len(controls))
        names = ("matched_teacher" if sides.with_control_teacher else "student", sides.against.removesuffix("_adjusted"))
        if sides.against == "accuracy_matched":
            return self._accuracy_matched(sides, figure, gap)
        if apart.refusal:
            return Found(Comparison(Estimate.not_measurable(apart.refusal)), gap, n_runs)
        if sides.against == "control_teacher_adjusted":
            return Found(self._adjusted(students, controls, names), gap, n_runs)
        return Found(arm_comparison(students, controls, names), gap, n_runs)

    def _gap(self, sides: Sides, figure: Figure) -> Estimate:
        teachers = self._figures.of(sides.teachers, figure)
        if sides.with_control_teacher:
            return teacher_gap(teachers, self._figures.of(sides.control_teachers, figure), "control teacher")
        return teacher_gap(teachers, self._figures.of(sides.independents, figure))

    def _siding(self, sides: Sides, figure: Figure) -> Found:
        # A run seed whose second independent is not there is left out, as one that lacks its student is.
        seconds = self._arms.by_seed(sides.controls)
        students = [run for seed, runs in self._arms.by_seed(sides.students).items() if seed in seconds for run in runs]

        def rows(of: str) -> list[ResultRow]:
            return self._figures.of(students, Figure(figure.probe, figure.level, f"{figure.metric}_{of}"))

        excesses = rows("excess")
        if not excesses:
            missing = Estimate.not_measurable(f"no student run has this figure ({figure.metric} takes a second independent arm)")
            return Found(Comparison(missing), missing, 0)
        return Found(mean_excess(excesses), side_gap(rows("second_rate")), len(excesses))

    def _adjusted(self, students: Sequence[ResultRow], controls: Sequence[ResultRow], names: tuple[str, str]) -> Comparison:
        if refusal := unreadable(names[0], students) or unreadable(names[1], controls):
            return Comparison(Estimate.not_measurable(refusal))
        of_teachers = [np.array([self._arms.taught_at(row.run) for row in rows], dtype=np.float64) for rows in (students, controls)]
        return adjusted_for_teachers(values(students), values(controls), of_teachers[0], of_teachers[1])

    def _accuracy_matched(self, sides: Sides, figure: Figure, gap: Estimate) -> Found:
        students = self._accuracies(sides.students, figure)
        of_seeds = {seed: self._accuracies(runs, figure) for seed, runs in self._arms.by_seed(sides.controls).items()}
        pool = {seed: accuracies for seed, accuracies in of_seeds.items() if accuracies}
        if not students or not pool:
            missing = f"no {'independent' if students else 'student'} run has this figure"
            return Found(Comparison(Estimate.not_measurable(missing)), gap, 0)
        return Found(accuracy_matched(students, pool), gap, min(len(students), len(pool)))

    def _accuracies(self, runs: Sequence[str], figure: Figure) -> list[Accuracies]:
        """Accuracy on a probe beside that on the clean images, of the runs that have both."""
        found = []
        for row in self._figures.of(runs, figure):
            clean = self._figures.clean_accuracy(row.run, figure.probe, figure.level)
            if clean is not None and row.value is not None:
                found.append(Accuracies(clean, row.value))
        return found
