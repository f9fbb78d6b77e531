"""The results table: every metric on every set of every network where its inputs exist."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from crossdistill.compare.applied import applicable, figures_of, needed_by
from crossdistill.compare.companions import Companions, TaughtBy, companions
from crossdistill.compare.gates import Gates, SignalGate, needs_a_network_that_learnt, read_as_a_bias
from crossdistill.compare.inputs import Clean, Shown, on_shared_images, own_inputs, pool_inputs, side_inputs, teacher_inputs
from crossdistill.compare.observed import AVERAGE, CLEAN, ObservedRun, Pair, curve, draws_of, probes
from crossdistill.core.records import CEILING, CLEAN_ACCURACY, ResultRow
from crossdistill.core.types import Estimate
from crossdistill.metrics.accuracy import accuracy

FEWEST_LEVELS = 3
"""A curve with fewer levels than this is labelled so."""

LEFT_TO_PAIRS = {"mcnemar"}
"""Whether two checkpoints differ at all: a student and its teacher nearly always do, and it says nothing about the method."""

Level = Mapping[str, Shown]
"""What the runs answered to one set at one level, by run."""


@dataclass(frozen=True)
class Place:
    """Where a figure stands: the set, how many images a probe could not treat, a note for the reader, and the probe's signal gate."""

    probe: str
    level: str
    n_rejected: int = 0
    note: str | None = None
    gate: SignalGate | None = None  # None for images that are no probe
    chance: float | None = None  # None without labels


@dataclass(frozen=True)
class Study:
    """What the rows of one network read of all networks."""

    gates: Gates
    companions: Mapping[str, Companions]


def results_table(runs: Sequence[ObservedRun], pairs: Sequence[Pair], gates: Gates | None = None) -> list[ResultRow]:
    """One row per network, set, level and figure, with intervals over images.

    A metric is applied wherever all its inputs exist. Probes with several levels also get the level "auc", the mean over the
    levels, taken inside each image. An independent is compared with every teacher run that taught a student of its own
    network and seed; those rows name the teacher. A student's rows beside its teacher also say whose side it takes.

    Where a probe's signal gate failed (over all the runs), what is read as a bias is not measurable (see `gates`). Accuracy, confidence,
    calibration, fidelity and shared errors stay, since they say what was answered, whatever the images hold; `signal_gate` says on every
    row what became of the gate. Of a network that failed its accuracy gate, what builds on its being right is not measurable.

    A probe that drops images has `clean_accuracy` beside its accuracy, over the same images. `gates` are those of the runs, where known.
    """
    study = Study(gates or Gates.of(runs), companions(runs, pairs))
    clean = {run.record.run: Clean.of(run) for run in runs}
    probed = {run.record.run: _probed_images(run) for run in runs}
    rows: dict[str, dict[str, list[ResultRow]]] = {run.record.run: {probe: [] for probe in probes(run)} for run in runs}
    # Probe by probe, so that no more than one is held in memory where observations are read as they are asked for.
    for probe in dict.fromkeys(probe for run in runs for probe in probes(run)):
        of_probe: dict[str, dict[str, Shown]] = {}
        n_levels: dict[str, int] = {}
        for run in runs:
            name, draws = run.record.run, draws_of(run, probe)
            n_levels[name] = len(draws)
            for level, answers in curve(draws).items():
                of_probe.setdefault(level, {})[name] = Shown(run, probe, answers, clean[name])
        for level, shown in of_probe.items():
            for name, one in shown.items():
                rows[name][probe] += _rows(study, level, n_levels[name], one, shown, probed[name])
    return [row for of_run in rows.values() for of_probe in of_run.values() for row in of_probe]


