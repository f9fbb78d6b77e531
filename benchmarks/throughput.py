"""Training from images to updated weights, beside torchdistill: images a second of both, with their own input side.

    python benchmarks/throughput.py [METHOD ...] [--pairs 6] [--steps 30]

Both train small/resnet20 under small/vit on the same 50,000 images of 32 px, batch 128, in the same precision, with the same
optimiser and clipping. Ours is the loop's step: images that stay in memory, augmented as one batch. Theirs is torchdistill's own
data set (for CRD its wrapper, which draws the negatives of each image), torchvision's transforms as its configurations for CIFAR have
them (random crop of the padded image, flip, to tensor), a DataLoader with as many workers as there are threads here, which stay
alive between blocks, and its losses; normalisation is left to the network, and hooks, logging and validation are left out of their
time. A block of steps of ours and one of theirs alternate.

`seconds_of_theirs`: our time for a block over theirs, with the teacher answering each batch (target: 1.0) and with its stored
answers, the time to store them added, spread over 5 students of 30 epochs (target: 1 / 1.3). To install torchdistill:
`pip install --group benchmarks`. With METHODs named, or fewer pairs or steps, nothing is written.
"""

import torchvision.datasets  # noqa: F401, I001 (torchdistill looks for it among the loaded modules)

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, RandomSampler
from torchdistill.datasets.wrapper import BaseDatasetWrapper, CRDDatasetWrapper
from torchdistill.losses.mid_level import CRDLoss
from torchdistill.models.wrapper import Normalizer4CRD
from torchvision import transforms

from counterparts import COUNTERPARTS, Ours, said
from crossdistill.core import registry
from crossdistill.core.types import Activations, ImageSet
from crossdistill.ops.memory import keep_freed_memory
from crossdistill.ops.modes import frozen
from crossdistill.train.objective import published_weights, trainable
from crossdistill.train.optimizers import make_optimizer
from crossdistill.train.precision import autocast
from method_cost import BATCH, CPU, PRECISION, RECIPE, SETTINGS, THREADS, TO_CNN, images, made
from protocol import paired_ratio, save_result
from steps import network
from teacher_cache import random_answers, steps_of, storing

PAIRS, STEPS, WARM_UPS = 6, 30, 1
METHODS = ("kd", "crd")
STUDENTS, EPOCHS, STORED_SHARDS = 5, 30, 2
LIVE_TARGET, CACHED_TARGET = 1.0, 1 / 1.3

TheirLoss = Callable[[Tensor, dict[str, Tensor], Activations, Activations], Tensor]
"""(labels, what their data set gives beside them, student, teacher) -> the weighted loss."""


class AsCifar(Dataset[Any]):
    """The images as torchvision's CIFAR gives them: one by one from PIL, transformed."""

    def __init__(self, data: ImageSet) -> None:
        self.pixels = np.ascontiguousarray(data.images.transpose(0, 2, 3, 1))
        self.targets, self.classes = data.labels.tolist(), list(data.class_names)
        self.transform = transforms.Compose([
            transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), transforms.ToTensor()
        ])  # fmt: skip

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.pixels[i])), self.targets[i]


def their_crd(settings: dict[str, Any], weight: float, n_images: int, widths: tuple[int, int]) -> tuple[TheirLoss, list[nn.Parameter]]:
    memory = CRDLoss(
        "normalizer", "empty", "normalizer", input_size=settings["dim"], output_size=n_images, num_samples=n_images,
        num_negative_samples=settings["n_negatives"], temperature=settings["temperature"], momentum=settings["momentum"],
    )  # fmt: skip
    student_embed, teacher_embed = (Normalizer4CRD(nn.Linear(width, settings["dim"])) for width in widths)

    def loss(labels: Tensor, rows: dict[str, Tensor], student: Activations, teacher: Activations) -> Tensor:
        learnt = {**said(normalizer=student_embed(student.pooled)), "empty": {"input": rows}}
        contrast = memory(learnt, said(normalizer=teacher_embed(teacher.pooled))).sum()
        return nn.functional.cross_entropy(student.logits, labels) + weight * contrast

    return loss, [*student_embed.parameters(), *teacher_embed.parameters()]


def their_kd(settings: dict[str, Any], weights: Any, n_images: int, widths: tuple[int, int]) -> tuple[TheirLoss, list[nn.Parameter]]:
    loss, parameters = COUNTERPARTS["kd"](Ours(settings, weights, widths, n_images, torch.arange(0)))
    return lambda labels, _, student, teacher: loss(SimpleNamespace(labels=labels), student, teacher), parameters  # type: ignore[arg-type]


