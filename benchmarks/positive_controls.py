"""A transfer that must be found is found: a teacher that reads shape moves the shape bias of students that would read texture.

    python benchmarks/positive_controls.py --out DIR

Everything is drawn by `trifeature`. Students learn from labelled images on which shape and texture both name the class, and prefer
texture there. For each seed two teachers are trained whose images leave them one cue: the class is the shape, or the texture, and the
other two features are drawn at random. Either teacher then teaches a student by kd, on the labelled images and on as many cue-conflict
images without labels; the independent is trained on the same images without a teacher, so that the conflicts teach it nothing.

Shape bias is measured on other cue-conflict images. `shape_reader` is the control that must come out as inherited. `texture_reader` teaches
the same images as well and prefers the cue that the independents prefer already: whatever distillation does to the shape bias by itself
would show there. Intervals of single networks are Wilson's over images, of arms Student's t over seeds, of differences Welch's on run
means as `inheritance_table` gives them, with its verdict.

DIR keeps what each network answered, so that the same command goes on after an interruption. About ten minutes on one core.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import stats

from crossdistill.compare import ObservedRun, Pair, inheritance_table, results_table
from crossdistill.core.observations import save_observations, stored_observations
from crossdistill.core.progress import Progress
from crossdistill.core.records import InheritanceRow, ResultRow, RunRecord
from crossdistill.core.types import ImageSet
from crossdistill.images._splits import load_splits
from crossdistill.images._transfer import with_transfer
from crossdistill.observe import observe
from crossdistill.ops.network import Network
from protocol import save_result
from short_trainings import started, trained

MODEL, STUDENT = "small/resnet8", "student"
TEACHERS = ("shape_reader", "texture_reader")
RECIPE: dict[str, Any] = {
    "batch_size": 32,
    "learning_rate": 2e-3,
    "threads": 1,
    "views": {"crops": 8, "flip": False},
}  # stripes have a side
SIDE = 32
N_VALIDATION, N_TEST, N_CONFLICTS = 500, 1000, 1000


class Images(NamedTuple):
    """What is trained on, validated on, and what every network answers."""

    train: dict[str, ImageSet]  # of each teacher, and of the students: labelled, then cue conflicts without labels
    validation: dict[str, ImageSet]
    clean: ImageSet  # both cues name the class
    conflicts: ImageSet  # they name two


def drawn(n_train: int) -> Images:
    """All images; those that a student is tested on were drawn apart from those that it learns from."""
    common = {"side": SIDE, "n_test": N_TEST, "n_train": n_train + N_VALIDATION}
    counts: dict[str, Any] = {"train_images": n_train, "validation_images": N_VALIDATION}
    alone = {
        f"{cue}_reader": load_splits("trifeature", {**common, "label": cue, "correlated": None}, **counts) for cue in ("shape", "texture")
    }
    both = load_splits("trifeature", {**common, "label": "texture", "correlated": "shape", "correlation": 1.0, "n_conflict": 1}, **counts)
    taught, tested = (_conflicts(count, seed) for count, seed in ((n_train, 1), (N_CONFLICTS, 2)))
    joined = with_transfer(both, taught, name="cue conflicts", count=None, seed=0)
    every = {**alone, STUDENT: joined}
    return Images({name: s.train for name, s in every.items()}, {name: s.validation for name, s in every.items()}, both.test, tested)


def _conflicts(count: int, seed: int) -> ImageSet:
    settings = {"side": SIDE, "label": "shape", "correlated": "texture", "n_conflict": count, "n_train": 20, "n_test": 10, "seed": seed}
    return load_splits("trifeature", settings, train_images=10, validation_images=10).extra["conflict"]


def trained_on(images: Images, name: str, who: tuple[Any, ...], epochs: int, teacher: Network | None = None, words: str = "") -> Network:
    """A network of that start: a teacher, or a student with or without a teacher."""
    train, recipe = images.train[name], {**RECIPE, "epochs": epochs}
    described = {"progress": Progress(), "description": words or f"{name}, {who[1:]}"}
    return trained(started(MODEL, train, who), train, images.validation[name], recipe, who, teacher=teacher, **described)[0]


def record(arm: str, student: str, seed: int, teacher: str | None = None) -> RunRecord:
    """What the tables must know of a run."""
    by = f"-{teacher}" if teacher else ""
    return RunRecord(
        run=f"{arm}-{student}{by}-{seed}", label=f"{arm}: {student}, seed {seed}", arm=arm, method="kd" if teacher else None,
        teacher=teacher, teacher_run=f"teacher-{teacher}-{seed}" if teacher else None, student=student, model=MODEL, family="cnn",
        readout="class", seed=seed, parameters=0, training={}, history=[], estimates={}, timing={}, software={}, hardware={},
    )  # fmt: skip


def runs_of(seed: int, images: Images, epochs: int, out: Path) -> list[ObservedRun]:
    """The five networks of a seed, each trained unless its answers are in `out`."""
    found, readers, student = [], {}, (0, "student", seed)
    for name in TEACHERS:
        readers[name] = lambda name=name: trained_on(images, name, (0, f"teacher {name}", seed), epochs)
        found.append(observed(record("teacher", name, seed), readers[name], images, out))
    found.append(observed(record("independent", STUDENT, seed), lambda: trained_on(images, STUDENT, student, epochs), images, out))
    for name in TEACHERS:
        of_kd = record("kd", STUDENT, seed, name)
        weights = out / f"teacher-{name}-{seed}.pt"
        found.append(observed(of_kd, lambda w=weights, r=of_kd: _taught(images, student, epochs, w, r.run), images, out))
    return found


def _taught(images: Images, who: tuple[Any, ...], epochs: int, weights: Path, words: str) -> Network:
    teacher = started(MODEL, images.train[STUDENT], (0, "teacher", 0), weights)
    return trained_on(images, STUDENT, who, epochs, teacher, words)


def observed(of: RunRecord, make: Callable[[], Network], images: Images, out: Path) -> ObservedRun:
    """The run with its answers, from `out` where they are there."""
    path = out / f"{of.run}.npz"
    if not path.exists():
        network = make()
        torch.save(network.state_dict(), out / f"{of.run}.pt")
        sets = {("clean", 0): observe(network, images.clean), ("conflict", 0): observe(network, images.conflicts, split="conflict")}
        save_observations(path, sets)
    answers = {(name, "", draw): seen for (name, draw), seen in stored_observations(path).items()}
    return ObservedRun(of, answers)


def of_arm(results: list[ResultRow], arm: str, network: str, teacher: str | None, metric: str, probe: str) -> dict[str, Any]:
    """A figure of an arm: one value a seed with Wilson's interval over images, and the mean with Student's t over seeds."""
    rows = [r for r in results if (r.arm, r.student, r.metric, r.probe) == (arm, network, metric, probe) and (r.teacher == teacher)]
    runs = [{"value": r.value, "low": r.low, "high": r.high, "n": r.n} if r.status == "ok" else {"not_measurable": r.reason} for r in rows]
    values = np.array([r.value for r in rows if r.value is not None])
    if len(values) < 2:
        return {"runs": runs}
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return {"mean": float(values.mean()), "low": float(values.mean() - half), "high": float(values.mean() + half), "runs": runs}


def shown(row: InheritanceRow) -> dict[str, Any]:
    kept = (
        "difference", "low", "high", "p_raw", "p_source", "minimum_detectable", "teacher_gap", "gap_low", "gap_high", "fidelity", "n_runs",
        "verdict", "reason",
    )  # fmt: skip
    return {name: getattr(row, name) for name in kept}


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--out", type=Path, required=True, help="folder that keeps networks and answers")
    for option, default in {"train-images": 1500, "epochs": 5, "seeds": 5}.items():
        parser.add_argument(f"--{option}", type=int, default=default, help=f"default {default}")
    return parser.parse_args()


def main() -> None:
    chosen = options()
    chosen.out.mkdir(parents=True, exist_ok=True)
    images = drawn(chosen.train_images)
    runs = [run for seed in range(chosen.seeds) for run in runs_of(seed, images, chosen.epochs, chosen.out)]
    pairs = [Pair(index, teacher, STUDENT, ("kd",)) for index, teacher in enumerate(TEACHERS)]
    results = results_table(runs, pairs)
    rows = inheritance_table(results, runs, pairs, [])
    arms = {"independent": ("independent", STUDENT, None)}
    for name in TEACHERS:
        arms |= {name: ("teacher", name, None), f"student of {name}": ("kd", STUDENT, name)}
    contrasts = [row for row in rows if (row.metric, row.probe, row.contrast) == ("shape_bias", "conflict", "independent")]
    save_result(
        "positive_control_shape",
        {
            **{name: value for name, value in vars(chosen).items() if name != "out"},
            "network": MODEL,
            "side": SIDE,
            "recipe": RECIPE,
            "clean_accuracy": {name: of_arm(results, *arm, "accuracy", "clean") for name, arm in arms.items()},
            "shape_bias": {name: of_arm(results, *arm, "shape_bias", "conflict") for name, arm in arms.items()},
            "student_minus_independent": {row.teacher: shown(row) for row in contrasts},
            "checks": {
                "shape_readers_bias_is_inherited": any(r.teacher == "shape_reader" and r.verdict == "inherited" for r in contrasts),
                "texture_readers_students_do_not_gain_shape_bias": all(
                    (r.difference or 0) < 0.02 for r in contrasts if r.teacher == "texture_reader"
                ),
            },
        },
    )


if __name__ == "__main__":
    main()
