"""One protocol for every ratio: A and B alternate step by step in one process, so that a machine's drift meets both alike.

At least 40 pairs after 5 warm-ups; the figure is the median of the paired ratios A/B with a bootstrap 95 % interval, and a
target is met where the interval's lower bound is within it. Networks, batch size and threads stand in the result.
"""

import datetime
import json
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
