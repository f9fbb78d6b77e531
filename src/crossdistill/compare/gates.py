"""The validity gates: which networks can be read, which probes carry enough of the label to be read as a bias, and what is held to that."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from crossdistill.compare.figures import Figure
from crossdistill.compare.observed import (
    AVERAGE,
    CLEAN,
    Answers,
    ObservedRun,
    chance_level,
    clean_answers,
    correct,
    curve,
    draws_of,
    paired,
    probes,
)
from crossdistill.core.records import CEILING, GateStatus
from crossdistill.metrics._gates import SIGNAL, accuracy_gate, carries_signal, signal_gate
from crossdistill.metrics.accuracy import accuracy

TOO_LITTLE_SIGNAL = "too little signal"
"""How the reason of a failed gate begins."""

SIDES = frozenset({"student_decisions", "teacher_decisions", "independent_decisions"})
RIGHT_ON_BOTH = frozenset({"probe_correct", "clean_correct"})
ON_BOTH = frozenset({"clean_decisions", "probe_decisions", "clean_logits", "probe_logits"})
ERRORS = frozenset({"correct_a", "decisions_a"})

CUE = "_labels"
"""How the inputs end that name the class of one cue of an image."""


def read_as_a_bias(needed: Collection[str]) -> bool:
    """Whether a metric with these inputs is read as a bias, so that a probe without signal refuses it.

    What sets a probe beside the clean images, which cue is chosen, and whose side is taken. Accuracy, confidence, calibration and what
    two networks have in common are figures of these very images: they stay.
    """
    return bool((RIGHT_ON_BOTH | ON_BOTH | SIDES) & set(needed)) or any(name.endswith(CUE) for name in needed)


def needs_a_network_that_learnt(needed: Collection[str]) -> bool:
    """Whether a metric with these inputs means nothing of a network that fails its accuracy gate; errors are shared by those who learnt.

    Invariance is not among them: of a network that answers at random its kappa is 0, and of one that always answers the same it is not
    measurable by itself.
    """
    return bool((RIGHT_ON_BOTH | SIDES | ERRORS) & set(needed))


def accuracy_refusal(run: ObservedRun) -> str | None:
    """Why a network cannot be read: its accuracy gate. None also where its clean images were not observed or labelled."""
    clean = clean_answers(run)
    if clean is None or not clean.labelled:
        return None
    return accuracy_gate(correct(clean), chance_level(clean.labels))


@dataclass(frozen=True)
class SignalGate:
    """What became of the gate of one probe at one level. `ceiling` is what is known to be within reach, from 0 to 1."""

    status: GateStatus
    ceiling: float
    floor: float
    reached_by: str  # who reached the ceiling, in words
    trained: bool = False  # whether a network trained on the probe was shown the level
    failed_levels: tuple[str, ...] = ()  # of a mean over levels: those that failed, which count in it

    @property
    def could_pass(self) -> bool:
        """Whether a network trained on the probe may still show that there is enough to read."""
        return self.status != "passed" and carries_signal(1.0, self.floor)

    @property
    def reason(self) -> str | None:
        """Why nothing here is read as a bias; None where the gate did not fail."""
        if self.status != "failed":
            return None
        gap = 100 * (self.ceiling - self.floor)
        return (
            f"{TOO_LITTLE_SIGNAL}: the ceiling, {100 * self.ceiling:.1f} % ({self.reached_by}), is {abs(gap):.1f} points "
            f"{'above' if gap >= 0 else 'under'} the {100 * self.floor:.1f} % of a constant answer; "
            f"the signal gate asks for {100 * SIGNAL:.0f} above it"
        )

    @property
    def note(self) -> str | None:
        """What to know beside a mean over levels that passed although some levels did not; None where there is nothing."""
        if self.status == "failed" or not self.failed_levels:
            return None
        return f"the mean includes what failed the signal gate: {', '.join(self.failed_levels)}"


@dataclass(frozen=True)
class _Reached:
    """What one network shows to be within reach at a level."""

    share: float
    by: str
    trained: bool  # on the probe
    alone: bool  # on this very level and no other


def signal_gates(runs: Sequence[ObservedRun]) -> dict[tuple[str, str], SignalGate]:
    """{(probe, level): gate} of every probe that the runs were shown, labels given; see `metrics._gates.signal_gate`.

    All runs count, whatever their arm; those of the arm "ceiling" were trained on the probe at the levels that they were shown.
    The gate is one for the study: what any network reads is in the images. One training shared by several levels may pass any of
    them but fails none, since images of the hard levels spoil what it learns of the others: only a network trained on one level
    alone does. Level "auc" is held to the mean of its levels' ceilings. It passes where these, or lower bounds of them, are enough;
    it fails where each level's ceiling is known from a training, or has itself failed.
    """
    found: dict[tuple[str, str], list[_Reached]] = {}
    floors: dict[tuple[str, str], float] = {}
    for run in runs:
        clean = clean_answers(run)
        for probe in probes(run):
            of_probe = draws_of(run, probe)
            for level, answers in curve(of_probe).items():
                if probe != CLEAN[0] and (clean is None or paired(probe, answers, clean)) and answers.labelled:
                    floors.setdefault((probe, level), chance_level(answers.labels))
                    if level != AVERAGE:
                        found.setdefault((probe, level), []).append(_reached(run, answers, alone=len(of_probe) == 1))
    single = {place: _gate(reached, floors[place]) for place, reached in found.items()}
    averages = {
        (probe, level): _average_gate({name: gate for (other, name), gate in single.items() if other == probe}, floor)
        for (probe, level), floor in floors.items()
        if level == AVERAGE
    }
    return {place: (single | averages)[place] for place in floors}


def _reached(run: ObservedRun, answers: Answers, *, alone: bool) -> _Reached:
    estimate = accuracy(answers.decisions, answers.labels)
    assert estimate.value is not None
    assert estimate.low is not None
    if run.record.arm == CEILING:
        return _Reached(estimate.value, f"{run.record.student}, trained on such images", trained=True, alone=alone)
    # The trained network is the ceiling; another one is it only where that is certain.
    return _Reached(estimate.low, f"the lower bound of {run.record.label}", trained=False, alone=False)


def _gate(reached: Sequence[_Reached], floor: float) -> SignalGate:
    best = max(reached, key=lambda one: one.share)
    trained = max((one for one in reached if one.trained), key=lambda one: one.share, default=None)
    beside = f"; {trained.by}: {100 * trained.share:.1f} %" if trained and trained is not best else ""
    status = signal_gate(best.share, floor, trained=any(one.alone for one in reached))
    return SignalGate(status, best.share, floor, best.by + beside, trained=trained is not None)


def _average_gate(gates: Mapping[str, SignalGate], floor: float) -> SignalGate:
    ceiling = fmean(gate.ceiling for gate in gates.values())
    known = all(gate.status == "failed" or (gate.status == "passed" and gate.trained) for gate in gates.values())
    failed = tuple(level for level, gate in gates.items() if gate.status == "failed")
    return SignalGate(signal_gate(ceiling, floor, trained=known), ceiling, floor, "the mean over the levels", known, failed)


@dataclass(frozen=True)
class Gates:
    """The validity gates of a study, for which the answers of all networks are read: once, for all its tables."""

    accuracy: Mapping[str, str | None]  # by run: why the network cannot be read
    labels: Mapping[str, str]  # by run, for people
    signal: Mapping[tuple[str, str], SignalGate]

    @classmethod
    def of(cls, runs: Sequence[ObservedRun]) -> Gates:
        refused = {run.record.run: accuracy_refusal(run) for run in runs}
        return cls(refused, {run.record.run: run.record.label for run in runs}, signal_gates(runs))

    def first_unread(self, runs: Iterable[str]) -> str | None:
        """The first of these runs that cannot be read, named, with the reason; None where all can."""
        return next((f"{self.labels[run]}: {self.accuracy[run]}" for run in runs if self.accuracy.get(run)), None)

    def refusal(self, runs: Iterable[str], figure: Figure) -> str | None:
        """Why a comparison of these runs by this figure cannot be read; None where it can."""
        signal = self.signal.get((figure.probe, figure.level))
        return self.first_unread(runs) or (signal and signal.reason)
