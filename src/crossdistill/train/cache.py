"""One teacher's answers to every enumerated view of every training image, asked for once and read from then on.

Row view * images + image of each array is the answer to that view of that image; where a method shows further rows of it, such as
four rotations, they are a second axis. An answer that was stored is bit for bit the one that the teacher would give.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from crossdistill.core.errors import RunError
from crossdistill.core.progress import Progress
from crossdistill.core.seeds import permutation
from crossdistill.core.types import Activations, Batch, Views
from crossdistill.ops.random import image_keys
from crossdistill.train.augment import Augmentation
from crossdistill.train.batches import resident
from crossdistill.train.stored_arrays import RowSpec, StoredArrays, in_bytes
from crossdistill.train.teacher import LiveTeacher, from_arrays, named_arrays, restored, stored

LONG_READ = 2**30  # bytes to be checked that are worth a line
RESIDENT_SHARE = 4  # arrays of up to a quarter of a GPU's free memory are kept there


@dataclass(frozen=True)
class Asker:
    """Asks the teacher about rows of the arrays: view by view, as a training would show them.

    `views` are a method's own, which must not depend on their keys; `batch_size` is the number of images in each pass.
    """

    live: LiveTeacher
    images: Tensor  # uint8, on the device
    augment: Augmentation
    autocast: Callable[[], AbstractContextManager[Any]]
    views: Views | None = None
    batch_size: int = 128

    @property
    def n_rows(self) -> int:
        """Rows of the arrays: views times images."""
        assert self.augment.n_views is not None, "only enumerated views can be asked about"
        return self.augment.n_views * len(self.images)

    def __call__(self, rows: Tensor) -> dict[str, Tensor]:
        """The stored form of the answers to these rows: {name: [rows, rows of the method's views, ...]}."""
        index, view = rows % len(self.images), rows // len(self.images)
        shown = self.augment.view(self.images, index, view)
        if self.views is not None:
            shown = self.views(shown, image_keys(0, index))[1]
        with self.autocast():
            answer = self.live.answer(shown)
        found = named_arrays(answer)
        return {name: stored(value, self.live.dtype).unflatten(0, (len(rows), -1)) for name, value in found.items()}

    def specs(self) -> dict[str, RowSpec]:
        """What one row of each array is, from a pass of two rows."""
        answers = self(torch.arange(2, device=self.images.device) % self.n_rows)
        return {name: RowSpec(_numpy(value).dtype.str, tuple(value.shape[1:])) for name, value in answers.items()}

    def blocks(self, rows: range) -> Iterator[dict[str, np.ndarray]]:
        """The answers to consecutive rows in blocks of `batch_size`; the last pass is filled up, so that all are of one size."""
        for start in range(rows.start, rows.stop, self.batch_size):
            count = min(self.batch_size, rows.stop - start)
            asked = start + torch.arange(self.batch_size, device=self.images.device) % count
            yield {name: _numpy(value)[:count] for name, value in self(asked).items()}


def moved_bits(ask: Asker, n_batches: int = 16) -> float | None:
    """How far answers move with their place in a batch, None where not by a bit: a sample is asked in two orders.

    BLAS may multiply the rows at the border between two threads by other kernels. Such answers cannot stand in for live ones.
    """
    count = n_batches * ask.batch_size
    rows = torch.from_numpy(permutation(ask.n_rows, "sample of rows"))[:count].to(ask.images.device)
    order = torch.from_numpy(permutation(len(rows), "another order")).to(rows.device)
    pairs = zip(rows.split(ask.batch_size), rows[order].split(ask.batch_size), strict=True)
    found = [(ask(first), ask(second)) for first, second in pairs]
    apart = None
    for name in found[0][0]:
        straight, shuffled = (torch.cat([answers[side][name] for answers in found]) for side in (0, 1))
        if not same_bits(straight[order], shuffled):
            apart = max(apart or 0.0, float((straight[order] - shuffled).abs().max()))
    return apart


def _numpy(value: Tensor) -> np.ndarray:
    return value.cpu().numpy()


def make_whole(
    arrays: StoredArrays, ask: Asker, progress: Progress, description: str, *, beside: AbstractContextManager[Any] | None = None
) -> None:
    """Check what is stored, then ask the teacher for what is missing or damaged; `beside` is held while that goes on.

    Raises CannotStore where there is no room.
    """
    arrays.reserve()
    name_damaged(arrays, progress, description)
    missing = len(arrays.missing())
    if not missing:
        return
    there = f"; {arrays.n_shards - missing} of {arrays.n_shards} shards are there" if missing < arrays.n_shards else ""
    progress.line(
        f"  {description}: storing {', '.join(arrays.specs)} of {arrays.n_rows:,} views, {in_bytes(arrays.n_bytes)} "
        f"in {arrays.folder}{there}"
    )
    with progress.bar(description, missing) as advance, beside or nullcontext():
        arrays.fill_missing(ask.blocks, lambda shards: advance(shards, in_bytes(arrays.n_bytes)))


def name_damaged(arrays: StoredArrays, progress: Progress, description: str) -> None:
    """Read all finished shards through; damaged ones are named in a line and count as missing."""
    if arrays.n_bytes > LONG_READ:
        progress.line(f"  {description}: checking {in_bytes(arrays.n_bytes)} of stored answers")
    if damaged := arrays.damaged():
        named = ", ".join(map(str, damaged))
        progress.line(f"  {description}: stored answers are damaged (shards {named} of {arrays.folder}); these are made again")


class CachedTeacher:
    """The teacher's answers to a batch, read from arrays [views * images, rows, ...] on disk, or kept on a GPU where they fit.

    Raises ValueError for a batch whose images are not enumerated views: its answers are nowhere.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], n_images: int, device: torch.device) -> None:
        self.n_images, self.device = n_images, device
        at = device if device.type == "cuda" and _fit(arrays, device) else torch.device("cpu")
        self.arrays = {name: resident(array, at) for name, array in arrays.items()}
        self.at = at

    def __call__(self, batch: Batch) -> Activations:
        if batch.teacher_view is None or batch.teacher_index is None:
            raise ValueError("this batch shows no enumerated views: the teacher's answers to it are not stored")
        # On a GPU whose memory cannot hold the arrays, this alone waits for the device: the host must know which rows to gather.
        rows = (batch.teacher_view * self.n_images + batch.teacher_index).to(self.at)
        return from_arrays({name: restored(self._gathered(array, rows)) for name, array in self.arrays.items()})

    def _gathered(self, array: Tensor, rows: Tensor) -> Tensor:
        if self.at == self.device:
            return array.index_select(0, rows).flatten(0, 1)
        # Pinned memory comes from torch's caching allocator, which gives it out again only once the copy is done.
        block = torch.empty((len(rows), *array.shape[1:]), dtype=array.dtype, pin_memory=self.device.type == "cuda")
        return torch.index_select(array, 0, rows, out=block).flatten(0, 1).to(self.device, non_blocking=True)


def _fit(arrays: Mapping[str, np.ndarray], device: torch.device) -> bool:
    return sum(array.nbytes for array in arrays.values()) <= torch.cuda.mem_get_info(device)[0] / RESIDENT_SHARE


class CheckedTeacher:
    """Stored answers, once those to the first batch were found to be bit for bit the live ones.

    Where they are not, as on hardware that computes in another order, all answers are live from then on, and a line says so; with
    `required` RunError is raised instead. `steps` counts the calls, `cached_steps` those that were served from the store.
    """

    def __init__(
        self, live: LiveTeacher, cached: Callable[[Batch], Activations], *, required: bool, progress: Progress, description: str
    ) -> None:
        self.live, self.cached = live, cached
        self.required, self.progress, self.description = required, progress, description
        self.steps = self.cached_steps = 0
        self.current: Callable[[Batch], Activations] | None = None

    def __call__(self, batch: Batch) -> Activations:
        if self.current is None:
            self.current = self.cached if self._agree(batch) else self.live
        self.steps += 1
        self.cached_steps += self.current is self.cached
        return self.current(batch)

    @property
    def cached_share(self) -> float:
        """Share of the taught steps of this process that were served from the store, 0 to 1; 1 where it took none."""
        return self.cached_steps / self.steps if self.steps else 1.0

    def _agree(self, batch: Batch) -> bool:
        live, cached = named_arrays(self.live(batch)), named_arrays(self.cached(batch))
        differing = [name for name, value in live.items() if name not in cached or not same_bits(value, cached[name])]
        if not differing:
            return True
        name = differing[0]
        apart = f"{(live[name] - cached[name]).abs().max():.2g}" if name in cached and live[name].shape == cached[name].shape else "all"
        words = f"{self.description}: stored answers differ from the teacher's own on this machine ({name} by up to {apart})"
        if self.required:
            raise RunError(f"{words}, and `cache: required` allows no others. Use the machine that stored them, or `cache: auto`.")
        self.progress.line(f"  {words}; the teacher answers each batch itself")
        return False


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are of one type and shape and hold the same bytes, NaN included."""
    return a.dtype == b.dtype and a.shape == b.shape and a.contiguous().view(torch.uint8).equal(b.contiguous().view(torch.uint8))