def their_step(name: str, data: ImageSet, steps: int) -> Callable[[], None]:
    """A step of theirs on the next batch of their data loader."""
    plugin = registry.get("method", name)
    settings, weights = plugin.complete(SETTINGS.get(name, {})), published_weights(plugin, SETTINGS.get(name, {}))
    teacher, student = frozen(network(TO_CNN[0])), network(TO_CNN[1]).train()
    widths = student.shapes()["pooled"][0], teacher.shapes()["pooled"][0]
    plain = AsCifar(data)
    if name == "crd":
        source: Any = CRDDatasetWrapper(plain, settings["n_negatives"], "exact", 1.0)
        loss, beside = their_crd(settings, weights["crd"], len(data), widths)
    else:
        source = BaseDatasetWrapper(plain)
        loss, beside = their_kd(settings, weights, len(data), widths)
    taps = ("pooled",) if name == "crd" else ()
    parameters = trainable([*student.parameters(), *beside])
    optimizer = make_optimizer(parameters, RECIPE, modules=[student])
    sampler = RandomSampler(source, num_samples=steps * BATCH)
    loader = DataLoader(source, BATCH, sampler=sampler, num_workers=THREADS, drop_last=True, persistent_workers=True)

    def batches() -> Iterator[Any]:
        while True:
            yield from loader

    each = batches()

    def step() -> None:
        shown, labels, rows = next(each)
        with autocast(PRECISION, CPU):
            with torch.no_grad():
                taught = teacher(shown, taps=taps)
            learnt = student(shown, taps=taps)
        loss(labels, rows, learnt, taught).backward()
        torch.nn.utils.clip_grad_norm_(parameters, RECIPE.clip_norm or torch.inf)
        optimizer.step()
        optimizer.zero_grad()

    return step


def block(step: Callable[[], object], steps: int) -> Callable[[], None]:
    def run() -> None:
        for _ in range(steps):
            step()

    return run


def beside(ours: Callable[[], None], theirs: Callable[[], None], pairs: int, target: float, more: float = 0.0) -> dict[str, Any]:
    """Our seconds for a block over theirs, `more` seconds added to each of ours."""
    ratio = paired_ratio(ours, theirs, pairs=pairs, warm_ups=WARM_UPS)
    added = more / (ratio["b_milliseconds"] / 1e3)  # of their median, in which the interval is taken to move as a whole
    moved = {name: ratio[name] + added for name in ("ratio", "low", "high")}
    return {**ratio, **moved, "times_as_fast": 1 / moved["ratio"], "target": target, "met": moved["low"] <= target}


def measured(name: str, data: ImageSet, pairs: int, steps: int) -> dict[str, Any]:
    live, cached = (made(name, TO_CNN, data).training for _ in range(2))
    theirs = block(their_step(name, data, steps), steps)
    taps = cached.objective.needs.teacher_taps
    cost = storing(data, taps, STORED_SHARDS)
    spread = cost["seconds"] / (STUDENTS * EPOCHS * (len(data) // BATCH)) * steps
    with tempfile.TemporaryDirectory() as folder:
        cached.answers = random_answers(data, taps, Path(folder))
        rows = {
            "live": beside(block(steps_of(live), steps), theirs, pairs, LIVE_TARGET),
            "cached": beside(block(steps_of(cached), steps), theirs, pairs, CACHED_TARGET, more=spread),
        }
    for how, row in rows.items():
        seconds = {"ours": row["a_milliseconds"] / 1e3 + (spread if how == "cached" else 0.0), "theirs": row["b_milliseconds"] / 1e3}
        row["images_per_second"] = {who: steps * BATCH / value for who, value in seconds.items()}
        print(f"{name}, {how}: {row['images_per_second']['ours']:,.0f} images/s beside torchdistill's "
              f"{row['images_per_second']['theirs']:,.0f}: {row['times_as_fast']:.2f} times as fast ({1 / row['high']:.2f} to "
              f"{1 / row['low']:.2f}), target {1 / row['target']:.2f} {'met' if row['met'] else 'NOT met'}", flush=True)  # fmt: skip
    return {**{f"seconds_of_theirs_{how}": row for how, row in rows.items()}, "storing": cost}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("methods", nargs="*", metavar="METHOD", help=f"{', '.join(METHODS)} where none is named")
    parser.add_argument("--pairs", type=int, default=PAIRS, help="pairs of blocks; %(default)s where not said")
    parser.add_argument("--steps", type=int, default=STEPS, help="steps of a block; %(default)s where not said")
    asked = parser.parse_args()
    torch.set_num_threads(THREADS)
    keep_freed_memory()  # as `Training.run` does
    data = images()
    methods = {name: measured(name, data, asked.pairs, asked.steps) for name in asked.methods or METHODS}
    found = {
        "teacher": TO_CNN[0], "student": TO_CNN[1], "batch": BATCH, "images": len(data), "pixels": 32, "precision": PRECISION,
        "steps_of_a_block": asked.steps, "students": STUDENTS, "epochs": EPOCHS, "workers_of_theirs": THREADS, "settings": SETTINGS,
        "torchdistill": version("torchdistill"), "methods": methods,
    }  # fmt: skip
    if asked.methods or asked.pairs < PAIRS or asked.steps < STEPS:
        print(json.dumps(found, indent=1))
    else:
        save_result("throughput", found)


if __name__ == "__main__":
    main()
