"""One protocol for every ratio: A and B alternate step by step in one process, so that a machine's drift meets both alike.

At least 40 pairs after 5 warm-ups, unless a benchmark says its own numbers; the figure is the median of the paired ratios A/B
with a bootstrap 95 % interval, and a target is met where the interval's lower bound is within it. Networks, batch size and
threads stand in the result.
"""

import datetime
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import bootstrap

from crossdistill.study.environment import hardware, software

RESULTS = Path(__file__).parent / "results"


def paired_ratio(
    a: Callable[[], object], b: Callable[[], object], *, pairs: int = 40, warm_ups: int = 5, target: float | None = None
) -> dict[str, Any]:
    """Median of the paired ratios of seconds a() / b(), with its 95 % interval."""
    times = np.array([(_seconds(a), _seconds(b)) for _ in range(warm_ups + pairs)])[warm_ups:]
    ratios = times[:, 0] / times[:, 1]
    interval = bootstrap((ratios,), np.median, method="percentile", rng=np.random.default_rng(0)).confidence_interval
    result = {
        "ratio": float(np.median(ratios)),
        "low": float(interval.low),
        "high": float(interval.high),
        "pairs": pairs,
        "a_milliseconds": 1e3 * float(np.median(times[:, 0])),
        "b_milliseconds": 1e3 * float(np.median(times[:, 1])),
    }
    return result if target is None else {**result, "target": target, "met": bool(interval.low <= target)}


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def peak_megabytes(call: Callable[[], object]) -> float:
    """The largest sum of tensors alive at once within call(), beyond those alive before it, in MB of 2**20 bytes.

    As torch's profiler saw its own CPU allocator: the same in every run, and blind to what kernels allocate by themselves.
    """
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())["traceEvents"]
    changes = sorted(((event["ts"], event["args"]["Bytes"]) for event in events if event["name"] == "[memory]"), key=lambda e: e[0])
    return float(np.cumsum([change for _, change in changes]).max(initial=0)) / 2**20


def save_result(name: str, figures: dict[str, Any]) -> None:
    """Print the figures and write benchmarks/results/NAME.json with machine, versions and date."""
    result = {
        "benchmark": name,
        "date": datetime.date.today().isoformat(),
        "threads": torch.get_num_threads(),
        "hardware": hardware(torch.device("cpu")),
        "software": software(),
        "figures": figures,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(figures, indent=1))
