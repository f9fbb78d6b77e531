"""Memory and time of building probe sets of a large source: anonymous memory must stay flat as the set grows.

    python benchmarks/probe_memory.py [--images 100000] [--side 64] [--probes scramble,localized_noise,...] [--workers 2]

The images are synthetic and memory-mapped. Each set is built in a process of its own, as `crossdistill probes build` does it; RssAnon
of that process and of its workers is added up every tenth of a second. Writes results/probe_memory.json.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from crossdistill.core.config import core_probes
from crossdistill.study.environment import hardware, software
from protocol import RESULTS

MOST_MEGABYTES = 1024  # the promise for 100,000 images of 64 pixels

BUILD = """
import sys
from pathlib import Path
import numpy as np
from crossdistill.core.types import ImageSet
from crossdistill.probes._build import build_probe_set
from crossdistill.study import probes  # as the command line does; with it comes torch

pixels = np.load(sys.argv[1], mmap_mode="r")
labels = np.arange(len(pixels)) % 10
images = ImageSet(pixels, labels, np.arange(len(pixels)).astype(str), tuple("abcdefghij"))
levels = probes.probe_recipe(sys.argv[2], images.size, preset="full").levels[-1:]
build_probe_set(sys.argv[2], images, levels=levels, draws=1, folder=Path(sys.argv[3]), workers=int(sys.argv[4]) or None)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--probes", default=",".join(core_probes()))
    parser.add_argument("--workers", type=int, default=0, help="0: as many as the builder takes")
    asked = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        pixels = synthetic(Path(folder) / "pixels.npy", asked.images, asked.side)
        for name in asked.probes.split(","):
            rows.append({"probe": name, **measured(pixels, name, Path(folder) / "sets" / name, asked.workers)})
            print(json.dumps(rows[-1]), flush=True)
    result = {
        "images": asked.images,
        "side": asked.side,
        "most_megabytes": MOST_MEGABYTES,
        "probes": rows,
        "met": all(row["peak_rss_anon_megabytes"] < MOST_MEGABYTES for row in rows),
        "software": software(),
        "hardware": hardware(torch.device("cpu")),
    }
    (RESULTS / "probe_memory.json").write_text(json.dumps(result, indent=1) + "\n")


def synthetic(path: Path, n: int, side: int) -> Path:
    """Ramps with noise, written block by block."""
    random = np.random.default_rng(0)
    pixels = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(n, 3, side, side))
    ramp = np.add.outer(np.arange(side), np.arange(side))[None, None] * 100 // side
    for start in range(0, n, 1000):
        rows = len(pixels[start : start + 1000])
        pixels[start : start + rows] = ramp + random.integers(0, 50, (rows, 3, side, side))
    pixels.flush()
    return path


def measured(pixels: Path, name: str, folder: Path, workers: int) -> dict[str, float]:
    """Seconds and the largest sum of RssAnon, in MB of 2**20 bytes, while one level and draw is built."""
    start, peak, largest = time.perf_counter(), 0, 0
    process = subprocess.Popen([sys.executable, "-c", BUILD, str(pixels), name, str(folder), str(workers)])
    while process.poll() is None:
        sizes = [rss_anon(pid) for pid in [process.pid, *children(process.pid)]]
        peak, largest = max(peak, sum(sizes)), max(largest, len(sizes) - 1)
        time.sleep(0.1)
    if process.returncode:
        raise SystemExit(f"building {name} failed")
    return {"peak_rss_anon_megabytes": round(peak / 1024, 1), "workers": largest, "seconds": round(time.perf_counter() - start, 1)}


def children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def rss_anon(pid: int) -> int:
    """Anonymous memory of a process in kB, 0 once it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("RssAnon")), 0)


if __name__ == "__main__":
    main()
