"""What the tables of a study cost: every metric of 30 networks on 12 probes of 10,000 images, and the contrasts drawn from them.

    python benchmarks/metrics_speed.py [--images 10000] [--probes 12]

Teachers of both families, independents of all budgets, second independents, and students of two methods with their controls; one level
a probe, every third probe drawn three times (draws are averaged inside an image first), 10 classes, intervals of 2,000 resamples. The
observations are made up and lie on disk, as those of a study do; an image that is easy is easy for all networks, so that errors are
shared. CKA, receptive fields and pictures are not measured here.

The target is 2 minutes on 2 cores and 2 GB of memory at the peak, reading included; one process does it all. `seconds_of_metrics` holds
what the calls of each metric took together. At any other size than the full one nothing is written.
"""

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from crossdistill.compare import Contrast, ObservedRun, Pair, applied, inheritance_table, results_table
from crossdistill.compare.transfer import transfer_table
from crossdistill.core.observations import save_observations, stored_answers
from crossdistill.core.records import EstimateModel, RunRecord
from crossdistill.core.types import Observations

IMAGES, PROBES, SEEDS, CLASSES = 10_000, 12, 3, 10
DRAWS_OF_EVERY_THIRD = 3
TARGET_SECONDS, TARGET_MEGABYTES = 120.0, 2000.0
TEACHER, STUDENT = "vit", "cnn"
METHODS = ("kd", "crd")
PAIRS = [Pair(0, TEACHER, STUDENT, METHODS, control_teacher=STUDENT)]
PRIMARY = [Contrast(0, "kd", "probe0"), Contrast(0, "kd", "probe1", "control_teacher"), Contrast(0, "crd", "probe0", "shuffled_teacher")]


def arms(seeds: int) -> Iterator[tuple[str, str, int, str | None, str | None, float]]:
    """(arm, network, seed, teacher network, teacher's run, clean accuracy about) of each network of the study."""
    for seed in range(seeds):
        of_teacher, of_control = (f"teacher-{network}-{seed}" for network in (TEACHER, STUDENT))
        yield "teacher", TEACHER, seed, None, None, 0.85
        yield "teacher", STUDENT, seed, None, None, 0.84
        yield "independent", STUDENT, seed, None, None, 0.8
        yield "second_independent", STUDENT, seed, None, None, 0.8
        for method in METHODS:
            yield method, STUDENT, seed, TEACHER, of_teacher, 0.82
        for control, teacher, run in (("shuffled_teacher", TEACHER, of_teacher), ("control_teacher", STUDENT, of_control),
                                      ("matched_teacher", TEACHER, of_teacher)):  # fmt: skip
            yield f"kd+{control}", STUDENT, seed, teacher, run, 0.81
    for place, share in enumerate((40, 60, 80)):
        yield f"independent_{share}", STUDENT, 0, None, None, 0.7 + 0.03 * place


def record(arm: str, network: str, seed: int, teacher: str | None, teacher_run: str | None, accuracy: float) -> RunRecord:
    found = {"validation_accuracy": EstimateModel(value=accuracy), "temperature": EstimateModel(value=1.4)}
    method = arm.split("+")[0] if teacher else None
    return RunRecord(
        run=f"{arm}-{network}-{seed}", label=f"{arm}: {network}, seed {seed}", arm=arm, method=method, teacher=teacher,
        teacher_run=teacher_run, student=network, model="", family="", readout="class", seed=seed, parameters=0, training={}, history=[],
        estimates=found, timing={}, software={}, hardware={},
    )  # fmt: skip


def logits(labels: np.ndarray, ease: np.ndarray, accuracy: float, generator: np.random.Generator) -> np.ndarray:
    """float32 [images, classes] of a network that is right on about `accuracy` of the images, the easy ones first."""
    found = generator.normal(size=(len(labels), CLASSES)).astype(np.float32)
    found[np.arange(len(labels)), labels] += (2 * ease + 6 * accuracy - 2.5).astype(np.float32)
    return found


