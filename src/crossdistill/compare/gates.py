"""The signal gate of every probe at every level: whether its images carry enough of the label to be read as a bias at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from crossdistill.compare.observed import AVERAGE, CLEAN, Answers, ObservedRun, chance_level, clean_answers, curve, levels, paired
from crossdistill.core.records import CEILING, GateStatus
from crossdistill.metrics._gates import SIGNAL, signal_gate
from crossdistill.metrics.accuracy import accuracy

TOO_LITTLE_SIGNAL = "too little signal"
"""How the reason of a failed gate begins."""


@dataclass(frozen=True)
class SignalGate:
    """What became of the gate of one probe at one level. `ceiling` is what is known to be within reach, from 0 to 1."""

    status: GateStatus
    ceiling: float
    floor: float
    reached_by: str  # who reached the ceiling, in words

    @property
    def could_pass(self) -> bool:
        """Whether a network trained on the probe may still show that there is enough to read."""
        return self.status != "passed" and 1 - self.floor >= SIGNAL

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


@dataclass(frozen=True)
class _Reached:
    """What one network shows to be within reach at a level."""

    share: float
    by: str
    trained: bool


def signal_gates(runs: Sequence[ObservedRun]) -> dict[tuple[str, str], SignalGate]:
    """{(probe, level): gate} of every probe that the runs were shown, labels given; see `metrics._gates.signal_gate`.

    All runs count, whatever their arm; those of the arm "ceiling" were trained on the probe at the levels that they were shown.
    The gate is one for the study: what any network reads is in the images. Level "auc" is held to the mean of its levels'
    ceilings, and is decided where these are, or where their lower bounds are enough.
    """
    found: dict[tuple[str, str], list[_Reached]] = {}
    floors: dict[tuple[str, str], float] = {}
    for run in runs:
        clean = clean_answers(run)
        for probe, of_probe in levels(run).items():
            for level, answers in curve(of_probe).items():
                if probe != CLEAN[0] and (clean is None or paired(probe, answers, clean)) and answers.labelled:
                    floors.setdefault((probe, level), chance_level(answers.labels))
                    if level != AVERAGE:
                        found.setdefault((probe, level), []).append(_reached(run, answers))
    single = {place: _gate(reached, floors[place]) for place, reached in found.items()}
    averages = {
        (probe, level): _average_gate([gate for (other, _), gate in single.items() if other == probe], floor)
        for (probe, level), floor in floors.items()
        if level == AVERAGE
    }
    return {place: (single | averages)[place] for place in floors}


def _reached(run: ObservedRun, answers: Answers) -> _Reached:
    estimate = accuracy(answers.decisions, answers.labels)
    assert estimate.value is not None
    assert estimate.low is not None
    if run.record.arm == CEILING:
        return _Reached(estimate.value, f"{run.record.student}, trained on such images", trained=True)
    # The trained network is the ceiling; another one is it only where that is certain.
    return _Reached(estimate.low, f"the lower bound of {run.record.label}", trained=False)


def _gate(reached: Sequence[_Reached], floor: float) -> SignalGate:
    best = max(reached, key=lambda one: one.share)
    trained = max((one for one in reached if one.trained), key=lambda one: one.share, default=None)
    beside = f"; {trained.by}: {100 * trained.share:.1f} %" if trained and trained is not best else ""
    return SignalGate(signal_gate(best.share, floor, trained=trained is not None), best.share, floor, best.by + beside)


def _average_gate(gates: Sequence[SignalGate], floor: float) -> SignalGate:
    ceiling = fmean(gate.ceiling for gate in gates)
    status = signal_gate(ceiling, floor, trained=all(gate.status != "not run" for gate in gates))
    return SignalGate(status, ceiling, floor, "the mean over the levels")
