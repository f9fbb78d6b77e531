"""What `checkpoint_every: 1 minute` costs: the time to save a training's whole state over the minute between two of them.

    python benchmarks/checkpoint_cost.py [--saves 20]

Students small/resnet20 and small/vit at batch 128, taught by kd, and by crd on 50,000 images, whose two banks are 51 MB of the
state. `share`: seconds of a save / 60, the median with its bootstrap 95 % interval (target: 0.01, met where the lower bound is within
it). Each save is written, synced to the disk and renamed, and follows a training step, as it would. With fewer saves nothing is
written.
"""

import argparse
import json
import shutil
import time
from typing import Any

import numpy as np
import torch
from scipy.stats import bootstrap

from crossdistill.core.types import ImageSet
from crossdistill.ops.memory import keep_freed_memory
from crossdistill.train.state import save_state
from method_cost import BATCH, IMAGES, THREADS, TO_CNN, TO_VIT, images, made
from protocol import save_result

SAVES, WARM_UPS = 20, 2
BETWEEN = 60.0  # seconds
TARGET = 0.01


def measured(name: str, pair: tuple[str, str], data: ImageSet, saves: int) -> dict[str, Any]:
    case = made(name, pair, data)
    seconds = []
    for _ in range(WARM_UPS + saves):
        case.step()
        start = time.perf_counter()
        save_state(case.training)
        seconds.append(time.perf_counter() - start)
    newest = max((case.training.folder / "checkpoint").iterdir())
    megabytes = sum(file.stat().st_size for file in newest.iterdir()) / 1e6
    shutil.rmtree(case.training.folder)
    shares = np.array(seconds[WARM_UPS:]) / BETWEEN
    interval = bootstrap((shares,), np.median, method="percentile", rng=np.random.default_rng(0)).confidence_interval
    row = {"student": pair[1], "method": name, "megabytes": megabytes, "save_milliseconds": 1e3 * BETWEEN * float(np.median(shares)),
           "share": float(np.median(shares)), "low": float(interval.low), "high": float(interval.high), "saves": saves, "target": TARGET,
           "met": bool(interval.low <= TARGET)}  # fmt: skip
    print(f"{name}, {pair[1]}: {megabytes:.1f} MB in {row['save_milliseconds']:.0f} ms, {100 * row['share']:.3f} % of a minute "
          f"({100 * row['low']:.3f} to {100 * row['high']:.3f}), target {100 * TARGET:.0f} %", flush=True)  # fmt: skip
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--saves", type=int, default=SAVES, help="saves of each training; %(default)s where not said")
    asked = parser.parse_args()
    torch.set_num_threads(THREADS)
    keep_freed_memory()  # as `Training.run` does
    data = images()
    rows = [measured(name, pair, data, asked.saves) for name in ("kd", "crd") for pair in (TO_CNN, TO_VIT)]
    found = {"batch": BATCH, "images": IMAGES, "seconds_between": BETWEEN, "trainings": rows}
    if asked.saves < SAVES:
        print(json.dumps(found, indent=1))
    else:
        save_result("checkpoint_cost", found)


if __name__ == "__main__":
    main()
