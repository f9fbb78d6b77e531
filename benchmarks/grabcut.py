"""How long GrabCut takes to cut the silhouettes of 10,000 small images, from pixels to the finished probe set.

    python benchmarks/grabcut.py --images parquet:PATH [--count 10000] [--name "CIFAR-10, JPEG copy"]

Masks are cut at 128 pixels a side, on all cores. Target: 10 minutes for 10,000 images on 2 cores that do nothing else.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np

from crossdistill.core import registry
from crossdistill.images._splits import load_splits, parse_source, stratified_rows
from crossdistill.probes._build import build_probe_set
from crossdistill.study.supplies import supplies_for
from protocol import save_result

ALLOWED_SECONDS = 600  # for 10,000 images


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--images", required=True, help="a source, such as parquet:PATH")
    parser.add_argument("--count", type=int, default=10_000, help="training images that are cut; default %(default)s")
    parser.add_argument("--name", help="what the result calls the images (default: the kind of source)")
    asked = parser.parse_args()
    source, settings = parse_source(asked.images)
    train = load_splits(source, settings).train
    images = train.subset(stratified_rows(np.asarray(train.labels), asked.count, "benchmark", "grabcut"))
    with tempfile.TemporaryDirectory() as folder:
        os.environ["CROSSDISTILL_CACHE"] = folder  # masks are kept in the cache: here they are made
        start = time.perf_counter()
        supplies = supplies_for(registry.get("probe", "silhouette"), images, masks="grabcut", store=Path(folder))
        made = build_probe_set("silhouette", images, preset="full", folder=Path(folder), supplies=supplies)
        seconds = time.perf_counter() - start
        figures = {
            "images": asked.name or source,
            "count": len(images),
            "size": list(images.size),
            "kept": len(made.kept_index),
            "seconds": seconds,
            "target": ALLOWED_SECONDS,
            "met": seconds <= ALLOWED_SECONDS * len(images) / 10_000,
        }
    save_result("grabcut", figures)


if __name__ == "__main__":
    main()
