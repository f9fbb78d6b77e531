"""Run a study: every task of its plan that is not done, then the tables and the page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from crossdistill.core.config import ContrastConfig, StudyConfig
from crossdistill.core.errors import ImageError
from crossdistill.core.progress import Progress, Stopwatch
from crossdistill.core.types import Splits
from crossdistill.report.page import build_page
from crossdistill.study.answer_plans import answer_plans, answers_json
from crossdistill.study.ceilings import finished_runs, run_ceilings
from crossdistill.study.choosing import with_chosen_weights
from crossdistill.study.damage import past_damage
from crossdistill.study.folder import claimed, declared_contrasts, stamp, write_driver
from crossdistill.study.gates import possible_ceilings, without_masks
from crossdistill.study.graph import study_graph
from crossdistill.study.grid import with_weights
from crossdistill.study.interim import Interim
from crossdistill.study.jobs import Executor, LocalProcesses
from crossdistill.study.keys import KeyMaker
from crossdistill.study.live import live_view
from crossdistill.study.needed import made_again, want_weights
from crossdistill.study.phases import Phases, seconds_of_writing
from crossdistill.study.plan import Plan, make_plan
from crossdistill.study.plan_file import plan_json
from crossdistill.study.possible import checked_networks, what_can_work
from crossdistill.study.probes import build_probes, keep_for_the_page, probed_rows
from crossdistill.study.ray_executor import RayCluster
from crossdistill.study.selection import Only, refuse_unmatched
from crossdistill.study.splits import fingerprint, study_splits, training_fingerprint
from crossdistill.study.tables import write_tables
from crossdistill.study.timings import note, writing_facts
from crossdistill.study.trainings import run_trainings
from crossdistill.study.workshop import Workshop
from crossdistill.train.tracking import load_tracker


@dataclass(frozen=True)
class Outcome:
    """What a run of a study left: the page, and what failed (label -> reason)."""

    page: Path
    failures: Mapping[str, str]


def run_study(
    config: StudyConfig, out: Path, *, store: Path, device: torch.device, progress: Progress, only: Only = (),
    jobs: int | None = None, ray: str | None = None,
) -> Outcome:  # fmt: skip
    """Run what is not done of a study into `out`; the same call goes on after any interruption.

    One failing training does not stop the others: it stands in `failures.json` and on the page. `only` limits the trainings to
    labels that match one of its patterns (what they read is run as well). `jobs` trainings run at once, each in a process of its own
    (None: one, in this process). With `ray`, the address of a Ray cluster, each is a task there, at most `jobs` at once (None: all
    that there is room for). Their bytes depend on none of this. Where a method's weight is a grid, one is chosen first.
    """
    if config.tracker:
        load_tracker(config.tracker)
    executor: Executor = RayCluster(ray, jobs) if ray else LocalProcesses(jobs or 1)
    run = partial(_run, store=store, device=device, progress=progress, executor=executor)

    def choose(choosing: StudyConfig, folder: Path, keeps_epochs: frozenset[str]) -> Mapping[str, str]:
        first = with_weights(config, {})  # so that nothing of the study is refused after hours of choosing
        splits = study_splits(first, progress)
        planned = make_plan(first, training_fingerprint(splits), device)
        _prepared(planned, splits, out, store=store, device=device, progress=progress, only=only, phases=Phases())
        with claimed(folder, choosing):
            return run(choosing, folder, only=(), keeps_epochs=keeps_epochs).failures

    with claimed(out, config):
        return run(with_chosen_weights(config, out, choose, device=device, progress=progress), out, only=only)


def _run(
    config: StudyConfig, out: Path, *, store: Path, device: torch.device, progress: Progress, executor: Executor, only: Only,
    keeps_epochs: frozenset[str] = frozenset(),
) -> Outcome:  # fmt: skip
    """Run what is not done of a study without grids, in a folder that is held; teachers of these keys keep the weights of their epochs."""
    phases = Phases()
    with executor.ready():
        with phases.phase("images"):
            splits = study_splits(config, progress)
            images = fingerprint(splits)
        plan = make_plan(config, training_fingerprint(splits), device)
        room, about = executor.room(plan, device), {"store": store, "device": device, "progress": progress}
        shop, plan, contrasts = _prepared(plan, splits, out, only=only, phases=phases, **about)
        shop.keeps_epochs |= keeps_epochs
        want_weights(shop, plan, only)
        if again := made_again(shop, plan, only):
            progress.line(again)
        answers, graph = answers_json(plan, shop.answers), study_graph(plan, shop, images, contrasts)
        stamp(out, config, plan_json(plan, splits, contrasts, shop.observation_files, shop.probe_sets, answers, graph))
        write_driver(out, store, executor.name)
        keep_for_the_page(shop.probe_sets.values(), out)

        view = live_view(out, store, progress, several=room > 1)
        with phases.phase("trainings"), view, executor.carrying_out(shop, plan, images) as carry_out:
            write = partial(_write, shop, plan, contrasts, phases, {"executor": executor.name, "jobs": room})
            failures = run_trainings(shop, plan, only, carry_out, after_each=Interim(write, seconds_of_writing(out)))
            if plan.ceilings:  # they may take long: what is known without them should stand, whatever happens to them
                run_ceilings(shop, plan, failures, only, carry_out, before_the_first=partial(write, failures))
        return Outcome(write(failures), failures)


def _prepared(
    plan: Plan, splits: Splits, out: Path, *, store: Path, device: torch.device, progress: Progress, only: Only, phases: Phases
) -> tuple[Workshop, Plan, tuple[ContrastConfig, ...]]:  # fmt: skip
    """All that is done of a planned study before its first training: whatever it may be refused for is asked, and its probes are made."""
    config = plan.config
    contrasts = declared_contrasts(out, config)
    shop = Workshop(config, splits, out, store, device, progress, probed_rows(splits.test, config))
    built = checked_networks(shop, plan)
    plan = what_can_work(plan, splits, built, progress)
    shop.keeps_epochs = plan.keeps_epochs
    shop.answers = answer_plans(plan, built, splits)
    with phases.phase("probes"):
        shop.probe_sets = build_probes(config, splits.test, store, progress, splits=splits, device=device)
    refuse_unseen_probes(shop)
    plan = with_ceilings(plan, shop, KeyMaker(config, training_fingerprint(splits), device))
    refuse_unmatched(plan, only)
    return shop, plan, contrasts


def _write(
    shop: Workshop, plan: Plan, contrasts: Sequence[ContrastConfig], phases: Phases, by: Mapping[str, Any], failures: dict[str, str]
) -> Path:  # fmt: skip
    """Write tables and page of what is finished, and how long that took; `by`: who carried the trainings out, for the page."""
    watch, runs = Stopwatch(), finished_runs(shop.out, plan)
    with phases.phase("tables"):
        past_damage(lambda: write_tables(shop, plan, contrasts, runs), shop.out, plan, failures)
    n_answers = max(1, len(runs) * sum(shop.images_shown.values()))
    note(shop.store, writing_facts("tables"), seconds_per_image=watch.seconds / n_answers)
    phases.write(shop.out, **by)  # which the page shows; its own seconds are known once it stands
    watch = Stopwatch()
    with phases.phase("page"):
        page = past_damage(lambda: build_page(shop.out), shop.out, plan, failures)
    phases.write(shop.out, **by)
    note(shop.store, writing_facts("page"), seconds=watch.seconds)
    return page


def refuse_unseen_probes(shop: Workshop) -> None:
    """Raises ImageError for a probe of which no network would see an image: it kept none of those that are to be probed."""
    for name, probe_set in shop.probe_sets.items():
        kept = probe_set.kept_index
        if not np.isin(kept, shop.probed_rows).any():
            raise ImageError(
                f"probe '{name}' can treat {len(kept)} of the {len(shop.splits.test)} test images, and none of these is among the "
                f"{len(shop.probed_rows)} that are to be probed (`observe: images:`): ask for more of them, or leave the probe out"
            )


def with_ceilings(plan: Plan, shop: Workshop, keys: KeyMaker) -> Plan:
    """The plan with the trainings that the signal gate may ask for, and why some probes have none."""
    reasons = without_masks(shop.config, shop.splits)
    for probe, reason in reasons.items():
        shop.progress.line(f"signal gate of {probe} not run where no network passes it: {reason}")
    return replace(plan, ceilings=possible_ceilings(shop.config, keys, shop.probe_sets, reasons), no_ceilings=reasons)
