"""The way in: a source's name and settings become training, validation and test images, the same ones every time."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from crossdistill.core.errors import ImageError, SettingError
from crossdistill.core.registry import get
from crossdistill.core.seeds import permutation
from crossdistill.core.types import UNLABELLED, ImageSet, Splits
from crossdistill.images._alike import without
from crossdistill.images._cache import decoded, taken
from crossdistill.images._cue_conflict import published_cue_conflict
from crossdistill.images._transfer import with_transfer

Source = tuple[str, Mapping[str, Any]]
"""A source's name and its settings."""

VALIDATION = "validation"  # in the place of a source of test images
TEST_SHARE = 5  # a source without a test split gives one in five of its images to it


def parse_source(text: str) -> tuple[str, dict[str, Any]]:
    """A source as written on the command line, NAME or NAME:PATH, as its name and settings.

    >>> parse_source("trifeature"), parse_source("huggingface:owner/name")
    (('trifeature', {}), ('huggingface', {'path': 'owner/name'}))
    """
    name, colon, path = text.partition(":")
    if not name or (colon and not path):
        raise SettingError(f"images are given as NAME or NAME:PATH (trifeature, folder:photos, huggingface:owner/name), got '{text}'")
    return name, {"path": path} if colon else {}


def load_splits(
    source: str,
    settings: Mapping[str, Any] = {},
    *,
    train_images: int | None = None,
    validation_images: int | None = None,
    test_images: int | None = None,
    cue_conflict: Path | None = None,
    transfer: str | None = None,
    transfer_images: int | None = None,
    test: str | None = None,
    exclude: str | None = None,
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> Splits:
    """Training, validation and test images of a source, decoded at the first call and memory-mapped from then on.

    Validation (by default a tenth of `train_images`, or of all training images) is cut from the training images first, unless the
    source has a validation split; then training and test are limited to the counts given. Every cut keeps the shares of the classes
    and depends on `seed` alone. A source without a test split gives a fifth of its images, whatever the seed. `cue_conflict`, a folder
    of the published texture-against-shape images, adds those whose classes are known here as the extra set "published_cue_conflict".
    `transfer`, a source as on the command line, puts `transfer_images` (None: all) of its training images behind the training images,
    unlabelled. `test`, another source, gives its test images in the place of the own ones (all its images, where it has no such split);
    the word "validation" lets the validation images stand for them, so that no test image is read while settings are chosen. `exclude`
    names a source whose test images are left out of the training, validation and transfer images, however they are stored there.
    `progress(step, done, total)` is told of decoding.

    Raises UnknownNameError, SettingError and ImageError, with what to do.
    """
    chosen = _other_sources(transfer=transfer, exclude=exclude, test=None if test == VALIDATION else test)
    stored = _decoded(source, settings, progress)
    train = stored.pop("train")
    found = {role: _decoded(*_of_size(named, train.size, (source, settings)), progress) for role, named in chosen.items()}
    own_test = stored.pop("test", None)
    if own_test is None and not test:
        train, own_test = _cut(train, "test", max(1, len(train) // TEST_SHARE), 0)

    def free(images: ImageSet) -> ImageSet:
        return without(images, _test_images(found["exclude"])) if exclude else images

    train = free(train)
    if "validation" in stored:
        validation = _limited(free(stored.pop("validation")), validation_images, seed)
    else:
        train, validation = _cut(train, "validation", _validation_count(train_images, validation_images, len(train)), seed)
    if test == VALIDATION:
        tested, stored = validation, {}
    else:
        tested = _of_the_same_classes(_test_images(found["test"]), train, str(test)) if test else own_test
        assert tested is not None
        tested = _limited(_labelled(tested, test or source), test_images, seed)
    if cue_conflict is not None:
        stored["published_cue_conflict"] = published_cue_conflict(cue_conflict, tested.class_names, tested.size)
    splits = Splits(_limited(train, train_images, seed), validation, tested, stored)
    if not transfer:
        return splits
    return with_transfer(splits, free(found["transfer"]["train"]), name=transfer, count=transfer_images, seed=seed)


def _other_sources(**named: str | None) -> dict[str, Source]:
    """{role: source} of those that are named; a name that is none is refused before anything is decoded."""
    chosen: dict[str, Source] = {role: parse_source(text) for role, text in named.items() if text}
    for name, _ in chosen.values():
        get("images", name)
    return chosen


def stratified_rows(labels: np.ndarray, count: int, *key: str | int) -> np.ndarray:
    """`count` row numbers, sorted, drawn so that each label keeps its share to within one image (largest remainders).

    >>> labels = np.array([0, 0, 0, 0, 1, 1])
    >>> labels[stratified_rows(labels, 3, "example")].tolist()
    [0, 0, 1]
    """
    values, sizes = np.unique(labels, return_counts=True)
    exact = count * sizes / len(labels)
    quotas = np.floor(exact).astype(int)
    quotas[np.argsort(quotas - exact, kind="stable")[: count - quotas.sum()]] += 1
    chosen = [
        np.flatnonzero(labels == value)[permutation(size, *key, int(value))[:quota]]
        for value, size, quota in zip(values, sizes, quotas, strict=True)
    ]
    return np.sort(np.concatenate(chosen))


def _decoded(source: str, settings: Mapping[str, Any], progress: Callable[[str, int, int], None] | None) -> dict[str, ImageSet]:
    plugin = get("images", source)
    return decoded(source, plugin.version, plugin.function(**plugin.parse(settings)), progress)


def _of_size(chosen: Source, size: tuple[int, int], own: Source) -> Source:
    """A source whose images are brought to `size` where it has that setting; where it is the study's own, read as that one is."""
    (name, settings), path = chosen, chosen[1].get("path")
    if (name, path and Path(path)) == (own[0], own[1].get("path") and Path(own[1]["path"])):
        return own
    return name, {**settings, **({"size": size} if "size" in get("images", name).settings.model_fields else {})}


def _validation_count(train_images: int | None, validation_images: int | None, available: int) -> int:
    if validation_images is not None and validation_images < 1:
        raise SettingError(f"validation_images must be at least 1, got {validation_images}")
    return validation_images or max(1, min(train_images or available, available) // 10)


def _cut(images: ImageSet, name: str, count: int, seed: int) -> tuple[ImageSet, ImageSet]:
    """What is left, and the `count` labelled images cut from it under the new name."""
    labelled = np.flatnonzero(images.labels != UNLABELLED)
    if count >= len(images) or count > len(labelled):
        raise ImageError(
            f"{count} images cannot be cut for {name}: there are {len(images)} training images, {len(labelled)} of them with a label, "
            "and some must stay for training"
        )
    rows = labelled[stratified_rows(images.labels[labelled], count, "images", name, seed)]
    rest = np.setdiff1d(np.arange(len(images)), rows, assume_unique=True)
    about = {**images.provenance, "split": name, "cut_from": "train", "cut": f"{count} images, stratified by label, seed {seed}"}
    return taken(images, rest), replace(taken(images, rows), provenance=about)


def _limited(images: ImageSet, count: int | None, seed: int) -> ImageSet:
    if count is None:
        return images
    split = images.provenance["split"]
    if not 1 <= count <= len(images):
        raise ImageError(f"{split}_images must be 1 to {len(images)} (what is there, less what validation took), got {count}")
    return taken(images, stratified_rows(images.labels, count, "images", split, "limit", seed))


def _test_images(splits: Mapping[str, ImageSet]) -> ImageSet:
    """A source's test images; all its images, where it has no such split."""
    return splits.get("test") or replace(splits["train"], provenance={**splits["train"].provenance, "split": "test"})


def _of_the_same_classes(test: ImageSet, train: ImageSet, name: str) -> ImageSet:
    if test.class_names != train.class_names:
        raise ImageError(
            f"the test images '{name}' have the classes {', '.join(test.class_names)}, "
            f"and the training images {', '.join(train.class_names)}: give a source with the same classes, in the same order"
        )
    return test


def _labelled(test: ImageSet, source: str) -> ImageSet:
    unlabelled = int((test.labels == UNLABELLED).sum())
    if unlabelled:
        raise ImageError(
            f"{unlabelled} of {len(test)} test images of '{source}' have no label, so nothing can be measured on them: "
            "give a test split with labels, or leave it out (a fifth of the training images is then kept for testing)"
        )
    return test
