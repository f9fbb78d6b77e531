"""What a study will do and cost, before it does it: trainings, image visits, forward passes of observation, seconds."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from crossdistill.core import registry
from crossdistill.core.config import MethodConfig, StudyConfig
from crossdistill.core.errors import CrossdistillError
from crossdistill.core.progress import Progress, Stopwatch
from crossdistill.core.recipe import TrainingConfig
from crossdistill.core.records import CEILING
from crossdistill.core.types import Splits, Views
from crossdistill.models._build import build_network
from crossdistill.ops.modes import evaluating
from crossdistill.ops.network import Network
from crossdistill.probes._build import Recipe, apply_probe, wanted_supplies
from crossdistill.study.answer_plans import AnswerPlan, affordable, answer_plans, answers_json
from crossdistill.study.encoders import MODEL, RECIPE, SETTINGS, encoder_file, encoder_visits
from crossdistill.study.execute import fingerprint, study_splits, what_can_work
from crossdistill.study.gates import RUN_SEED, students, trained_on, without_masks
from crossdistill.study.networks import chosen_network, placed
from crossdistill.study.plan import Plan, Training, WarmUpTask, make_plan
from crossdistill.study.probes import probed_rows, study_recipe
from crossdistill.study.workshop import finished
from crossdistill.train.objective import plugin_views
from crossdistill.train.precision import autocast, resolved_precision
from crossdistill.train.stored_arrays import in_bytes

TRIAL_IMAGES, TRIALS = 64, 3


def planned_cost(config: StudyConfig, *, store: Path, progress: Progress) -> dict[str, Any]:
    """Every training with what it costs, those that the signal gate may ask for apart, and the observation of them all.

    Seconds are an estimate: each network is timed on this machine's CPU, untrained, for forward and backward passes of 64 images
    in its recipe's precision; the best of three counts.
    """
    splits = study_splits(config, progress)
    plan = make_plan(config, fingerprint(splits), torch.device("cpu"))
    names = dict.fromkeys(training.network for training in plan.trainings)
    # Without published weights: a plan downloads nothing.
    built = {name: placed(chosen_network(config.networks[name], splits.train, pretrained=False), torch.device("cpu")) for name in names}
    plan = what_can_work(plan, splits, built, progress)
    seconds = {name: _trial(network, config.recipe(name), splits) for name, network in built.items()}
    rows = _encoder_cost(config, splits, store)
    rows += [_warm_up_cost(task, splits, seconds, store) for task in plan.warm_ups]
    answers = affordable(answer_plans(plan, built, splits), store)
    rows += [_training_cost(training, splits, seconds, plan, store, answers) for training in plan.trainings]
    forwards = observed_images(config, splits)
    observation = {
        "forwards_per_network": forwards,
        "forwards": forwards * len(plan.trainings),
        "seconds": round(sum(forwards * seconds[training.network][0] for training in plan.trainings), 1),
    }
    ceilings = _ceiling_costs(config, splits, seconds)
    primary = [contrast.model_dump() for contrast in config.contrasts]
    stored = [_answer_seconds(row, seconds[row["teacher"]][0]) for row in answers_json(plan, answers)]
    return {
        "name": config.name, "trainings": rows, "answers": stored, "ceilings": ceilings, "observation": observation, "primary": primary,
    }  # fmt: skip


def _answer_seconds(row: dict[str, Any], forward: float) -> dict[str, Any]:
    """What an arm's teacher takes to answer, with each batch answered afresh and as planned, `forward` seconds an image."""
    live, planned = (round(row[name] * forward, 1) for name in ("live_forwards", "cached_forwards"))
    return {**row, "live_seconds": live, "seconds": planned, "seconds_saved": round(live - planned, 1)}


def observed_images(config: StudyConfig, splits: Splits) -> int:
    """Forward passes to observe one network: clean, the source's extra sets, every level and draw of every probe."""
    recipes = [study_recipe(probe, config, splits.test.size) for probe in config.chosen_probes]
    probed = sum(len(recipe.levels) * recipe.draws for recipe in recipes) * len(probed_rows(splits.test, config))
    return len(splits.test) + sum(len(images) for images in splits.extra.values()) + probed


def _trial(network: Network, recipe: TrainingConfig, splits: Splits) -> tuple[float, float]:
    """(seconds of a forward pass, seconds of a training visit) an image."""
    cpu = torch.device("cpu")
    torch.set_num_threads(recipe.threads)
    images = torch.from_numpy(splits.train.images[:TRIAL_IMAGES].copy())
    with evaluating(network), torch.no_grad():
        forward = _timed(lambda: network(images))
    precision = resolved_precision(recipe.precision, cpu)
    visit = _timed(lambda: _forward_and_backward(network, images, precision))
    return forward / len(images), visit / len(images)


