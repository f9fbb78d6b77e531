"""The commands of `crossdistill study`, and how every command runs a study."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from crossdistill.cli_options import Device, Devices, Json, Out, Quiet, Store, chosen_store, new_progress
from crossdistill.cli_tables import cell, print_table

study_app = typer.Typer(help="Plan, run and watch a study.", no_args_is_help=True)


@study_app.command("run")
def study_run(
    file: Path, out: Out, device: Device = "auto", store: Store = None, quiet: Quiet = False,
    only: Annotated[str | None, typer.Option(help="Only trainings whose label contains this text (and what they read).")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Trainings at once; their results do not depend on it.")] = 1,
    devices: Devices = None,
) -> None:  # fmt: skip
    """Run a study, or go on with it."""
    from crossdistill.core.study_file import read_study

    run(read_study(file), out, device, store, quiet, only, jobs, devices)


@study_app.command("plan")
def study_plan(file: Path, store: Store = None, as_json: Json = False) -> None:
    """Every task, what is done already, and what it will cost; trains nothing."""
    from crossdistill.core.study_file import read_study
    from crossdistill.study.cost import planned_cost, show_cost

    cost = planned_cost(read_study(file), store=chosen_store(store), progress=new_progress(as_json))
    print(json.dumps(cost, indent=1)) if as_json else show_cost(cost)


@study_app.command("status")
def study_status(folder: Path, store: Store = None, as_json: Json = False) -> None:
    """How far a study is: done, running, started, failed (with reason), waiting."""
    from crossdistill.study.status import study_status as status

    rows = status(folder, chosen_store(store))
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    columns = ("label", "state", "epochs", "validation_accuracy", "reason")
    print_table(columns, [[cell(row[column]) for column in columns] for row in rows])


def run(
    config: Any, out: Path, device: str, store: Path | None, quiet: bool, only: str | None = None, jobs: int = 1, devices: int | None = None
) -> None:  # fmt: skip
    from crossdistill.core.errors import SettingError
    from crossdistill.study.launch import device_count, is_launched, launch, with_devices

    config = with_devices(config, devices) if devices else config
    n_devices = device_count(config)
    if jobs > 1 and n_devices > 1:
        raise SettingError(f"--jobs {jobs} is for trainings on one device each, and this study has `devices: {n_devices}`: leave one out")
    if n_devices > 1 and not is_launched():
        sys.exit(launch(sys.argv[1:], n_devices))

    from crossdistill.core.progress import Stopwatch
    from crossdistill.study.devices import crew, follow
    from crossdistill.study.environment import chosen_device
    from crossdistill.study.execute import run_study

    watch = Stopwatch()
    with crew(n_devices, chosen_device(device)) as (place, own):
        if place.rank:
            return follow(config, out, store=chosen_store(store), device=own)
        about = {"device": own, "progress": new_progress(quiet), "only": only, "jobs": jobs}
        outcome = run_study(config, out, store=chosen_store(store), **about)
    for label, reason in outcome.failures.items():
        print(f"failed: {label}: {reason}", file=sys.stderr)
    if not quiet:
        print(f"done in {watch.seconds:.0f} s; the page:", file=sys.stderr)
    print(outcome.page)
    if outcome.failures:
        raise typer.Exit(2)
