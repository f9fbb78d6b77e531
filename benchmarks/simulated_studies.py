"""A model of decisions: whole studies without training, whose truth is known.

Network r answers image i of a set rightly where

    probit(a_r) > sqrt(SHARED) d_i + sqrt(1 - SHARED) e_ri,        d_i, e_ri ~ N(0, 1),

so that a_r is its accuracy over the population of images. The difficulty d_i of an image is shared by all networks (and half of
its variance by all sets), e_ri is the network's own. Wrong answers fall half of the time on one tempting class of the image, so
that networks err alike. A run's a_r is its arm's mean plus a normal run effect, and for a taught student also a part `passes` of its
teacher run's effect; the own parts e_ri of such a student and its teacher are correlated by the same figure.

The truth of a difference is about the population of runs (and of teacher runs) on the test images of the study: one fixed set
that all networks answer. That is what Welch's interval over run means is about: images are no sample there, since every run meets
the same ones. The difference over the population of images as well stands beside it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri

from crossdistill.compare import ObservedRun
from crossdistill.core.records import EstimateModel, ResultRow, RunRecord
from crossdistill.core.types import Estimate, Observations
from crossdistill.metrics.accuracy import accuracy

CLASSES = 10
SHARED = 0.6  # two networks of 50 % accuracy then give the same right-or-wrong answer on 71 % of the images: an error consistency of .41
TEMPTED = 0.5  # the share of wrong answers that fall on the image's tempting class
CLEAN, LEVEL = "clean", "level=1"
TEACHER, STUDENT = "vit", "cnn"
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(7)  # of a normal distribution
WEIGHTS = WEIGHTS / WEIGHTS.sum()


class Images:
    """The test images of one study: labels, tempting wrong classes, and the difficulties of each set."""

    def __init__(self, random: np.random.Generator, n: int, sets: Sequence[str]) -> None:
        self.n = n
        self.labels = np.arange(n) % CLASSES
        self.tempting = (self.labels + random.integers(1, CLASSES, n)) % CLASSES
        common = random.standard_normal(n)
        self.difficulty = {name: np.sqrt(SHARED / 2) * (common + random.standard_normal(n)) for name in sets}

    def expected(self, name: str, accuracies: np.ndarray) -> np.ndarray:
        """The expected accuracy on these images of networks with these accuracies over all images."""
        margins = ndtri(np.asarray(accuracies))[..., None] - self.difficulty[name]
        return ndtr(margins / math.sqrt(1 - SHARED)).mean(axis=-1)

    def mean(self, name: str, arm_mean: float, spread: float) -> float:
        """The mean over runs of the expected accuracy on these images; run effects are normal with that standard deviation."""
        return float(WEIGHTS @ self.expected(name, arm_mean + spread * NODES))

    def answer(self, random: np.random.Generator, name: str, run_accuracy: float, own: np.ndarray) -> np.ndarray:
        """The decisions of one network, whose own part is `own`."""
        right = ndtri(run_accuracy) > self.difficulty[name] + math.sqrt(1 - SHARED) * own
        elsewhere = (self.labels + random.integers(1, CLASSES, self.n)) % CLASSES
        wrong = np.where(random.random(self.n) < TEMPTED, self.tempting, elsewhere)
        return np.where(right, self.labels, wrong)


@dataclass(frozen=True)
class Network:
    """One simulated run: what it answered, and what of it a student may take over."""

    observed: ObservedRun
    accuracies: Mapping[str, float]  # over the population of images, by set
    own: Mapping[str, np.ndarray]  # its own part of each image's margin, by set

    def decisions(self, probe: str) -> np.ndarray:
        return self.observed.observations[probe, "" if probe == CLEAN else LEVEL, 0].decisions


def network(
    images: Images,
    random: np.random.Generator,
    arm: str,
    seed: int,
    accuracies: Mapping[str, float],
    *,
    student: str = STUDENT,
    teacher: Network | None = None,
    passes: float = 0.0,
    validation_accuracy: float | None = None,
) -> Network:
    """A run of an arm with these accuracies over all images, by set; a taught one shares the part `passes` of its teacher's own part."""
    accuracies = {name: min(max(one, 0.001), 0.999) for name, one in accuracies.items()}  # where effects have heavy tails
    own = {name: random.standard_normal(images.n) for name in accuracies}
    if teacher and passes:
        own = {name: passes * teacher.own[name] + math.sqrt(1 - passes**2) * values for name, values in own.items()}
    index = np.arange(images.n)
    nothing = np.zeros((images.n, 0), dtype=np.float32)
    observations = {
        (name, "" if name == CLEAN else LEVEL, 0): Observations(
            nothing, images.labels, index, decided=images.answer(random, name, run_accuracy, own[name])
        )
        for name, run_accuracy in accuracies.items()
    }
    return Network(ObservedRun(record(arm, seed, student, teacher, validation_accuracy), observations), accuracies, own)


def record(arm: str, seed: int, student: str, teacher: Network | None, validation_accuracy: float | None) -> RunRecord:
    estimates = {} if validation_accuracy is None else {"validation_accuracy": EstimateModel.of(Estimate(validation_accuracy))}
    return RunRecord(
        run=f"{arm}-{student}-{seed}",
        label=f"{arm}: {student}, seed {seed}",
        arm=arm,
        method=arm.split("+")[0] if teacher else None,
        teacher=teacher and teacher.observed.record.student,
        teacher_run=teacher and teacher.observed.record.run,
        student=student,
        model="simulated",
        family="cnn",
        readout="class",
        seed=seed,
        parameters=1,
        training={},
        history=[],
        estimates=estimates,
        timing={},
        software={},
        hardware={},
    )


def accuracy_rows(networks: Sequence[Network]) -> list[ResultRow]:
    """The accuracy of every network on every set, by the metric itself."""
    return [
        row(one, probe, level, "accuracy", accuracy(seen.decisions, seen.labels))
        for one in networks
        for (probe, level, _), seen in one.observed.observations.items()
    ]


def row(one: Network, probe: str, level: str, metric: str, estimate: Estimate) -> ResultRow:
    """One row of the results table, as a study writes it."""
    of = one.observed.record
    return ResultRow(
        run=of.run,
        arm=of.arm,
        method=of.method,
        teacher=of.teacher,
        student=of.student,
        seed=of.seed,
        probe=probe,
        level=level,
        metric=metric,
        value=estimate.value,
        low=estimate.low,
        high=estimate.high,
        n=estimate.n,
        unit=estimate.unit,
        status=estimate.status,
        reason=estimate.reason,
        teacher_run=of.teacher_run,
    )
