"""How fast probe sets are built: superpixels beside a plain-Python SLIC and beside scikit-image in a loop, and 10,000 images a probe.

    python benchmarks/probes.py --images parquet:PATH [--count 10000] [--name "CIFAR-10, JPEG copy"]

`slic`: one photograph at 330 x 330 px by an unoptimised loop over pixels (100 segments, 2 iterations), over our superpixels of the
same photograph at the same size, segments and iterations, and of a 32-px image. The loop is only a measure: what it takes stands
in the result, and outside 15 to 40 s the ratios are not to be trusted. Then scikit-image called for one
image after the other, all training images of the source, over the whole build of their probe set on all cores, in 3 pairs.

`seconds`: one level and one draw of `count` training images of the source through `build_probe_set`, hashing, writing and preview
included. Run it on a machine that does nothing else.
"""

import argparse
import math
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from crossdistill.core.types import ImageSet
from crossdistill.images._splits import load_splits, parse_source, stratified_rows
from crossdistill.probes._build import build_probe_set
from crossdistill.probes.superpixel import superpixel
from protocol import paired_ratio, save_result

SIDE, SEGMENTS, ITERATIONS, COMPACTNESS = 330, 100, 2, 20
LOOP_SECONDS = (15, 40)  # what the plain loop may take for its ratios to count
BUILDS: dict[str, tuple[dict[str, Any], float]] = {  # level, seconds that are allowed for 10,000 images
    "localized_noise": ({"fraction": 0.2, "sigma": 0.5}, 2),
    "scramble": ({"grid": 4}, 2),
    "low_pass": ({"radius": 6}, 2),
    "high_pass": ({"radius": 6}, 2),
    "shift": ({"pixels": 2}, 2),
    "superpixel": ({"n_segments": 36}, 30),
}


def photograph(side: int) -> np.ndarray:
    """scikit-image's cat, square: uint8 [side, side, 3]."""
    from PIL import Image
    from skimage.data import chelsea

    cat = chelsea()
    return np.asarray(Image.fromarray(cat[:, 75 : 75 + len(cat)]).resize((side, side), Image.Resampling.BOX))


class Centre:
    """A cluster of the plain loop."""

    def __init__(self, row: int, column: int, colour: np.ndarray) -> None:
        self.row, self.column, self.colour = row, column, colour
        self.pixels: list[tuple[int, int]] = []


