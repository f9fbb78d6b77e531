"""Transfer images: images without labels beside the training images, of another source. They teach through every term but the labels'.

Nothing is known of their classes, so any photographs will do; labels that their source has are not looked at.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import BinaryIO

import numpy as np

from crossdistill.core.errors import ImageError
from crossdistill.core.seeds import permutation
from crossdistill.core.store import cache_folder, digest, write_atomically
from crossdistill.core.types import UNLABELLED, ImageSet, Splits
from crossdistill.images._cache import LARGEST_COPY, taken
from crossdistill.images._raw import ranges


def with_transfer(splits: Splits, found: ImageSet, *, name: str, count: int | None, seed: int) -> Splits:
    """The splits, with `count` (None: all) of the images `found` behind the training images, without labels.

    An image that stands in a split already, pixel for pixel, is left out: the rest of a source can be its transfer images, and no
    test image is ever among them. Raises ImageError for images of another size, and where fewer than `count` are there.
    """
    if found.size != splits.train.size:
        raise ImageError(
            f"the transfer images '{name}' are {_pixels(found.size)} and the training images {_pixels(splits.train.size)} "
            "(height x width): give images of that size, or a source that brings them to it (folder, parquet, huggingface)"
        )
    free = np.flatnonzero(~_seen(found, (splits.train, splits.validation, splits.test)))
    wanted = len(free) if count is None else count
    if not 1 <= wanted <= len(free):
        raise ImageError(
            f"transfer_images must be 1 to {len(free)} (what '{name}' has, less the images that the study's own splits have), got {wanted}"
        )
    chosen = np.sort(free[permutation(len(free), "images", "transfer", seed)[:wanted]])
    return replace(splits, train=_joined(splits.train, taken(found, chosen)))


def labelled(images: ImageSet) -> ImageSet:
    """The images that have a label; the same object where that is all of them."""
    return taken(images, np.flatnonzero(images.labels != UNLABELLED))


def _pixels(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]} pixels"


def _seen(found: ImageSet, others: Sequence[ImageSet]) -> np.ndarray:
    """bool [images]: which of them are among the others, pixel for pixel."""
    # One line of each image rules nearly all of them out, so that a large set need not be read whole.
    lines = {_line(image) for other in others for image in other.images}
    alike = np.array([_line(image) in lines for image in found.images])
    if not alike.any():
        return alike
    suspects = {_line(found.images[row]) for row in np.flatnonzero(alike)}
    known = {_hash(image) for other in others for image in other.images if _line(image) in suspects}
    alike[alike] = [_hash(found.images[row]) in known for row in np.flatnonzero(alike)]
    return alike


def _line(image: np.ndarray) -> bytes:
    return image[1, image.shape[1] // 2].tobytes()


def _hash(image: np.ndarray) -> bytes:
    return hashlib.blake2b(image.tobytes(), digest_size=16).digest()


def _joined(train: ImageSet, added: ImageSet) -> ImageSet:
    ids = np.char.add("transfer/", added.ids.astype(str))
    key = digest([train.provenance["key"], added.provenance["key"]])
    about = {**train.provenance, "key": key, "transfer": {**added.provenance, "images": len(added)}}
    none = np.full(len(added), UNLABELLED, np.int64)
    labels, ids = np.concatenate([train.labels, none]), np.concatenate([train.ids, ids])
    factors = {name: np.concatenate([values, none]) for name, values in train.factors.items()}
    return ImageSet(_joined_pixels(train.images, added.images, digest([key, ids.tolist()])), labels, ids, train.class_names, about, factors)


def _joined_pixels(first: np.ndarray, second: np.ndarray, name: str) -> np.ndarray:
    """Both, one after the other: in memory, or mapped from a file of that name in the cache where they are many."""
    if first.nbytes + second.nbytes <= LARGEST_COPY:
        return np.concatenate([first, second])
    path = cache_folder() / "images" / f"joined-{name}.npy"
    if not path.exists():
        write_atomically(path, lambda file: _write(file, (first, second)))
    return np.load(path, mmap_mode="r")


def _write(file: BinaryIO, parts: Sequence[np.ndarray]) -> None:
    shape = (sum(len(part) for part in parts), *parts[0].shape[1:])
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
    for part in parts:
        for rows in ranges(len(part)):
            file.write(part[rows].tobytes())
