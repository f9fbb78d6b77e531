"""Two arms of students at equal validation accuracy of those who taught them: analysis of covariance.

Teachers of two families are matched in accuracy only roughly; what is left of the gap enters as a covariate.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from crossdistill.compare.evidence import Comparison
from crossdistill.core.types import Estimate
from crossdistill.stats import Spread, fewest_runs, has_spread, minimum_detectable_effect, t_test

FEWEST = 3
"""Runs an arm: with 2 and 2 the fit would have one degree of freedom."""


ROUNDING = 1e-12
"""Residuals of this size, in shares, are zero."""


class Fit(NamedTuple):
    """The group's coefficient in figure ~ 1 + group + covariate, both arms about their own means."""

    difference: float
    residual_variance: float  # with n - 3 degrees of freedom
    apart: float  # mean covariate of the students minus that of the controls
    within: float  # sum of squares of the covariate about the arms' means
    n: int

    def spread(self, n_students: int, n_controls: int) -> Spread:
        """How well the difference is known with so many runs whose teachers vary as these do.

        With the runs of the fit this is the least-squares standard error: s^2 (1/n_a + 1/n_b + apart^2 / within).
        """
        within = self.within * (n_students + n_controls - 2) / (self.n - 2)
        variance = self.residual_variance * (1 / n_students + 1 / n_controls + self.apart**2 / within)
        return Spread(math.sqrt(variance), n_students + n_controls - 3)


def adjusted_for_teachers(
    students: np.ndarray, controls: np.ndarray, student_teachers: np.ndarray, control_teachers: np.ndarray
) -> Comparison:
    """Students minus controls at equal validation accuracy of their teachers, with Student's t on n - 3 degrees of freedom.

    `students` and `controls` [runs] hold one figure a run, `student_teachers` and `control_teachers` [runs] the validation accuracy
    of the weights that taught that run. Ordinary least squares of the figure on group and validation accuracy; the coefficient
    of the group is the difference. One slope serves both arms.

    `runs_needed` takes further teachers to vary as these do. Not measurable with fewer than 3 runs an arm; where all runs of an arm were
    taught at one validation accuracy (by one checkpoint, say): what a better teacher does cannot then be told from what the arm does;
    where nothing is left to judge by.
    """
    n = min(len(students), len(controls))
    if refusal := _refusal(students, controls, student_teachers, control_teachers):
        return Comparison(Estimate.not_measurable(refusal, n=n))
    fit = _fit(students, controls, student_teachers, control_teachers)
    if math.sqrt(fit.residual_variance) < ROUNDING:
        return Comparison(Estimate.not_measurable("the teachers' accuracy accounts for every figure exactly: nothing to judge by", n=n))
    found = t_test(fit.difference, fit.spread(len(students), len(controls)))
    return Comparison(
        Estimate(found.difference, found.low, found.high, n=n, unit="difference"),
        found.p,
        minimum_detectable_effect(*found.spread),
        fewest_runs(found.difference, lambda runs: fit.spread(runs, runs)),
        f"least squares on arm and the teachers' validation accuracy, t, {len(students)} v {len(controls)} runs",
    )


def _fit(students: np.ndarray, controls: np.ndarray, student_teachers: np.ndarray, control_teachers: np.ndarray) -> Fit:
    # Both arms about their own means: what is left of figure and covariate gives the common slope (Frisch, Waugh & Lovell).
    figure = np.concatenate([students - students.mean(), controls - controls.mean()])
    covariate = np.concatenate([student_teachers - student_teachers.mean(), control_teachers - control_teachers.mean()])
    within = float(covariate @ covariate)
    slope = float(covariate @ figure) / within
    apart = float(student_teachers.mean() - control_teachers.mean())
    residuals = figure - slope * covariate
    difference = float(students.mean() - controls.mean()) - slope * apart
    return Fit(difference, float(residuals @ residuals) / (len(figure) - 3), apart, within, len(figure))


def _refusal(students: np.ndarray, controls: np.ndarray, student_teachers: np.ndarray, control_teachers: np.ndarray) -> str | None:
    if min(len(students), len(controls)) < FEWEST:
        return f"{len(students)} and {len(controls)} runs: adjusting for the teachers' accuracy takes at least {FEWEST} an arm"
    for arm, teachers in (("students", student_teachers), ("controls", control_teachers)):
        if not has_spread(teachers):
            return (
                f"all {len(teachers)} {arm} were taught at one validation accuracy, {100 * teachers[0]:.1f} %, as by one checkpoint: "
                "what a better teacher does cannot be told from what the arm does"
            )
    return None
