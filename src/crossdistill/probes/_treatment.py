"""Applying a probe to rows of an image set, here or in worker processes; its bytes do not depend on where."""

import os
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from crossdistill.core.progress import Stopwatch
from crossdistill.core.registry import Plugin, as_plugin
from crossdistill.core.types import ImageSet, ProbeImages
from crossdistill.core.workers import CannotWork, Workers
from crossdistill.probes._array_file import ArrayFile
from crossdistill.probes._recipe import Level, Recipe
from crossdistill.probes._supplies import CALLABLES, COMPANIONS, HOW_TO_GET, StoredRows, Supplies

BLOCK_BYTES = 2**22  # of clean images handed to a probe at once: several blocks for each core, and little memory for each worker
WORTH_WORKERS = 3.0  # seconds of work left; starting worker processes takes about one


@dataclass(frozen=True)
class Job:
    """A block of rows at one level and draw."""

    level: int
    draw: int
    seed: int
    start: int
    stop: int


def blocks(images: ImageSet, size: int | None, start: int = 0) -> Iterator[range]:
    """The rows from `start` on in blocks of `size`, or of as many as make a good amount of work."""
    rows = size or max(1, BLOCK_BYTES // (3 * images.size[0] * images.size[1]))
    for first in range(start, len(images), rows):
        yield range(first, min(first + rows, len(images)))


def apply_probe(plugin: Plugin, level: Level, images: ImageSet, rows: np.ndarray, seed: int, supplies: Supplies) -> ProbeImages:
    """Call the probe on some rows of the images with what its positional parameters name, and hold it to its contract."""
    block = images.subset(rows)
    given = {"images": block.images, "labels": block.labels, "index": rows, "seed": seed, "image_set": block, "pool": images}
    given |= {name: supplies[supply].of for name, supply in CALLABLES.items() if supply in supplies}
    given |= {name: supplies[supply].labels for name, supply in COMPANIONS.items() if supply in supplies}
    unknown = [name for name in plugin.inputs if name not in given and name not in supplies]
    if unknown:
        raise TypeError(f"probe '{plugin.name}' asks for {', '.join(unknown)}; what can be supplied: {', '.join([*given, *HOW_TO_GET])}")
    made = plugin.function(*(given[name] if name in given else supplies[name].of(block) for name in plugin.inputs), **level)
    if made.images.dtype != np.uint8 or made.images.shape[:2] != (len(made.kept_index), 3):
        raise ValueError(f"probe '{plugin.name}' must return uint8 [kept, 3, height, width], got {made.images.dtype} {made.images.shape}")
    if not np.array_equal(made.labels, block.labels[made.kept_index]):
        raise ValueError(f"probe '{plugin.name}' returned labels that are not those of the images it kept")
    return made


@dataclass(frozen=True)
class Treatment:
    """A probe with its levels, images and supplies: what a job is given to."""

    recipe: Recipe
    images: ImageSet
    supplies: Supplies

    def __call__(self, level: int, seed: int, start: int, stop: int) -> ProbeImages:
        rows = np.arange(start, stop)
        return apply_probe(self.recipe.plugin, self.recipe.levels[level], self.images, rows, seed, self.supplies)


def treated(treatment: Treatment, jobs: Sequence[Job], n_workers: int | None, folder: Path) -> Generator[tuple[Job, ProbeImages]]:
    """Each job, in order, with what came of it.

    `n_workers` processes share the work; None: as many as there are cores, once so much work is left that it is worth their
    start. A probe whose bytes depend on its company, or on an encoder, stays in this process, whose threads it uses.
    Images in memory are written to `folder` for the workers to read.
    """
    if not _can_be_sent(treatment):
        n_workers = 1
    watch = Stopwatch()
    for number, job in enumerate(jobs):
        if number == 1:
            watch = Stopwatch()  # anew, since the first job also imports what the probe needs
        left = (len(jobs) - number) * watch.seconds / (number - 1) if number > 1 else 0.0
        n = (_cores() if left > WORTH_WORKERS else 1) if n_workers is None else n_workers
        if n > 1:
            try:
                with _workers(min(n, len(jobs)), treatment, folder) as workers:
                    todo = jobs[number:]
                    yield from zip(todo, workers.map((job.level, job.seed, job.start, job.stop) for job in todo), strict=True)
                return
            except CannotWork:  # a probe of someone's script or test, which no other process can import
                n_workers = 1
        yield job, treatment(job.level, job.seed, job.start, job.stop)


def _cores() -> int:
    return getattr(os, "process_cpu_count", os.cpu_count)() or 1


def _can_be_sent(treatment: Treatment) -> bool:
    together = treatment.recipe.plugin.facts["block"] is not None
    return not together and all(isinstance(supply.of, StoredRows) for supply in treatment.supplies.values())


def _workers(n: int, treatment: Treatment, folder: Path) -> Workers:
    plugin, images = treatment.recipe.plugin, treatment.images
    columns = (images.labels, images.ids, images.class_names, dict(images.provenance), dict(images.factors))
    recipe = (plugin.name, plugin.function, treatment.recipe.levels, treatment.recipe.draws)
    return Workers(n, _sent, recipe, _file_of(images.images, folder), columns, dict(treatment.supplies))


def _sent(recipe: tuple[Any, ...], pixels: Path, columns: tuple[Any, ...], supplies: Supplies) -> Treatment:
    """The treatment again, in a worker process."""
    name, function, levels, draws = recipe
    images = ImageSet(np.load(pixels, mmap_mode="r"), *columns)
    return Treatment(Recipe(as_plugin(name, function), levels, draws), images, supplies)


def _file_of(pixels: np.ndarray, folder: Path) -> Path:
    """A .npy file with these pixels: that which they are mapped from, or one written to the folder."""
    # What is written into a mapping of mode "c" stays in memory: the file does not have it.
    mapped = pixels.filename if isinstance(pixels, np.memmap) and pixels.mode != "c" else None
    if mapped and pixels.flags.c_contiguous and Path(mapped).suffix == ".npy":
        whole = np.load(mapped, mmap_mode="r")
        # Equal shape, order and size: a view that is all of the file.
        if whole.shape == pixels.shape and whole.flags.c_contiguous and whole.dtype == pixels.dtype:
            return Path(mapped)
    file = ArrayFile(folder / "clean-images.npy")
    rows = max(1, BLOCK_BYTES // max(1, pixels[:1].nbytes))
    for start in range(0, len(pixels), rows):
        file.append(pixels[start : start + rows])
    file.complete()
    return file.path
