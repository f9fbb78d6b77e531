"""Students against independents of their own clean accuracy: probe accuracy beyond what a line through the independents foretells.

A better network is better on a probe too, whatever it relies on ("effective robustness", Taori et al., NeurIPS 2020, arXiv 2007.00644).
Independents of several training budgets show how probe accuracy goes with clean accuracy where nobody taught anything.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from crossdistill.compare.evidence import Comparison
from crossdistill.core.types import Estimate
from crossdistill.metrics.accuracy_residual import FEWEST, Line, logit
from crossdistill.stats import difference_spread, has_spread, minimum_detectable_effect, runs_needed, t_test

FEWEST_IN_POOL = 4
"""Networks in the whole pool: with one seed left out there must still be a line."""


class Accuracies(NamedTuple):
    """One network's accuracy on the clean images and on a probe, 0 to 1."""

    clean: float
    probe: float


def accuracy_matched(students: Sequence[Accuracies], pool: Mapping[int, Sequence[Accuracies]]) -> Comparison:
    """Mean over students of probe accuracy minus the one foretold at the student's own clean accuracy, in shares.

    `pool` holds the independents of all budgets by run seed. The line is that of logit(probe) on logit(clean) through all of them, by
    least squares. With d_i the difference of student i of R,

        variance = var(d) / R + (k - 1) / k * sum over the k seeds of (m_without_seed - mean m)^2

    where m_without_seed is the mean foretold by a line without the networks of that seed (the delete-one jackknife: the networks of one
    seed share their initialisation and batches, so that seeds, not networks, are the pool's sample). R - 1 and k - 1 degrees of
    freedom are joined by Welch & Satterthwaite, interval and p are Student's t. Where the line is flat, this is Welch's test
    on run means, but that the independents' mean is taken in logits.

    Noise of the clean accuracies themselves flattens the line a little: with 2,000 images and budgets whose accuracies span 14 points,
    a mean difference of 0.15 to 0.3 points comes of it, less with more images.

    `runs_needed` takes each further independent seed to come with all of its budgets. Not measurable where the students' mean clean
    accuracy lies outside the pool's, for that would be extrapolation; with fewer than 2 students, 2 seeds or 4 networks, or where the
    pool has one clean accuracy, also with any seed left out; where an accuracy has no logit.
    """
    networks = [network for of_seed in pool.values() for network in of_seed]
    if refusal := _refusal(students, networks) or _refusal_without_a_seed(pool):
        return Comparison(Estimate.not_measurable(refusal, n=min(len(students), len(pool))))
    at = logit(np.array([student.clean for student in students]))
    left_out = np.array([_foretold(_without(pool, seed), at).mean() for seed in pool])
    beyond = np.array([student.probe for student in students]) - _foretold(networks, at)
    return _tested(beyond, left_out, len(networks))


def _tested(beyond: np.ndarray, left_out: np.ndarray, n_networks: int) -> Comparison:
    """The comparison from each student's difference and from the means foretold with each seed left out."""
    n_students, n_seeds = len(beyond), len(left_out)
    n = min(n_students, n_seeds)
    if not has_spread(beyond, left_out):
        return Comparison(Estimate.not_measurable("neither students nor independents differ between runs: nothing to judge by", n=n))
    of_students = float(np.var(beyond, ddof=1))
    of_line = (n_seeds - 1) * float(np.var(left_out))
    found = t_test(float(beyond.mean()), difference_spread(of_students / n_students, n_students - 1, of_line, n_seeds - 1))
    return Comparison(
        Estimate(found.difference, found.low, found.high, n=n, unit="difference"),
        found.p,
        minimum_detectable_effect(*found.spread),
        runs_needed(found.difference, of_students, n_seeds * of_line),
        f"t on run means beyond the line through {n_networks} independents, jackknife over their seeds, {n_students} v {n_seeds} runs",
    )


def _without(pool: Mapping[int, Sequence[Accuracies]], seed: int) -> list[Accuracies]:
    return [network for other, of_seed in pool.items() if other != seed for network in of_seed]


def _foretold(networks: Sequence[Accuracies], at: np.ndarray) -> np.ndarray:
    """The probe accuracy that the line through `networks` gives at the clean accuracies with the logits `at`, [students]."""
    clean, probe = np.array(networks).T
    line = Line.through(clean, probe)
    return 1 / (1 + np.exp(-(line.mean_y + line.slope * (at - line.mean_x))))


def _refusal(students: Sequence[Accuracies], networks: Sequence[Accuracies]) -> str | None:
    if len(students) < 2:
        return f"{len(students)} student run{'s' * (len(students) != 1)}: the spread between runs takes at least 2"
    if len(networks) < FEWEST_IN_POOL:
        return f"a line through {len(networks)} independents, all budgets counted, tells nothing: at least {FEWEST_IN_POOL} are needed"
    if not all(0 < accuracy < 1 for accuracy in (*(s.clean for s in students), *(a for network in networks for a in network))):
        return "an accuracy of 0 or 1, of a student or of an independent, has no logit"
    low, high = min(network.clean for network in networks), max(network.clean for network in networks)
    if low == high:
        return f"all {len(networks)} independents have a clean accuracy of {100 * low:.1f} %: no line can be drawn"
    clean = math.fsum(student.clean for student in students) / len(students)
    if not low <= clean <= high:
        return (
            f"the students' mean clean accuracy, {100 * clean:.1f} %, lies outside the independents' {100 * low:.1f} to "
            f"{100 * high:.1f} %: no line leads there"
        )
    return None


def _refusal_without_a_seed(pool: Mapping[int, Sequence[Accuracies]]) -> str | None:
    """Why the jackknife has no line with one seed left out."""
    if len(pool) < 2:
        return f"{len(pool)} seed of independents: the spread of their line takes at least 2"
    for seed in pool:
        rest = _without(pool, seed)
        if len(rest) < FEWEST or len({network.clean for network in rest}) < 2:
            return f"without seed {seed} the independents are {len(rest)} networks of too few clean accuracies: no line can be drawn"
    return None