def _rows(study: Study, level: str, n_levels: int, one: Shown, shown: Level, probed: np.ndarray) -> Iterator[ResultRow]:
    """The rows of one network on one set at one level."""
    run, beside = one.run, study.companions[one.run.record.run]
    # A ceiling is shown its probe and nothing else.
    of_the_test = one.beside is not None or run.record.arm == CEILING
    lost = len(np.setdiff1d(probed, one.answers.index)) if of_the_test else 0
    inputs = own_inputs(one)
    inputs |= pool_inputs(one, [shown[other] for other in beside.pool if other in shown])
    gate = study.gates.signal.get((one.probe, level))
    place = Place(one.probe, level, lost, _note(level, n_levels, gate), gate, inputs.get("chance"))
    yield from _figures(run, place, inputs, applicable(inputs), study.gates.accuracy[run.record.run])
    if lost and "clean_correct" in inputs:
        yield _row(run, place, CLEAN_ACCURACY, _share_right(inputs["clean_correct"]), None)
    for teacher in beside.teachers:
        if teacher.run in shown:
            yield from _beside_teacher(study, place, one, shown, inputs, teacher)


def _beside_teacher(
    study: Study, place: Place, one: Shown, shown: Level, inputs: Mapping[str, Any], teacher: TaughtBy
) -> Iterator[ResultRow]:  # fmt: skip
    """The rows of the metrics that also read the teacher's answers, over the images that all networks concerned answered."""
    name, beside = one.run.record.run, study.companions[one.run.record.run]
    if both := on_shared_images(one, shown[teacher.run]):
        own = inputs if both[0] is one else own_inputs(both[0])
        found = {**own, **teacher_inputs(*both)}
        unread = study.gates.accuracy[name] or study.gates.first_unread([teacher.run])
        yield from _figures(one.run, place, found, applicable(found) - applicable(own) - LEFT_TO_PAIRS, unread, teacher)
    if beside.independent not in shown:
        return
    others = [teacher.run, beside.independent, *([beside.second_independent] if beside.second_independent in shown else [])]
    if four := on_shared_images(one, *(shown[other] for other in others)):
        found = side_inputs(*four)
        unread = study.gates.accuracy[name] or study.gates.first_unread(others)
        yield from _figures(one.run, place, found, applicable(found) - applicable({"labels"}), unread, teacher)


def _figures(
    run: ObservedRun, place: Place, inputs: Mapping[str, Any], metrics: set[str], unread: str | None, taught_by: TaughtBy | None = None
) -> Iterator[ResultRow]:
    """The rows of some metrics; `unread` says why a network concerned failed its accuracy gate."""
    drowned = place.gate and place.gate.reason
    for metric in sorted(metrics):
        needed = needed_by(metric)
        refusal = (read_as_a_bias(needed) and drowned) or (needs_a_network_that_learnt(needed) and unread)
        for figure, estimate in figures_of(metric, inputs).items():
            if refusal:
                estimate = Estimate.not_measurable(refusal, n=estimate.n, unit=estimate.unit)
            yield _row(run, place, figure, estimate, taught_by)


def _probed_images(run: ObservedRun) -> np.ndarray:
    """The test images that were to be probed."""
    if run.probed is not None:
        return run.probed
    if CLEAN not in run.observations:
        return np.empty(0, dtype=np.int64)
    split = run.observations[CLEAN].split
    held = [seen.index for key, seen in run.observations.items() if key != CLEAN and seen.split == split]
    return np.unique(np.concatenate(held)) if held else np.empty(0, dtype=np.int64)


def _share_right(correct: np.ndarray) -> Estimate:
    return accuracy(correct, np.ones_like(correct))


def _note(level: str, n_levels: int, gate: SignalGate | None) -> str | None:
    short = f"curve of {n_levels} levels" if level == AVERAGE and n_levels < FEWEST_LEVELS else None
    return "; ".join(filter(None, [short, gate and gate.note])) or None


def _row(run: ObservedRun, place: Place, metric: str, estimate: Estimate, taught_by: TaughtBy | None) -> ResultRow:
    record = run.record
    return ResultRow(
        run=record.run,
        arm=record.arm,
        method=record.method,
        teacher=taught_by.network if taught_by else record.teacher,
        student=record.student,
        seed=record.seed,
        probe=place.probe,
        level=place.level,
        metric=metric,
        value=estimate.value,
        low=estimate.low,
        high=estimate.high,
        n=estimate.n,
        unit=estimate.unit,
        status=estimate.status,
        reason=estimate.reason or place.note,
        n_rejected=place.n_rejected,
        teacher_run=taught_by.run if taught_by else record.teacher_run,
        signal_gate=place.gate.status if place.gate else "",
        chance=place.chance,
    )
