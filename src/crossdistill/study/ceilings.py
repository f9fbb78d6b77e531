"""The trainings that the signal gate asks for, once it is known that no network of the study passes it."""

from pathlib import Path

from crossdistill.compare.gates import SignalGate, signal_gates
from crossdistill.core.records import RunRecord
from crossdistill.study.folder import write_failures
from crossdistill.study.gates import is_needed
from crossdistill.study.plan import Plan
from crossdistill.study.tables import observed_run
from crossdistill.study.trainings import attempt
from crossdistill.study.workshop import Workshop


def run_ceilings(shop: Workshop, plan: Plan, failures: dict[str, str], only: str | None) -> None:
    """Train and observe the ceilings of levels that no network passes, student after student until one does; notes what failed.

    Whether a network passes is known once all have been observed: while some are left for a later call, nothing is done.
    """
    if any(not shop.finished(training) and training.label not in failures for training in plan.trainings):
        return
    gates: dict[str, dict[tuple[str, str], SignalGate]] = {}  # by probe, until a ceiling of it is trained
    for ceiling in plan.ceilings:
        assert ceiling.probe is not None
        if only is not None and only not in ceiling.label:
            continue
        failures.pop(ceiling.label, None)
        if ceiling.probe not in gates:
            gates[ceiling.probe] = _signal_gates(shop, plan, ceiling.probe)
        if is_needed(ceiling, gates[ceiling.probe]):
            del gates[ceiling.probe]
            attempt(shop, ceiling, failures, f"training {ceiling.label}: no network so far passes the signal gate of this probe")
    write_failures(shop.out, failures)


def _signal_gates(shop: Workshop, plan: Plan, probe: str) -> dict[tuple[str, str], SignalGate]:
    """The gates of one probe, by what is finished."""
    files = {probe: shop.observation_files[probe]}
    runs = [observed_run(shop.out, name, files) for name in finished_runs(shop.out, plan)]
    return signal_gates([run for run in runs if run])


def finished_runs(out: Path, plan: Plan) -> list[str]:
    """The names of the finished runs: the plan's own, and earlier weights of teachers that taught some of them."""
    planned = [*plan.trainings, *plan.ceilings]
    records = [RunRecord.load(folder) for t in planned if ((folder := out / "runs" / t.run) / "record.json").exists()]
    teachers = (record.teacher_run for record in records if record.teacher_run)
    return list(dict.fromkeys([*(record.run for record in records), *teachers]))
