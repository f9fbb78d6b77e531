"""How long the command line and a cached image set take to start.

    python benchmarks/starts.py

Targets: `crossdistill --help` under 0.3 s, `crossdistill list methods` under 0.5 s (median of 9 whole processes); the second
start on 60,000 images of 32 px well under a second.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from crossdistill.images._splits import load_splits
from protocol import save_result

N_IMAGES = 60_000


def process_seconds(*arguments: str) -> float:
    """Median seconds of a whole process."""
    seconds = []
    for _ in range(9):
        start = time.perf_counter()
        subprocess.run([Path(sys.executable).parent / "crossdistill", *arguments], check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


def image_starts() -> dict[str, float]:
    """Seconds of the first and the second start on one parquet file of 60,000 PNG images."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["CROSSDISTILL_CACHE"] = f"{folder}/cache"
        path = Path(folder) / "train.parquet"
        write_images(path)
        seconds = []
        for _ in range(2):
            start = time.perf_counter()
            load_splits("parquet", {"path": str(path)})
            seconds.append(time.perf_counter() - start)
        return {"images": N_IMAGES, "first_seconds": seconds[0], "second_seconds": seconds[1]}


def write_images(path: Path) -> None:
    import io

    import duckdb
    from PIL import Image

    random = np.random.default_rng(0)
    encoded = []
    for _ in range(500):  # each stands 120 times in the file: encoding is not what is measured
        buffer = io.BytesIO()
        Image.fromarray(random.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(buffer, "PNG")
        encoded.append(buffer.getvalue())
    rows = {"image": np.array(encoded, dtype=object), "label": np.arange(500) % 10}
    with duckdb.connect() as connection:
        connection.register("rows", rows)
        connection.sql(f"SELECT image::BLOB AS image, label FROM rows, range({N_IMAGES // 500})").write_parquet(str(path))


if __name__ == "__main__":
    save_result(
        "starts",
        {
            "help_seconds": process_seconds("--help"),
            "list_methods_seconds": process_seconds("list", "methods"),
            "parquet_images": image_starts(),
        },
    )
