"""Memory that does not suffice: one sentence that says what to lower, and nothing of a failed task kept for the next."""

import contextlib
import gc
from collections.abc import Callable, Iterator

import torch

from crossdistill.core.errors import SettingError
from crossdistill.core.recipe import TrainingConfig

SPENT = ("can't allocate memory", "out of memory", "alloc_failed")
"""What torch's own allocators and NVIDIA's libraries say in a plain RuntimeError, in lower case."""


@contextlib.contextmanager
def enough_memory(advice: Callable[[], str]) -> Iterator[None]:
    """Raise SettingError with `advice()` where memory ends in this block, of the device or of the machine."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
        spent = isinstance(error, MemoryError | torch.OutOfMemoryError) or any(words in str(error).lower() for words in SPENT)
        if not spent:
            raise
        raise SettingError(advice()) from error


def batch_advice(recipe: TrainingConfig, batch_size: int, size: tuple[int, int]) -> str:
    """What to lower where a step does not fit, in words; `batch_size` is the one at hand, of images of `size` (height, width)."""
    height, width = size
    parts = f", in {recipe.accumulate} parts," if recipe.accumulate > 1 else ""
    return (
        f"out of memory on a batch of {batch_size} images of {height} x {width} pixels{parts} at {recipe.threads} threads. "
        f"Lower `batch_size`; or raise `accumulate` (now {recipe.accumulate}), which keeps the batch and works through it in parts: "
        "BatchNorm, and methods that compare the images of a batch with one another, then see those of a part only, so that what is "
        "compared changes; or take smaller images or a smaller network."
    )


def free_garbage() -> None:
    """Give back what a failed task held and the collector has not yet found. A second's work: a finished task leaves nothing to it."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
