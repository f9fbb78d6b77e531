"""What a network costs where it is used: file size, parameters, FLOPs, milliseconds an image; the teacher beside the student."""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from crossdistill.core.progress import Stopwatch
from crossdistill.export.onnx_file import onnx_answers
from crossdistill.export.program import random_images
from crossdistill.export.student import Student, Teacher
from crossdistill.ops.flops import forward_flops
from crossdistill.ops.network import Network
from crossdistill.stats import percentile_interval
from crossdistill.study.environment import hardware

BATCHES = (1, 64)
SECONDS = 1.5  # of measuring at each batch size, all networks together, once each has its fewest repeats
FEWEST, MOST, RESAMPLES = 7, 100, 1000

Call = Callable[[], object]


@dataclass(frozen=True)
class Timing:
    """Milliseconds an image: the median over repeated calls, and the bootstrap 95 % interval of that median."""

    runtime: str
    batch: int
    median_ms: float
    low_ms: float
    high_ms: float
    repeats: int


@dataclass(frozen=True)
class Cost:
    """What one network costs."""

    who: str  # "student" or "teacher"
    model: str
    parameters: int
    file_bytes: int  # of the weights as crossdistill keeps them
    flops: int | None  # of one image; a multiplication and an addition count as two; None: not known
    timings: tuple[Timing, ...]


def measured_costs(student: Student, teacher: Teacher, onnx: Path | None, device: torch.device) -> dict[str, Any]:
    """The contents of latency.json: the costs of student and teacher on this machine, and why the teacher is missing, if it is."""
    networks = {"student": (student.network, student.weights)}
    if teacher.network is not None and teacher.weights is not None:
        networks["teacher"] = (teacher.network, teacher.weights)
    timings = _timings({who: network for who, (network, _) in networks.items()}, student.size, onnx, device)
    costs = [
        Cost(
            who, network.model_name, network.n_parameters, os.path.getsize(weights), forward_flops(network),
            tuple(found for whose, found in timings if whose == who),
        )
        for who, (network, weights) in networks.items()
    ]  # fmt: skip
    return {
        "hardware": hardware(device),
        "threads": torch.get_num_threads(),
        "image_size": list(student.size),
        "precision": "float32",
        "interval": f"bootstrap 95 % of the median over repeats, {RESAMPLES} resamples",
        "costs": [asdict(cost) for cost in costs],
        "teacher_missing": teacher.missing,
    }


@torch.no_grad()
def _timings(
    networks: Mapping[str, Network], size: tuple[int, int], onnx: Path | None, device: torch.device
) -> list[tuple[str, Timing]]:  # fmt: skip
    """(who, timing) for each network and batch size. Networks take turns, so that a busy moment of the machine hits all of them."""
    found: list[tuple[str, Timing]] = []
    torch_name = f"torch eager, {device.type}"
    for batch in BATCHES:
        images = random_images(batch, size) / 255
        calls: dict[tuple[str, str], Call] = {
            (who, torch_name): _eager(network.to(device), images.to(device), device) for who, network in networks.items()
        }
        if onnx is not None:
            calls["student", "onnxruntime, cpu"] = _bound(onnx_answers(onnx), images)
        for (who, runtime), seconds in _seconds(calls).items():
            found.append((who, _timing(runtime, batch, 1000 * np.array(seconds) / batch)))
    for network in networks.values():
        network.cpu()
    return found


def _eager(network: Network, images: torch.Tensor, device: torch.device) -> Call:
    def call() -> None:
        network(images)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return call


def _bound(answers: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor) -> Call:
    return lambda: answers(images)


def _seconds(calls: Mapping[Any, Call]) -> dict[Any, list[float]]:
    """Seconds of each call, repeated in turn; the first round warms up and is not counted."""
    found: dict[Any, list[float]] = {name: [] for name in calls}
    watch = Stopwatch()
    for turn in range(MOST + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if turn:
                found[name].append(time.perf_counter() - start)
        if turn >= FEWEST and watch.seconds > SECONDS:
            break
    return found


def _timing(runtime: str, batch: int, milliseconds: np.ndarray) -> Timing:
    draws = np.random.default_rng(0).choice(milliseconds, (RESAMPLES, len(milliseconds)))
    low, high = percentile_interval(np.median(draws, axis=1))
    return Timing(runtime, batch, float(np.median(milliseconds)), low, high, len(milliseconds))


SIZE_COLUMNS = ("network", "model", "parameters", "weights file", "FLOPs an image")
TIMING_COLUMNS = ("network", "run by", "batch", "ms an image", "95 % interval", "repeats")


def size_rows(found: Mapping[str, Any]) -> list[list[str]]:
    """What the networks weigh, one row each, for the terminal and the card."""
    return [
        [cost["who"], cost["model"], f"{cost['parameters']:,}", f"{cost['file_bytes'] / 1e6:.2f} MB", _millions(cost["flops"])]
        for cost in found["costs"]
    ]


def _millions(flops: int | None) -> str:
    return "not known" if flops is None else f"{flops / 1e6:,.1f} M"


def timing_rows(found: Mapping[str, Any]) -> list[list[str]]:
    """How long the networks take, one row for each network, runtime and batch size."""
    return [
        [cost["who"], timing["runtime"], str(timing["batch"]), f"{timing['median_ms']:.3g}",
         f"{timing['low_ms']:.3g} to {timing['high_ms']:.3g}", str(timing["repeats"])]
        for cost in found["costs"]
        for timing in cost["timings"]
    ]  # fmt: skip


def conditions(found: Mapping[str, Any]) -> str:
    """Where the figures were measured, in one sentence."""
    machine, (height, width) = found["hardware"], found["image_size"]
    device = machine.get("device_name") or machine["processor"]
    threads = f"{found['threads']} thread{'s' if found['threads'] != 1 else ''}"
    return f"Measured on {device}, {threads}, float32, images of {height} x {width} px; a busy machine gives larger figures."