def write_observations(folder: Path, runs: list[RunRecord], accuracies: list[float], n_images: int, n_probes: int) -> None:
    shared = np.random.default_rng(0)
    labels, index = np.arange(n_images) % CLASSES, np.arange(n_images)
    ease = shared.normal(size=n_images)
    for number, (run, accuracy) in enumerate(zip(runs, accuracies, strict=True)):
        generator = np.random.default_rng([1, number])
        (folder / run.run).mkdir()
        for place in range(-1, n_probes):
            lost, draws = (0.0, 1) if place < 0 else (0.05 + 0.03 * place, DRAWS_OF_EVERY_THIRD if place % 3 == 0 else 1)
            answers = {
                ("" if place < 0 else "level", draw): Observations(logits(labels, ease, accuracy - lost, generator), labels, index)
                for draw in range(draws)
            }
            save_observations(folder / run.run / ("clean.npz" if place < 0 else f"probe{place}.npz"), answers)


def observed(folder: Path, run: RunRecord, n_images: int) -> ObservedRun:
    files = {file.stem: file for file in sorted((folder / run.run).glob("*.npz"))}
    return ObservedRun(run, stored_answers(files), np.arange(n_images))


@contextmanager
def timed_metrics() -> Iterator[dict[str, float]]:
    """Seconds of each metric's calls, as they add up meanwhile."""
    seconds: dict[str, float] = {}

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(**inputs: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(**inputs)
            finally:
                seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start

        return call

    plain = applied._readers
    readers: Mapping[str, applied.Reader] = {name: replace(of, function=timed(name, of.function)) for name, of in plain().items()}
    applied._readers = lambda: readers  # type: ignore[assignment]
    try:
        yield seconds
    finally:
        applied._readers = plain


def measured(n_images: int, n_probes: int, seeds: int) -> dict[str, Any]:
    described = list(arms(seeds))
    records = [record(*of) for of in described]
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        write_observations(folder, records, [of[-1] for of in described], n_images, n_probes)
        start = time.perf_counter()  # answers are read as they are asked for
        runs = [observed(folder, run, n_images) for run in records]
        with timed_metrics() as of_metrics:
            results = results_table(runs, PAIRS)
        tabled = time.perf_counter()
        contrasts = inheritance_table(results, runs, PAIRS, PRIMARY)
        contrasted = time.perf_counter()
        transfers = transfer_table(results, runs, PAIRS)
        done = time.perf_counter()
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    return {
        "networks": len(records),
        "probes": n_probes,
        "images": n_images,
        "classes": CLASSES,
        "draws": [DRAWS_OF_EVERY_THIRD if place % 3 == 0 else 1 for place in range(n_probes)],
        "rows": {"results": len(results), "inheritance": len(contrasts), "transfer": len(transfers)},
        "seconds": {
            "results": tabled - start,
            "inheritance": contrasted - tabled,
            "transfer": done - contrasted,
            "all": done - start,
        },
        "seconds_of_metrics": dict(sorted(of_metrics.items(), key=lambda item: -item[1])),
        "peak_megabytes": megabytes,
        "target_seconds": TARGET_SECONDS,
        "target_megabytes": TARGET_MEGABYTES,
        "met": done - start <= TARGET_SECONDS and megabytes <= TARGET_MEGABYTES,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--images", type=int, default=IMAGES, help="images of each set; %(default)s where not said")
    parser.add_argument("--probes", type=int, default=PROBES, help="probes; %(default)s where not said")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="seeds of each arm; %(default)s where not said")
    asked = parser.parse_args()
    figures = measured(asked.images, asked.probes, asked.seeds)
    if (asked.images, asked.probes, asked.seeds) == (IMAGES, PROBES, SEEDS):
        from protocol import save_result  # torch would count in the peak

        save_result("metrics_speed", figures)
    else:
        print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
