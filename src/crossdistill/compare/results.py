"""The results table: every metric on every set of every network where its inputs exist."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from crossdistill.compare.applied import applicable, figures_of, needed_by
from crossdistill.compare.gates import SignalGate, signal_gates
from crossdistill.compare.observed import (
    AVERAGE,
    CLEAN,
    Answers,
    ObservedRun,
    Pair,
    chance_level,
    clean_answers,
    correct,
    curve,
    levels,
    paired,
    shared_index,
)
from crossdistill.core.records import CEILING, CLEAN_ACCURACY, ResultRow
from crossdistill.core.types import Estimate
from crossdistill.metrics.accuracy import accuracy

FEWEST_LEVELS = 3
"""A curve with fewer levels than this is labelled so."""

BESIDE_CLEAN = {"probe_correct", "clean_correct"}
"""What puts a probe beside the clean images: a metric that reads one of these is read as a bias, and is held to the signal gate."""

CUE = "_labels"
"""How the inputs end that name the class of one cue of an image: choices between cues are read as a bias as well."""


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
class TaughtBy:
    """The teacher network and the teacher run that a figure refers to."""

    network: str
    run: str


def results_table(runs: Sequence[ObservedRun], pairs: Sequence[Pair]) -> list[ResultRow]:
    """One row per network, set, level and figure, with intervals over images.

    A metric is applied wherever all its inputs exist. Probes with several levels also get the level "auc", the mean over the
    levels, taken inside each image. An independent is compared with every teacher run that taught a student of its own
    network and seed; those rows name the teacher.

    Where a probe's signal gate failed (over all the runs, see `gates`), figures that put the probe beside the clean images
    (retention) and choices between cues are not measurable: they would be read as a bias. Accuracy, confidence and fidelity stay,
    since they say what was answered, whatever the images hold; `signal_gate` says on every row what became of the gate.

    A probe that drops images has `clean_accuracy` beside its accuracy, over the same images.
    """
    by_name, gates = {run.record.run: run for run in runs}, signal_gates(runs)
    teachers = [[by_name[t.run] for t in _teachers(run, runs, pairs) if t.run in by_name] for run in runs]
    return [row for run, of_run in zip(runs, teachers, strict=True) for row in _rows_of_run(run, of_run, gates)]


def _teachers(run: ObservedRun, runs: Sequence[ObservedRun], pairs: Sequence[Pair]) -> list[TaughtBy]:
    """Whom a run is compared with: its own teacher, or for an independent or a twin the teachers of its seed's students."""
    record = run.record
    if record.teacher and record.teacher_run:
        return [TaughtBy(record.teacher, record.teacher_run)]
    untaught = record.arm not in ("teacher", CEILING)
    wanted = {pair.teacher for pair in pairs if pair.student == record.student and untaught}
    taught = (
        TaughtBy(other.record.teacher, other.record.teacher_run)
        for other in runs
        if other.record.teacher in wanted and other.record.teacher_run
        if (other.record.student, other.record.seed) == (record.student, record.seed)
    )
    return list(dict.fromkeys(taught))


def _rows_of_run(
    run: ObservedRun, teachers: Sequence[ObservedRun], gates: Mapping[tuple[str, str], SignalGate]
) -> Iterator[ResultRow]:  # fmt: skip
    clean = clean_answers(run)
    observed = levels(run)
    curves_of_teachers = [{probe: curve(of) for probe, of in levels(teacher).items()} for teacher in teachers]
    probed = _probed_images(run)
    for probe, of_probe in observed.items():
        for level, answers in curve(of_probe).items():
            # A ceiling is shown its probe and nothing else.
            of_the_test = paired(probe, answers, clean) or run.record.arm == CEILING
            lost = len(np.setdiff1d(probed, answers.index)) if of_the_test else 0
            inputs, gate = _inputs(probe, answers, clean), gates.get((probe, level))
            place = Place(probe, level, lost, _note(level, len(of_probe), gate), gate, inputs.get("chance"))
            yield from _figures(run, place, inputs, applicable(inputs))
            if lost and "clean_correct" in inputs:
                yield _row(run, place, CLEAN_ACCURACY, _share_right(inputs["clean_correct"]), None)
            for teacher, curves in zip(teachers, curves_of_teachers, strict=True):
                if theirs := curves.get(probe, {}).get(level):
                    yield from _against_teacher(run, teacher, place, clean, answers, theirs)


def _against_teacher(
    run: ObservedRun, teacher: ObservedRun, place: Place, clean: Answers | None, answers: Answers, theirs: Answers
) -> Iterator[ResultRow]:
    """The rows of the metrics that also read the teacher's answers, over the images that both answered."""
    kept = shared_index([answers.index, theirs.index])
    if not len(kept):
        return
    own = _inputs(place.probe, answers.at(kept), clean)
    inputs = {**own, "student_logits": answers.at(kept).logits, "teacher_logits": theirs.at(kept).logits}
    taught_by = TaughtBy(teacher.record.student, teacher.record.run)
    yield from _figures(run, place, inputs, applicable(inputs) - applicable(own), taught_by)


def _figures(
    run: ObservedRun, place: Place, inputs: Mapping[str, Any], metrics: set[str], taught_by: TaughtBy | None = None
) -> Iterator[ResultRow]:
    refusal = place.gate and place.gate.reason
    for metric in sorted(metrics):
        needed = needed_by(metric)
        for figure, estimate in figures_of(metric, inputs).items():
            if refusal and (needed & BESIDE_CLEAN or any(name.endswith(CUE) for name in needed)):
                estimate = Estimate.not_measurable(refusal, n=estimate.n, unit=estimate.unit)
            yield _row(run, place, figure, estimate, taught_by)


def _inputs(probe: str, answers: Answers, clean: Answers | None) -> dict[str, Any]:
    """What metrics may read of one set, by name; see `crossdistill.metrics`."""
    inputs: dict[str, Any] = {"logits_or_decisions": answers.decisions, "decisions": answers.decisions}
    inputs |= {"logits": answers.logits} if answers.has_logits else {}
    inputs |= {f"{factor}_labels": values for factor, values in answers.factors.items()}
    if not answers.labelled:
        return inputs
    inputs |= {"labels": answers.labels, "chance": chance_level(answers.labels)}
    if clean is not None and paired(probe, answers, clean):
        same_images = clean.at(answers.index)
        if not np.array_equal(same_images.labels, answers.labels):
            raise ValueError(f"probe '{probe}' has other labels than the clean images of the same index: its labels are misaligned")
        inputs |= {"probe_correct": correct(answers), "clean_correct": correct(same_images)}
    return inputs


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
