"""Two finished runs of one study, by different executors: are their tables the same bytes, and what did each executor cost?

    crossdistill study run studies/two_directions.yaml --out local
    crossdistill study run studies/two_directions.yaml --out ray --executor ray --address local --jobs 1
    python benchmarks/two_runs.py local ray

Each in a store of its own (`--store`, or CROSSDISTILL_CACHE). `overhead`: the total of the run less the seconds of its images, probes,
trainings, observations, tables and page; of one training at a time. Python's start is not in it. Target: 2 % of the total.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from protocol import save_result

TARGET = 0.02


def phases(folder: Path) -> dict[str, Any]:
    """Seconds of each phase of a run, and what is in none of its tasks."""
    found = json.loads((folder / "phases.json").read_text())
    seconds = found["timing"]
    timings = [json.loads(path.read_text())["timing"] for path in (folder / "timings").glob("*.json")]
    trained, observed = (sum(timing[name] for timing in timings) for name in ("training", "observation"))
    overhead = seconds["total"] - trained - observed - sum(seconds[name] for name in ("images", "probes", "tables", "page"))
    share = overhead / seconds["total"]
    return {
        "executor": found["executor"], "jobs": found["jobs"], "networks": len(timings), "seconds": seconds, "training": trained,
        "observation": observed, "overhead": overhead, "overhead_share": share, "target": TARGET, "met": share <= TARGET,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folders", type=Path, nargs=2)
    first, second = parser.parse_args().folders
    tables = sorted(path.name for path in first.glob("*.parquet"))
    save_result("two_runs", {
        "study": (first / "study.yaml").read_text().splitlines()[0],
        "runs": [phases(first), phases(second)],
        "tables_equal": {name: (first / name).read_bytes() == (second / name).read_bytes() for name in tables},
    })  # fmt: skip


if __name__ == "__main__":
    main()