def _forward_and_backward(network: Network, images: torch.Tensor, precision: str) -> None:
    with autocast(precision, images.device):
        logits = network(images).logits
    logits.logsumexp(dim=1).mean().backward()


def _timed(call: Any) -> float:
    call()  # the first call also allocates
    seconds = []
    for _ in range(TRIALS):
        watch = Stopwatch()
        call()
        seconds.append(watch.seconds)
    return min(seconds)


def _training_cost(
    training: Training, splits: Splits, seconds: dict[str, tuple[float, float]], plan: Plan, store: Path, answers: Mapping[str, AnswerPlan]
) -> dict[str, Any]:  # fmt: skip
    student_views = _views(training.method, splits) if training.method else 1
    trained = plan.config.networks[training.network].checkpoint is None
    epochs, n_images = training.recipe.epochs if trained else 0, len(splits.train)
    visits = epochs * n_images * student_views
    taught = answers[training.label].cached_forwards * seconds[training.taught_by][0] if training.taught_by else 0.0
    folder = store / "teachers" / training.run
    done = training.arm == "teacher" and finished(folder, keeps_epochs=training.key in plan.keeps_epochs)
    return {
        "label": training.label,
        "run": training.run,
        "done": done,
        "image_visits": visits,
        "seconds": 0.0 if done else round(visits * seconds[training.network][1] + taught, 1),
    }


def _encoder_cost(config: StudyConfig, splits: Splits, store: Path) -> list[dict[str, Any]]:
    """The training of the encoder that a probe is given where the study file names none."""
    waiting = (probe for probe in config.chosen_probes if "encoder" in registry.get("probe", probe.name).inputs)
    if not any(probe.encoder is None for probe in waiting):
        return []
    file, visits = encoder_file(splits, store), encoder_visits(splits)
    untrained = placed(build_network(MODEL, splits.train.n_classes, splits.train.size, settings=SETTINGS), torch.device("cpu"))
    spent = 0.0 if file.exists() else round(visits * _trial(untrained, RECIPE, splits)[1], 1)
    return [{"label": "encoder for probes", "run": file.parent.name, "done": file.exists(), "image_visits": visits, "seconds": spent}]


def _ceiling_costs(config: StudyConfig, splits: Splits, seconds: dict[str, tuple[float, float]]) -> list[dict[str, Any]]:
    """What the signal gate may cost: the trainings of `possible_ceilings`, all of them."""
    if config.signal_gate == "off":
        return []
    left_out = without_masks(config, splits)
    recipes = [study_recipe(probe, config, splits.test.size) for probe in config.chosen_probes if probe.name not in left_out]
    levels = {found.plugin.name: trained_on(found.level_names, _sizes(found, splits)) for found in recipes}
    rows = []
    for student in students(config):
        recipe = config.recipe(student)
        visits = recipe.epochs * len(splits.train)
        cost = {"image_visits": visits, "seconds": round(visits * seconds[student][1], 1)}
        for probe, trained in levels.items():
            for level in trained:
                training = Training(CEILING, student, RUN_SEED, recipe, key="", probe=probe, level=level)
                rows.append({"label": training.label, "probe": probe, "student": student, "level": level, **cost})
    return rows


def _sizes(recipe: Recipe, splits: Splits) -> list[tuple[int, int]]:
    """(height, width) of a probe's images at each level, from one image; the clean size where it must be given more than images."""
    if wanted_supplies(recipe.plugin):
        return [splits.test.size] * len(recipe.levels)
    try:
        shown = [apply_probe(recipe.plugin, level, splits.test, np.arange(1), 0, {}).images.shape for level in recipe.levels]
    except CrossdistillError:  # what these images do not allow is told when the study is run
        return [splits.test.size] * len(recipe.levels)
    return [(height, width) for _, _, height, width in shown]


def _views(method: MethodConfig, splits: Splits) -> int:
    """How many rows the student sees of each image."""
    plugin = registry.get("method", method.name)
    return _rows(plugin_views(plugin, plugin.parse(method.settings)), splits)


def _rows(expand: Views | None, splits: Splits) -> int:
    if expand is None:
        return 1
    return len(expand(torch.from_numpy(splits.train.images[:1].copy()), torch.zeros(1, dtype=torch.int64))[0])


def _warm_up_cost(task: WarmUpTask, splits: Splits, seconds: dict[str, tuple[float, float]], store: Path) -> dict[str, Any]:
    done = (store / "warm_ups" / task.run / "record.json").exists()
    warm_up = registry.get("method", task.method).facts["warm_up"]
    visits = task.recipe.epochs * len(splits.train) * _rows(warm_up.views, splits)
    spent = 0.0 if done else round(visits * seconds[task.teacher.network][0], 1)
    return {"label": task.label, "run": task.run, "done": done, "image_visits": visits, "seconds": spent}


