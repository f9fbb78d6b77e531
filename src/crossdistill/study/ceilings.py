"""The trainings that the signal gate asks for, once it is known that no network of the study passes it."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from crossdistill.compare.gates import SignalGate, signal_gates
from crossdistill.core.errors import CrossdistillError, RunError
from crossdistill.core.records import RunRecord
from crossdistill.study.damage import past_damage
from crossdistill.study.folder import write_failures
from crossdistill.study.gates import is_needed
from crossdistill.study.jobs import CarryOut
from crossdistill.study.plan import Plan, Training
from crossdistill.study.selection import Only, matches
from crossdistill.study.tables import observed_run
from crossdistill.study.trainings import note_failure
from crossdistill.study.workshop import Workshop


def run_ceilings(
    shop: Workshop, plan: Plan, failures: dict[str, str], only: Only, carry_out: CarryOut, before_the_first: Callable[[], object]
) -> None:  # fmt: skip
    """Train and observe the ceilings of levels that no network passes, student after student until one does; notes what failed.

    `before_the_first` is called where there is one to train. Whether a network passes is known once all have been observed: while some
    are left for a later call, nothing is done.
    """
    if any(not shop.finished(training) and training.label not in failures for training in plan.trainings):
        return
    carry_out(CeilingSchedule(shop, plan, failures, only, before_the_first))
    write_failures(shop.out, failures)


class CeilingSchedule:
    """The ceilings that are needed, those of one probe one after the other: what one shows decides on the next. Probes are independent."""

    def __init__(
        self, shop: Workshop, plan: Plan, failures: dict[str, str], only: Only, before_the_first: Callable[[], object]
    ) -> None:  # fmt: skip
        self.shop, self.plan, self.failures, self.only = shop, plan, failures, only
        self.before_the_first: Callable[[], object] | None = before_the_first
        probes = dict.fromkeys(ceiling.probe for ceiling in plan.ceilings if ceiling.probe)
        self.needed = {probe: self._needed(probe) for probe in probes}
        self.running: set[str | None] = set()  # probes
        self.settled = 0

    def next(self) -> Training | None:
        for probe, needed in self.needed.items():
            if probe not in self.running and (ceiling := next(needed, None)) is not None:
                self.running.add(probe)
                if self.before_the_first:
                    self.before_the_first()
                    self.before_the_first = None
                return ceiling
        return None

    def _needed(self, probe: str) -> Iterator[Training]:
        """Those of one probe; whether one is needed is asked once those before it are settled."""
        gates: dict[tuple[str, str], SignalGate] | None = None  # until a ceiling is trained
        for ceiling in self.plan.ceilings:
            if ceiling.probe != probe or not matches(ceiling.label, self.only):
                continue
            self.failures.pop(ceiling.label, None)
            if gates is None:
                gates = past_damage(lambda: _signal_gates(self.shop, self.plan, probe), self.shop.out, self.plan, self.failures)
            if is_needed(ceiling, gates):
                gates = None
                yield ceiling

    def refusal(self, training: Training) -> CrossdistillError | None:
        return None

    def announced(self, training: Training) -> str:
        return f"training {training.label}: no network so far passes the signal gate of this probe"

    def settle(self, training: Training, error: CrossdistillError | None) -> str:
        self.running.remove(training.probe)
        self.settled += 1
        if error:
            note_failure(self.shop, self.plan, self.failures, training, error)
        return f"ceiling {self.settled}"


def _signal_gates(shop: Workshop, plan: Plan, probe: str) -> dict[tuple[str, str], SignalGate]:
    """The gates of one probe, by what is finished."""
    files = {probe: shop.observation_files[probe]}
    runs = [observed_run(shop.out, name, files) for name in finished_runs(shop.out, plan)]
    return signal_gates([run for run in runs if run])


def _record(folder: Path) -> RunRecord | None:
    """None for a damaged one: its training fails with the reason, and tables and page do without it."""
    with contextlib.suppress(RunError):
        return RunRecord.load(folder)


def finished_runs(out: Path, plan: Plan) -> list[str]:
    """The names of the finished runs: the plan's own, and earlier weights of teachers that taught some of them."""
    planned = [*plan.trainings, *plan.ceilings]
    found = [_record(folder) for t in planned if ((folder := out / "runs" / t.run) / "record.json").exists()]
    records = [record for record in found if record is not None]
    teachers = (record.teacher_run for record in records if record.teacher_run)
    return list(dict.fromkeys([*(record.run for record in records), *teachers]))
