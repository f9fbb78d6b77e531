"""What a source of images describes, so that the cache can decode it later, once: `RawImages` > `RawContents` > `RawSplit`.

Calling a source is cheap: it finds its files and their fingerprint. Labels, names and bytes are read only when the cache lacks them.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from crossdistill.core.errors import ImageError

OnError = Literal["raise", "skip"]
BATCH = 256


@dataclass(frozen=True)
class Damaged:
    """An image that cannot be decoded, and why."""

    reason: str


@dataclass(frozen=True)
class RawSplit:
    """One split: what is known of each image before decoding, and how its pixels are had.

    `batches()` yields pieces of work in the order of the images, lazily. `decode(batch)` runs in several threads and returns, for
    each image of the batch, uint8 [3, height, width] or what is wrong with it.
    """

    labels: np.ndarray  # int64 [images], -1: unlabelled
    ids: np.ndarray  # text [images], unique within the source
    batches: Callable[[], Iterable[Any]]
    decode: Callable[[Any], Iterable[np.ndarray | Damaged]]
    factors: Mapping[str, np.ndarray] = field(default_factory=dict)  # int64 [images] each


@dataclass(frozen=True)
class RawContents:
    """Class names and splits: "train", perhaps "test", and further labelled test sets under their own names."""

    class_names: tuple[str, ...]
    splits: Mapping[str, RawSplit]


@dataclass(frozen=True)
class RawImages:
    """A source whose contents are named by `fingerprint` (JSON) and read by `read()` when they are not in the cache yet.

    The fingerprint covers the source's content and every setting that changes a pixel, a label or the set of images.
    """

    fingerprint: Any
    read: Callable[[], RawContents]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    on_error: OnError = "raise"


def existing_path(path: Path, expected: str) -> Path:
    """The path, with `~` expanded; raises ImageError with what was expected there when nothing is."""
    path = path.expanduser()
    if not path.exists():
        raise ImageError(f"there is no file or folder {path} (read as {path.absolute()}): expected {expected}")
    return path


def ranges(n_images: int, size: int = BATCH) -> Iterator[slice]:
    """Consecutive slices that cover 0..n_images.

    >>> list(ranges(5, 3))
    [slice(0, 3, None), slice(3, 5, None)]
    """
    return (slice(start, min(start + size, n_images)) for start in range(0, n_images, size))


def array_split(pixels: np.ndarray, labels: np.ndarray, name: str) -> RawSplit:
    """A split of images that are in memory already: uint8 [images, height, width, 3], or [images, height, width] in grey."""

    def decode(rows: slice) -> np.ndarray:
        batch = pixels[rows]
        if batch.ndim == 3:
            return np.repeat(batch[:, None], 3, axis=1)  # images channels height width
        return batch.transpose(0, 3, 1, 2)

    ids = np.array([f"{name}-{row}" for row in range(len(pixels))])
    return RawSplit(np.asarray(labels, np.int64), ids, lambda: ranges(len(pixels)), decode)
