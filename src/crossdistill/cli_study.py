"""The commands of `crossdistill study`, and how every command runs a study."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from crossdistill.cli_options import Device, Devices, Json, Out, Quiet, Store, StudyFile, StudyFolder, chosen_store, new_progress

study_app = typer.Typer(help="Plan, run and watch a study.", no_args_is_help=True)


class ExecutorName(StrEnum):
    """Who carries the trainings of a study out."""

    local = "local"
    ray = "ray"


@study_app.command("run")
def study_run(
    file: StudyFile, out: Out, device: Device = "auto", store: Store = None, quiet: Quiet = False,
    only: Annotated[
        list[str] | None, typer.Option(help="Only trainings whose label contains or matches this (kd*), and what they read; repeatable.")
    ] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Trainings at once (1; with ray all that fit); no result depends on it.")] = None,
    executor: Annotated[ExecutorName, typer.Option(help="Who trains: this machine, or those of a Ray cluster.")] = ExecutorName.local,
    address: Annotated[str | None, typer.Option(help="The Ray cluster: auto (default), ray://HOST:PORT, or local.")] = None,
    devices: Devices = None,
) -> None:  # fmt: skip
    """Run a study, or go on with it."""
    from crossdistill.core.errors import SettingError
    from crossdistill.core.study_file import read_study

    if address and executor != ExecutorName.ray:
        raise SettingError(f"--address {address} is a Ray cluster's: say --executor ray as well, or leave it out")
    ray = address or "auto" if executor == ExecutorName.ray else None
    run(read_study(file), out, device, store, quiet, only or (), jobs, devices, ray=ray)


@study_app.command("plan")
def study_plan(
    file: StudyFile,
    out: Annotated[Path | None, typer.Option("--out", help="The study's folder, run before or not: what is done there is told.")] = None,
    device: Device = "auto", store: Store = None, as_json: Json = False,
) -> None:  # fmt: skip
    """Every task, what is done already, and what it will cost; trains nothing but a few steps of each kind, to time them."""
    from crossdistill.core.study_file import read_study

    config = read_study(file)
    from crossdistill.study.cost import planned_cost
    from crossdistill.study.environment import chosen_device
    from crossdistill.study.plan_table import show_cost

    cost = planned_cost(config, store=chosen_store(store), progress=new_progress(as_json), device=chosen_device(device), out=out)
    print(json.dumps(cost, indent=1)) if as_json else show_cost(cost)


@study_app.command("status")
def study_status(
    folder: StudyFolder, store: Store = None, as_json: Json = False,
    once: Annotated[bool, typer.Option("--once", help="Print the table once; else, on a terminal, it follows the study.")] = False,
) -> None:  # fmt: skip
    """How far a study is, training by training: done, running, failed and why, and how long the rest will take."""
    from crossdistill.core.progress import tables
    from crossdistill.study.live import as_json as plain
    from crossdistill.study.live import read_rows, status_table, watch_status

    following = sys.stdout.isatty() and not once and not as_json
    rows = watch_status(folder, store) if following else read_rows(folder, store)
    if as_json:
        print(json.dumps(plain(rows), indent=1))
    else:
        tables().print(status_table(rows))


@study_app.command("publish")
def study_publish(
    folder: StudyFolder,
    target: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder, or an earlier publication of the same study.")],
) -> None:
    """Copy a study's results to a folder small enough to be committed, from which `study run` goes on; without weights and logits."""
    from crossdistill.study.publish import publish

    done = publish(folder, target)
    print(f"{done.folder}: {done.n_bytes / 1e6:.1f} MB, {done.n_networks} networks")


def run(
    config: Any, out: Path, device: str, store: Path | None, quiet: bool, only: Sequence[str] = (), jobs: int | None = None,
    devices: int | None = None, ray: str | None = None,
) -> None:  # fmt: skip
    from crossdistill.core.errors import SettingError
    from crossdistill.study.launch import device_count, is_launched, launch, with_devices

    config = with_devices(config, devices) if devices else config
    n_devices = device_count(config)
    if n_devices > 1 and ray:
        raise SettingError(f"--executor ray is for trainings on one device each, and this study has `devices: {n_devices}`: leave one out")
    if n_devices > 1 and jobs and jobs > 1:
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
        about = {"device": own, "progress": new_progress(quiet), "only": only, "jobs": jobs, "ray": ray}
        outcome = run_study(config, out, store=chosen_store(store), **about)
    for label, reason in outcome.failures.items():
        print(f"failed: {label}: {reason.removeprefix(f'{label}: ')}", file=sys.stderr)
    if not quiet:
        print(f"done in {watch.seconds:.0f} s; the page:", file=sys.stderr)
    print(outcome.page)
    if outcome.failures:
        raise typer.Exit(1)