def plain_slic(image: np.ndarray, n_segments: int, iterations: int) -> list[Centre]:
    """SLIC as its description reads, a pixel at a time: assign within twice the step around each centre, then move the centres."""
    from skimage.color import rgb2lab

    lab = rgb2lab(image)
    height, width = lab.shape[:2]
    step = int(math.sqrt(height * width / n_segments))
    starts = [(row, column) for row in range(step // 2, height, step) for column in range(step // 2, width, step)]
    centres = [Centre(row, column, lab[row][column]) for row, column in starts]
    nearest: dict[tuple[int, int], Centre] = {}
    distance = np.full((height, width), np.inf)
    for _ in range(iterations):
        for centre in centres:
            for row in range(max(centre.row - 2 * step, 0), min(centre.row + 2 * step, height)):
                for column in range(max(centre.column - 2 * step, 0), min(centre.column + 2 * step, width)):
                    lightness, a, b = lab[row][column]
                    colour = math.sqrt((lightness - centre.colour[0]) ** 2 + (a - centre.colour[1]) ** 2 + (b - centre.colour[2]) ** 2)
                    space = math.sqrt((row - centre.row) ** 2 + (column - centre.column) ** 2)
                    whole = math.sqrt((colour / COMPACTNESS) ** 2 + (space / step) ** 2)
                    if whole < distance[row][column]:
                        if (row, column) in nearest:
                            nearest[row, column].pixels.remove((row, column))
                        nearest[row, column] = centre
                        centre.pixels.append((row, column))
                        distance[row][column] = whole
        for centre in centres:
            if centre.pixels:
                centre.row = sum(row for row, _ in centre.pixels) // len(centre.pixels)
                centre.column = sum(column for _, column in centre.pixels) // len(centre.pixels)
                centre.colour = lab[centre.row][centre.column]
    return centres


def seconds_of(call: Any) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def one_by_one(images: ImageSet) -> None:
    """scikit-image's segments of every image, which is not all that a probe set takes."""
    from skimage.segmentation import slic

    for image in images.images:
        slic(image.transpose(1, 2, 0), n_segments=36, compactness=10, start_label=1, channel_axis=-1)


def built(images: ImageSet) -> None:
    with tempfile.TemporaryDirectory() as folder:
        build_probe_set("superpixel", images, levels=[{"n_segments": 36}], folder=Path(folder))


def slic_figures(many: ImageSet) -> dict[str, Any]:
    """The plain loop on one photograph against ours per image, and scikit-image in a loop against a whole build."""
    large = photograph(SIDE)
    loop = seconds_of(lambda: plain_slic(large, SEGMENTS, ITERATIONS))
    trusted = LOOP_SECONDS[0] <= loop <= LOOP_SECONDS[1]
    print(
        f"plain loop: {loop:.1f} s for one image of {SIDE} px" + ("" if trusted else f", outside {LOOP_SECONDS}: its ratios do not count")
    )

    batch = np.repeat(large.transpose(2, 0, 1)[None], 16, axis=0)
    labels = np.zeros(len(batch), np.int64)
    ours = min(seconds_of(lambda: superpixel(batch, labels, n_segments=SEGMENTS, iterations=ITERATIONS)) for _ in range(5)) / len(batch)
    few, few_labels = np.asarray(many.images[:512]), np.zeros(512, np.int64)
    ours_small = min(seconds_of(lambda: superpixel(few, few_labels, n_segments=36)) for _ in range(5)) / len(few)
    over_loop = paired_ratio(lambda: one_by_one(many), lambda: built(many), pairs=3, warm_ups=0)
    figures = {
        "plain_loop_seconds": loop,
        "plain_loop_counts": trusted,
        "our_milliseconds": {f"{SIDE} px": 1e3 * ours, "32 px": 1e3 * ours_small},
        "plain_over_ours": {"same image, segments and iterations": loop / ours, "our 32-px image": loop / ours_small},
        "targets": {"same image, segments and iterations": 300, "our 32-px image": 5000, "scikit-image one by one over our build": 1.5},
        "scikit_image_one_by_one_over_our_build": {"images": len(many), **over_loop},
    }
    print(f"plain loop over ours: {loop / ours:,.0f} at {SIDE} px (target 300), {loop / ours_small:,.0f} at 32 px (target 5,000)")
    print(
        f"scikit-image one by one over our build: {over_loop['ratio']:.2f} ({over_loop['low']:.2f} to {over_loop['high']:.2f}), target 1.5"
    )
    return figures


def build_seconds(images: ImageSet) -> dict[str, Any]:
    """Seconds of one level and draw of each probe, built to disk."""
    found: dict[str, Any] = {}
    for name, (level, allowed) in BUILDS.items():
        with tempfile.TemporaryDirectory() as folder:
            taken = seconds_of(lambda name=name, level=level, folder=folder: build_probe_set(
                name, images, levels=[level], draws=1, folder=Path(folder)))  # fmt: skip
        met = taken <= allowed * len(images) / 10_000
        found[name] = {"level": level, "seconds": taken, "target": allowed, "met": met}
        print(f"{name} {level}: {taken:.2f} s for {len(images):,} images, target {allowed} s for 10,000: {'met' if met else 'NOT met'}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--images", required=True, help="a source of images of 32 px, such as parquet:PATH")
    parser.add_argument("--count", type=int, default=10_000, help="training images that are built; default %(default)s")
    parser.add_argument("--name", help="what the result calls the images (default: the kind of source)")
    asked = parser.parse_args()
    source, settings = parse_source(asked.images)
    train = load_splits(source, settings).train
    images = train.subset(stratified_rows(np.asarray(train.labels), asked.count, "benchmark", "probes"))
    figures = {"images": asked.name or source, "count": len(images), "size": list(images.size)}
    save_result("probes", figures | {"seconds": build_seconds(images), "slic": slic_figures(train)})


if __name__ == "__main__":
    main()
