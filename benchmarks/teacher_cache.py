"""What a step costs with the teacher's stored answers, what storing them costs, and from how many students on it pays.

    python benchmarks/teacher_cache.py [METHOD ...] [--pairs 40]

`over_independent`: a whole step of the training loop with a warm cache over the independent student's step on the same images
(small/resnet20 taught by small/vit, batch 128, `views: {crops: 8, flip: true}`: 16 views of each image). `over_live`: the same over
the step whose teacher answers afresh. For these the arrays hold random numbers: what is read costs the same. `storing` is measured
on as many shards as are said there, asked of the teacher for real and synced to the disk, by one process.

`students`: seconds of 1, 5 and 25 students of 30 epochs, and of storing the answers once, by these figures, with and without cache.

Targets are met where the lower bound of the interval is within them. With METHODs named, or fewer pairs, nothing is written.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from crossdistill.core.types import ImageSet
from crossdistill.ops.memory import keep_freed_memory
from crossdistill.ops.modes import frozen
from crossdistill.train.batches import resident
from crossdistill.train.cache import Asker, CachedTeacher
from crossdistill.train.loop import Training
from crossdistill.train.precision import autocast
from crossdistill.train.stored_arrays import StoredArrays
from crossdistill.train.teacher import LiveTeacher
from method_cost import BATCH, CPU, PRECISION, RECIPE, SETTINGS, THREADS, TO_CNN, images, made
from protocol import paired_ratio, save_result
from steps import network

PAIRS, WARM_UPS = 40, 5
TARGETS = {"kd": 1.05, "dkd": 1.05, "dist": 1.05, "rkd": 1.12, "crd": 1.35}
EPOCHS, STUDENTS = 30, (1, 5, 25)
STORED_SHARDS = 2


def asker(data: ImageSet, taps: tuple[str, ...]) -> Asker:
    teacher = frozen(network(TO_CNN[0]))
    shown = Training(network(TO_CNN[1]), data, data, RECIPE, who=(0, "student", 0), folder=Path(tempfile.mkdtemp())).batches.augment
    return Asker(
        LiveTeacher(teacher, taps), resident(data.images, CPU), shown, lambda: autocast(PRECISION, CPU), batch_size=BATCH
    )  # fmt: skip


def random_answers(data: ImageSet, taps: tuple[str, ...], folder: Path) -> CachedTeacher:
    """Stored answers of the right shapes, filled with random numbers."""
    ask, random = asker(data, taps), np.random.default_rng(0)
    arrays = StoredArrays(folder, ask.n_rows, ask.specs())
    arrays.reserve()
    arrays.fill_missing(lambda rows: [{
        name: random.standard_normal((len(rows), *spec.shape), np.float32) for name, spec in arrays.specs.items()
    }])  # fmt: skip
    return CachedTeacher(arrays.opened(), len(data), CPU)


def storing(data: ImageSet, taps: tuple[str, ...], shards: int) -> dict[str, Any]:
    """The cost of storing the answers of these taps, from the first shards."""
    with tempfile.TemporaryDirectory() as folder:
        ask = asker(data, taps)
        arrays = StoredArrays(Path(folder), ask.n_rows, ask.specs())
        start = time.perf_counter()  # after the pass that finds the shapes
        arrays.reserve()
        reserved = time.perf_counter()
        for shard in range(min(shards, arrays.n_shards)):
            arrays.fill(shard, ask.blocks(arrays.rows(shard)))
        rows = sum(len(arrays.rows(shard)) for shard in range(min(shards, arrays.n_shards)))
        seconds_a_row = (time.perf_counter() - reserved) / rows
    whole = reserved - start + seconds_a_row * ask.n_rows
    return {
        "rows": ask.n_rows,
        "measured_rows": rows,
        "megabytes": arrays.n_bytes / 1e6,
        "rows_per_second": 1 / seconds_a_row,
        "seconds": whole,
    }


def steps_of(training: Training) -> Callable[[], None]:
    """Steps of a training on batch after batch of an epoch's order, the same ones for every training."""

    def batches() -> Iterator[torch.Tensor]:
        while True:
            yield from training.batches.order(0).split(BATCH)[: training.steps_per_epoch]

    each = batches()
    return lambda: training.step(next(each), 0)


def measured(name: str, data: ImageSet, pairs: int) -> dict[str, Any]:
    """A method's step with stored answers beside the independent's and beside its own with a live teacher."""
    live, cached = (made(name, TO_CNN, data).training for _ in range(2))
    taps = cached.objective.needs.teacher_taps
    folder = Path(tempfile.mkdtemp())
    independent = Training(network(TO_CNN[1]), data, data.subset(np.arange(10)), RECIPE, who=(0, "student", 0), folder=folder)
    with tempfile.TemporaryDirectory() as store:
        cached.answers = random_answers(data, taps, Path(store))
        step = steps_of(cached)
        over_independent = paired_ratio(step, steps_of(independent), pairs=pairs, warm_ups=WARM_UPS, target=TARGETS.get(name))
        over_live = paired_ratio(step, steps_of(live), pairs=pairs, warm_ups=WARM_UPS)
    cost = storing(data, taps, STORED_SHARDS)
    steps = EPOCHS * (len(data) // BATCH)
    whole = {
        str(students): {
            "live_seconds": students * steps * over_live["b_milliseconds"] / 1e3,
            "cached_seconds": students * steps * over_live["a_milliseconds"] / 1e3 + cost["seconds"],
        }
        for students in STUDENTS
    }
    for row in whole.values():
        row["live_over_cached"] = row["live_seconds"] / row["cached_seconds"]
    target = f", target {over_independent['target']} {'met' if over_independent['met'] else 'NOT met'}" if name in TARGETS else ""
    print(f"{name}: {over_independent['ratio']:.3f} of the independent's step ({over_independent['low']:.3f} to "
          f"{over_independent['high']:.3f}){target}; {over_live['ratio']:.3f} of the step with a live teacher", flush=True)  # fmt: skip
    return {"taps": list(taps), "over_independent": over_independent, "over_live": over_live, "storing": cost, "students": whole}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("methods", nargs="*", metavar="METHOD", help=f"{', '.join(TARGETS)} where none is named")
    parser.add_argument("--pairs", type=int, default=PAIRS, help="pairs of steps for each ratio; %(default)s where not said")
    asked = parser.parse_args()
    torch.set_num_threads(THREADS)
    keep_freed_memory()  # as `Training.run` does
    data = images()
    methods = {name: measured(name, data, asked.pairs) for name in asked.methods or TARGETS}
    facts = {
        "teacher": TO_CNN[0], "student": TO_CNN[1], "batch": BATCH, "images": len(data), "pixels": 32, "views": 16, "epochs": EPOCHS,
        "precision": PRECISION, "settings": SETTINGS,
    }  # fmt: skip
    if asked.methods or asked.pairs < PAIRS:
        print(json.dumps({**facts, "methods": methods}, indent=1))
    else:
        save_result("teacher_cache", {**facts, "methods": methods})


if __name__ == "__main__":
    main()
