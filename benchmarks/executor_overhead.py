"""What an executor costs: a run's wall time beside the seconds of its own tasks, by the local executor, --jobs 1 and Ray.

    python benchmarks/executor_overhead.py [STUDY.yaml] [--repeats 3] [--small]

Each repeat runs the whole study in a new process with an empty store, by `local` (the default), `local --jobs 2` and `ray --address
local` with `--jobs 1` (one training at a time, as `local`, so that the difference is Ray's) and without a limit. `tasks`: seconds of
images, probes, trainings, observations, tables and page. What one executor runs at a time is its wall time but for the rest, `overhead`:
starting Python, connecting, sending, waiting. `share` = overhead / wall, in runs of one training at a time (target: 0.02). With
several at once the wall time itself is the figure. Images are decoded beforehand. --small: a study of seconds, and nothing is written.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from protocol import save_result

EXECUTORS = {
    "local": [],
    "local, 2 jobs": ["--jobs", "2"],
    "ray, 1 job": ["--executor", "ray", "--address", "local", "--jobs", "1"],
    "ray": ["--executor", "ray", "--address", "local"],
}
ONE_AT_A_TIME = ("local", "ray, 1 job")
TARGET = 0.02
STUDY = """\
name: overhead
images: {{source: trifeature, n_values: 2, n_train: {n_train}, n_test: 60, n_conflict: 40, side: 16}}
networks:
  vit: {{model: small/vit, width: 16, depth: 1, heads: 2}}
  cnn: {{model: small/resnet8}}
teachers: {{runs: 1}}
pairs:
  - {{teacher: vit, student: cnn, methods: [kd, crd]}}
seeds: [0, 1]
training: {{epochs: {epochs}, batch_size: 16, threads: 1, precision: fp32}}
probes: [{{name: scramble, levels: [{{grid: 2}}, {{grid: 4}}]}}, localized_noise]
signal_gate: off
"""


def run(study: Path, options: list[str], folder: Path, environment: dict[str, str]) -> dict[str, float]:
    """One run of the study: its wall time and the seconds of its tasks."""
    command = [sys.executable, "-m", "crossdistill", "study", "run", study, "--out", folder / "out", "--store", folder / "store", "--quiet"]
    start = time.perf_counter()
    subprocess.run([*map(str, command), *options], check=True, env=environment, stdout=subprocess.DEVNULL)
    wall = time.perf_counter() - start
    phases = json.loads((folder / "out" / "phases.json").read_text())["timing"]
    timings = [json.loads(path.read_text())["timing"] for path in (folder / "out" / "timings").glob("*.json")]
    trained, observed = (sum(timing[name] for timing in timings) for name in ("training", "observation"))
    tasks = trained + observed + sum(phases[name] for name in ("images", "probes", "tables", "page"))
    return {"wall": wall, "tasks": tasks, "overhead": wall - tasks, "trainings": trained, "observations": observed, **{
        f"phase_{name}": seconds for name, seconds in phases.items()
    }}  # fmt: skip


def figures(study: Path, repeats: int) -> list[dict[str, Any]]:
    """The medians of each executor's runs; the executors take turns, so that a machine's drift meets all alike."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in EXECUTORS}
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "CROSSDISTILL_CACHE": str(Path(folder, "cache"))}
        run(study, [], Path(folder, "first"), environment)  # decodes the images, and warms the disk's cache
        for repeat in range(repeats):
            for name, options in EXECUTORS.items():
                found[name].append(run(study, options, Path(folder, f"{repeat}-{name.replace(' ', '-')}"), environment))
    rows = []
    for name, runs in found.items():
        row: dict[str, Any] = {"executor": name, **{key: statistics.median(run[key] for run in runs) for key in runs[0]}}
        if name in ONE_AT_A_TIME:
            shares = sorted(run["overhead"] / run["wall"] for run in runs)
            row |= {"share": statistics.median(shares), "low": shares[0], "high": shares[-1], "target": TARGET, "met": shares[0] <= TARGET}
        rows.append(row)
        print(f"{name}: {row['wall']:.1f} s, {row['overhead']:.1f} s beside its tasks", file=sys.stderr, flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("study", type=Path, nargs="?", help="a study file; its own, of about two minutes, where none is named")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="a study of seconds: only to see that the benchmark works")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        own = Path(folder) / "study.yaml"
        own.write_text(STUDY.format(n_train=160, epochs=2) if asked.small else STUDY.format(n_train=1600, epochs=20))
        rows = figures(asked.study or own, asked.repeats)
    found = {"study": (asked.study.read_text() if asked.study else STUDY.format(n_train=1600, epochs=20)), "repeats": asked.repeats,
             "executors": rows}  # fmt: skip
    print(json.dumps(rows, indent=1)) if asked.small else save_result("executor_overhead", found)


if __name__ == "__main__":
    main()
