"""What one GPU gives: images a second, fraction of its peak, seconds an epoch beside the published ones, and whether a step waits.

    python benchmarks/gpu.py [--peak TFLOPS] [--batch 32] [--steps 30] [--compile] [--only PART ...]
    python benchmarks/gpu.py --dry-run

Without a CUDA device it says so and ends with exit code 2; `--dry-run` goes through all of it on a CPU at toy sizes and writes nothing.
Every figure is a median over blocks of steps of the training loop, after warm-ups, with the device waited for at a block's ends.

`large`: kd from ViT-B/16 to ResNet-50 at 224 px, batch 256, bf16. `fraction_of_peak` is operations of a step as torch's FlopCounter
counts them (forward and backward, both networks) over its time and the card's dense bf16 peak, known by name or given as TFLOPS.
`small`: kd from small/vit to small/resnet20 at 32 px, batch 128 and 1024.
`epochs`: 50,000 images of 224 px at batch 32, as the study did that this one follows, with a ResNet-50 and a ViT-B/16; its seconds an
epoch stand beside (there the backbones were frozen, here they train; goal: 20 times faster).
`waiting`: one step of every method with torch.cuda.set_sync_debug_mode("error"): it fails at whatever waits for the device.
"""

import argparse
import json
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from crossdistill.core import registry
from crossdistill.core.errors import SettingError
from crossdistill.core.recipe import TrainingConfig
from crossdistill.core.types import ImageSet
from crossdistill.models._build import build_network
from crossdistill.ops.modes import frozen
from crossdistill.study.networks import placed
from crossdistill.train.loop import Training
from crossdistill.train.objective import make_objective, published_weights
from protocol import save_result

PEAKS = {"H100": 989.0, "H200": 989.0, "A100": 312.0}  # dense bf16 TFLOPS; SXM modules
PUBLISHED = {  # seconds an epoch
    "CNN -> ViT": {"kd": 816, "crd": 1748, "vlfkd": 1604, "cskd": 756},
    "ViT -> CNN": {"kd": 604, "crd": 919, "capd": 2514, "sskd": 3595},
}
TIMES_FASTER = 20
PARTS = ("large", "small", "epochs", "waiting")
WARM_UPS, BLOCKS = 5, 5
CLASSES = 10


@dataclass(frozen=True)
class Scale:
    """How large everything is."""

    device: torch.device
    cnn: str = "timm/resnet50"
    vit: str = "timm/vit_base_patch16_224"
    side: int = 224
    large_batch: int = 256
    small_batches: tuple[int, ...] = (128, 1024)
    epoch_images: int = 50_000
    epoch_batch: int = 32
    steps: int = 30
    compile: bool = False
    peak: float | None = None  # operations a second


def toy() -> Scale:
    return Scale(torch.device("cpu"), "small/resnet8", "small/vit", 32, 8, (8,), 64, 8, BLOCKS)


def images(count: int, side: int) -> ImageSet:
    random = np.random.default_rng(0)
    pixels = np.frombuffer(random.bytes(count * 3 * side * side), np.uint8).reshape(count, 3, side, side)
    return ImageSet(pixels, np.arange(count) % CLASSES, np.arange(count).astype(str), tuple(map(str, range(CLASSES))))


def training(name: str, teacher: str, student: str, data: ImageSet, batch: int, scale: Scale) -> Training:
    """A training by that method; raises SettingError where it refuses the pair."""
    plugin = registry.get("method", name)
    settings = plugin.complete({})
    made = []
    for model in (teacher, student):
        torch.manual_seed(0)
        made.append(build_network(model, CLASSES, data.size))
    if prepare := plugin.facts["prepare_student"]:
        prepare(made[1], settings)
    teaching, learning = frozen(placed(made[0], scale.device)), placed(made[1], scale.device)
    warm_up = plugin.facts["warm_up"]
    warm = frozen(warm_up.make(teaching, settings).to(scale.device)) if warm_up else None
    objective = make_objective(
        plugin, {}, published_weights(plugin, settings), student=learning, teacher=teaching, images=data, rng=torch.Generator(), warm=warm
    )
    recipe = TrainingConfig(epochs=1000, batch_size=batch, compile=scale.compile)
    return Training(
        learning, data, data.subset(np.arange(CLASSES)), recipe, who=(0, "student", 0), folder=Path(tempfile.mkdtemp()),
        objective=objective, teacher=teaching, device=scale.device,
    )  # fmt: skip


