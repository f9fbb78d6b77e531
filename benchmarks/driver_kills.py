"""A study whose driver is killed at random moments: what is lost, what is done again, and do the tables end with the same bytes?

    python benchmarks/driver_kills.py STUDY.yaml --reference DIR --out DIR

DIR of --reference holds the same study, run without interruption. The study is run into --out, its process group killed (SIGKILL) at five
random moments in the share of its time that the reference took, and started again each time. After every kill it is noted what was
finished and how old the running training's last checkpoint was; after the next start nothing that was finished may have been written
again but the copies that a study's folder keeps of the store: one a teacher (its record) and one a probe (its manifest).
At the end every table must equal the reference's byte for byte.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from protocol import save_result

TABLES = ("results.parquet", "inheritance.parquet", "transfer.parquet", "similarity.parquet")
FINISHED = ("runs/*/record.json", "runs/*/network.safetensors", "observations/*/*.npz", "probes/*/manifest.json")
OF_THE_STORE = ("teachers/*/record.json", "teachers/*/network.safetensors", "warm_ups/*/record.json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("study", type=Path)
    parser.add_argument("--reference", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--expected-seconds", type=float, required=True, help="what the reference took")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    asked = parser.parse_args()
    moments = random.Random(asked.seed)
    pauses = [moments.uniform(0.05, 2 / (asked.kills + 1)) * asked.expected_seconds for _ in range(asked.kills)]
    with tempfile.TemporaryDirectory() as store:
        kills, seconds = [], 0.0
        for pause in pauses:
            kills.append(killed_after(pause, asked.study, asked.out, Path(store)))
            seconds += kills[-1]["ran_seconds"]
        rewritten_at_last, last = run_to_the_end(asked.study, asked.out, Path(store))
    rewritten = [kill.pop("rewritten_before") for kill in kills][1:] + [rewritten_at_last]
    kills = [{**kill, "rewritten_afterwards": count} for kill, count in zip(kills, rewritten, strict=True)]
    save_result("driver_kills", {
        "study": asked.study.name,
        "undisturbed_seconds": asked.expected_seconds,
        "seconds_of_all_starts": seconds + last,
        "kills": kills,
        "tables_equal": {name: (asked.reference / name).read_bytes() == (asked.out / name).read_bytes() for name in TABLES},
    })  # fmt: skip


def command(study: Path, out: Path, store: Path) -> list[str]:
    return [sys.executable, "-m", "crossdistill", "study", "run", str(study), "--out", str(out), "--store", str(store)]


def killed_after(pause: float, study: Path, out: Path, store: Path) -> dict[str, Any]:
    """Start the study, kill it after so many seconds, and say what it left."""
    before = finished(out, store)
    start = time.time()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command(study, out, store), start_new_session=True, stdout=log, stderr=log)
        time.sleep(pause)
        ended = process.poll()
        os.killpg(process.pid, signal.SIGKILL) if ended is None else None
        process.wait()
    now = time.time()
    after = finished(out, store)
    ages = [now - path.stat().st_mtime for path in checkpoints(out, store) if path.stat().st_mtime > start]
    return {
        "ran_seconds": now - start,
        "had_ended_already": ended is not None,
        "finished_files": len(after),
        "rewritten_before": sum(after.get(path) != state for path, state in before.items()),
        "youngest_checkpoint_seconds": min(ages, default=None),
    }


def run_to_the_end(study: Path, out: Path, store: Path) -> tuple[int, float]:
    """(finished files that were written again, seconds) of the last start."""
    before, start = finished(out, store), time.time()
    subprocess.run(command(study, out, store), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seconds, after = time.time() - start, finished(out, store)
    return sum(after.get(path) != state for path, state in before.items()), seconds


def finished(out: Path, store: Path) -> dict[str, tuple[int, int]]:
    """{file of a finished task: (inode, time of its last change)}; a file that is written again gets another inode."""
    places = [(out, pattern) for pattern in FINISHED] + [(store, pattern) for pattern in OF_THE_STORE]
    found = [path for folder, pattern in places for path in folder.glob(pattern)]
    return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in found}


def checkpoints(out: Path, store: Path) -> list[Path]:
    """The files of the checkpoints of trainings that are not finished."""
    return [path for folder in (out, store) for path in folder.glob("*/*/checkpoint/*") if path.exists()]


if __name__ == "__main__":
    main()