def show_cost(cost: dict[str, Any]) -> None:
    """Print a plan for people."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("training", "image visits", "about", box=None, pad_edge=False)
    for row in cost["trainings"]:
        table.add_row(Text(row["label"]), f"{row['image_visits']:,}", "done" if row["done"] else _duration(row["seconds"]))
    console = Console()
    console.print(table)
    for row in _said_alike(cost["answers"]):
        console.print(Text(_answers_in_words(row)))
    seen = cost["observation"]
    console.print(
        f"observation: {seen['forwards']:,} forward passes ({seen['forwards_per_network']:,} a network), about {_duration(seen['seconds'])}"
    )
    if ceilings := cost["ceilings"]:
        console.print(
            f"signal gate: up to {len(ceilings)} more trainings, about {_duration(sum(row['seconds'] for row in ceilings))} if all were "
            "needed; each is run only where no network of the study shows that its probe can be read. Showing the training images "
            "through the probes comes on top and is not counted."
        )
        for probe in dict.fromkeys(row["probe"] for row in ceilings):
            console.print(Text(f"  {_ceilings_in_words([row for row in ceilings if row['probe'] == probe])}"))
    total = sum(row["seconds"] for row in cost["trainings"]) + seen["seconds"]
    console.print(f"in all about {_duration(total)} on this machine's CPU, estimated from passes of {TRIAL_IMAGES} images a network")


def _said_alike(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for all arms of a pair of which the same is to be said, their costs summed.

    >>> row = {"cached": True, "why": "it pays", "n_bytes": 1, "live_forwards": 2, "cached_forwards": 1, "live_seconds": 2.0}
    >>> rows = [{**row, "arm": f"{method}: vit -> cnn", "seconds_saved": 1.0} for method in ("kd", "crd")]
    >>> [(row["arm"], row["live_forwards"]) for row in _said_alike(rows)]
    [('kd, crd: vit -> cnn', 4)]
    """
    alike: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        pair = row["arm"].partition(": ")[2]
        alike.setdefault((pair, row["cached"], row["why"], row["n_bytes"]), []).append(row)
    costs = ("live_forwards", "cached_forwards", "live_seconds", "seconds_saved")
    return [
        {**same[0], "arm": f"{', '.join(row['arm'].partition(': ')[0] for row in same)}: {pair}"}
        | {name: sum(row[name] for row in same) for name in costs}
        for (pair, *_), same in alike.items()
    ]


def _answers_in_words(row: dict[str, Any]) -> str:
    """What is planned for the teacher's answers to one arm, and what it costs or saves.

    >>> row = {"arm": "kd: vit -> cnn", "n_bytes": 4e6, "live_forwards": 5000, "cached_forwards": 800, "live_seconds": 50.0}
    >>> _answers_in_words({**row, "cached": True, "why": "16 views of each image", "seconds_saved": 42.0})
    "teacher's answers, kd: vit -> cnn: stored (16 views of each image; 4.0 MB a teacher): 800 forward passes for 5,000, saves about 42 s"
    """
    who = f"teacher's answers, {row['arm']}"
    if not row["cached"]:
        return f"{who}: afresh ({row['why']}): {row['live_forwards']:,} forward passes, about {_duration(row['live_seconds'])}"
    return (
        f"{who}: stored ({row['why']}; {in_bytes(row['n_bytes'])} a teacher): {row['cached_forwards']:,} forward passes for "
        f"{row['live_forwards']:,}, saves about {_duration(row['seconds_saved'])}"
    )


def _ceilings_in_words(rows: list[dict[str, Any]]) -> str:
    """The ceilings that one probe may need.

    >>> _ceilings_in_words([{"probe": "hue", "student": "cnn", "level": level} for level in (None, "a", "b")])
    'hue: cnn on all levels at once; then on each of 2 levels alone'
    """
    names = ", ".join(dict.fromkeys(row["student"] for row in rows))
    alone = len(dict.fromkeys(row["level"] for row in rows if row["level"] is not None))
    if not alone:
        return f"{rows[0]['probe']}: {names}"
    together = any(row["level"] is None for row in rows)
    return f"{rows[0]['probe']}: {names} {'on all levels at once; then ' if together else ''}on each of {alone} levels alone"


def _duration(seconds: float) -> str:
    """Seconds in the unit that reads best.

    >>> _duration(42.0), _duration(600.0), _duration(9000.0)
    ('42 s', '10 min', '2.5 h')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