def timed(run: Training, scale: Scale) -> dict[str, Any]:
    """Seconds and images a second of a step, the operations that it takes, and their share of the peak."""
    order = run.batches.order(0).split(run.batch_size)[: run.steps_per_epoch]
    at = iter(range(sys.maxsize))
    step: Callable[[], None] = lambda: run.step(order[next(at) % len(order)], 0)  # noqa: E731
    for _ in range(min(WARM_UPS, scale.steps)):
        step()
    per_block = max(1, scale.steps // BLOCKS)
    seconds = [_block(step, per_block, scale.device) for _ in range(BLOCKS)]
    with FlopCounterMode(display=False) as counted:
        step()
    median, operations = float(np.median(seconds)), counted.get_total_flops()
    return {
        "batch": run.batch_size,
        "precision": run.precision,
        "milliseconds": 1e3 * median,
        "slowest_milliseconds": 1e3 * max(seconds),
        "images_per_second": run.batch_size / median,
        "operations_per_step": operations,
        "fraction_of_peak": operations / median / scale.peak if scale.peak else None,
        "notes": run.network.notes,
    }


def _block(step: Callable[[], None], steps: int, device: torch.device) -> float:
    """Seconds of a step, the mean of a block."""
    _wait(device)
    start = time.perf_counter()
    for _ in range(steps):
        step()
    _wait(device)
    return (time.perf_counter() - start) / steps


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def large(scale: Scale) -> dict[str, Any]:
    data = images(8 * scale.large_batch, scale.side)
    return {
        "teacher": scale.vit,
        "student": scale.cnn,
        **timed(training("kd", scale.vit, scale.cnn, data, scale.large_batch, scale), scale),
    }


def small(scale: Scale) -> list[dict[str, Any]]:
    data, pair = images(8 * max(scale.small_batches), 32), ("small/vit", "small/resnet20")
    rows = [timed(training("kd", *pair, data, batch, scale), scale) for batch in scale.small_batches]
    return [{"teacher": pair[0], "student": pair[1], **row} for row in rows]


def epochs(scale: Scale) -> list[dict[str, Any]]:
    data = images(scale.epoch_images, scale.side)
    rows = []
    for direction, published in PUBLISHED.items():
        pair = (scale.cnn, scale.vit) if direction.startswith("CNN") else (scale.vit, scale.cnn)
        for name, their_seconds in published.items():
            row = timed(training(name, *pair, data, scale.epoch_batch, scale), scale)
            ours = 50_000 / row["images_per_second"]
            rows.append({"method": name, "direction": direction, **row, "seconds_an_epoch": ours, "published_seconds": their_seconds,
                         "times_faster": their_seconds / ours, "met": their_seconds / ours >= TIMES_FASTER})  # fmt: skip
            print(f"{name}, {direction}: {ours:,.0f} s an epoch beside {their_seconds:,}", flush=True)
            _give_back(scale.device)
    return rows


def waiting(scale: Scale) -> dict[str, str]:
    """What each method's step waits at; "nothing" is as it should be. A CPU tells nothing: there, that the step runs."""
    data = images(64, 32)
    found = {}
    for name in registry.names("method"):
        for pair in (("small/vit", "small/resnet8"), ("small/resnet8", "small/vit")):
            try:
                run = training(name, *pair, data, 8, scale)
            except SettingError as error:
                found[f"{name}, {pair[0]} to {pair[1]}"] = f"refused: {error}"
                continue
            found[f"{name}, {pair[0]} to {pair[1]}"] = _waits_at(run, scale.device)
    return found


def _waits_at(run: Training, device: torch.device) -> str:
    order = run.batches.order(0).split(run.batch_size)
    run.step(order[0], 0)  # compiles, fills tables and looks at the losses, which may wait
    before = torch.cuda.get_sync_debug_mode() if device.type == "cuda" else 0
    try:
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("error")
        run.step(order[1], 0)
    except RuntimeError as error:
        own = [frame for frame in traceback.extract_tb(error.__traceback__) if "crossdistill" in frame.filename]
        return f"{Path(own[-1].filename).name}:{own[-1].lineno}: {str(error).splitlines()[0]}"
    finally:
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode(before)
    return "nothing"


def _give_back(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()


def known_peak(device_name: str, given: float | None) -> float | None:
    """Operations a second: the TFLOPS given, or those of a card known by name; None for another."""
    tera = given or next((peak for name, peak in PEAKS.items() if name in device_name), None)
    return None if tera is None else tera * 1e12


def figures(scale: Scale, parts: Iterable[str]) -> dict[str, Any]:
    measure: dict[str, Callable[[Scale], Any]] = {"large": large, "small": small, "epochs": epochs, "waiting": waiting}
    found = {}
    for part in parts:
        found[part] = measure[part](scale)
        _give_back(scale.device)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--dry-run", action="store_true", help="on a CPU, at toy sizes; writes nothing")
    parser.add_argument("--peak", type=float, metavar="TFLOPS", help=f"dense bf16; by name where not given: {PEAKS}")
    parser.add_argument("--batch", type=int, default=Scale.epoch_batch, help="of the epochs; %(default)s where not said")
    parser.add_argument("--steps", type=int, default=Scale.steps, help="of each figure; %(default)s where not said")
    parser.add_argument("--compile", action="store_true", help="the students by torch.compile")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to measure; then nothing is written")
    asked = parser.parse_args()
    if asked.dry_run:
        print(json.dumps(figures(toy(), asked.only), indent=1))
        return 0
    if not torch.cuda.is_available():
        print("this benchmark needs a CUDA device, and torch finds none: run it on a GPU machine, or see it work with --dry-run")
        return 2
    name = torch.cuda.get_device_name()
    scale = Scale(
        torch.device("cuda"), epoch_batch=asked.batch, steps=asked.steps, compile=asked.compile, peak=known_peak(name, asked.peak)
    )
    found = {"device": name, "peak_tflops": scale.peak and scale.peak / 1e12, "compile": asked.compile, **figures(scale, asked.only)}
    if asked.only != PARTS or asked.steps < Scale.steps:
        print(json.dumps(found, indent=1))
    else:
        save_result("gpu_compiled" if asked.compile else "gpu", found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
