"""Images as a notebook has them (a source's name, arrays, a data set) as the source and settings that a study names."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from crossdistill.core.config import ImagesConfig
from crossdistill.core.errors import ImageError
from crossdistill.core.progress import Progress
from crossdistill.core.types import UNLABELLED, ImageSet, Splits
from crossdistill.images._splits import TEST_SHARE, load_splits, parse_source
from crossdistill.images.arrays import held
from crossdistill.notebook.data_set import data_set_arrays, is_data_set
from crossdistill.study.splits import decoding

SPLITS = ("train", "validation", "test")
EXPECTED = (
    "Images are a source as on the command line ('cifar10', 'folder:photos'), a pair (images, labels) of arrays, an ImageSet, Splits, a "
    "data set of torch or torchvision, or {'train': ..., 'test': ...} of these."
)


@contextlib.contextmanager
def source_of(images: Any, class_names: Sequence[str] | None, progress: Progress) -> Iterator[dict[str, Any]]:
    """The entry `images` of a study file that stands for the images in this block.

    Raises ImageError, with what to do, for images that cannot be read.
    """
    if isinstance(images, str):
        source, settings = parse_source(images)
        yield {"source": source, **settings}
        return
    if isinstance(images, Mapping) and "source" in images:  # as in a study file
        yield dict(images)
        return
    parts = _parts(images, class_names)
    if "test" not in parts:
        progress.line(f"no test images were given: one in {TEST_SHARE} of the images, the same at every call, is kept for testing")
    with held(parts) as content:
        yield {"source": "arrays", "content": content}


def training_images(entry: Mapping[str, Any], progress: Progress) -> ImageSet:
    """The training images of a study's entry `images`, for their size and classes."""
    images = ImagesConfig.model_validate(entry)
    return load_splits(images.source, images.settings, progress=decoding(progress)).train


def _parts(images: Any, class_names: Sequence[str] | None) -> dict[str, ImageSet]:
    if isinstance(images, Splits):
        named = {"train": images.train, "validation": images.validation, "test": images.test, **images.extra}
    elif isinstance(images, Mapping):
        named = dict(images)
        if "train" not in named or any(name not in SPLITS for name in named):
            raise ImageError(f"splits are called {', '.join(SPLITS)}, and train must be among them; got {', '.join(map(str, named))}")
    else:
        named = {"train": images}
    _refuse_other_classes(named)
    arrays = {name: part if isinstance(part, ImageSet) else _arrays(name, part) for name, part in named.items()}
    names = _class_names(arrays, class_names, named["train"])
    parts = {name: part if isinstance(part, ImageSet) else _image_set(name, *part, names) for name, part in arrays.items()}
    _refuse_useless(parts)
    return parts


def _refuse_other_classes(named: Mapping[str, Any]) -> None:
    """Raises ImageError where data sets number other classes than the training images: torchvision's count the folders that they find."""
    listed = {name: list(map(str, classes)) for name, part in named.items() if (classes := getattr(part, "classes", None)) is not None}
    for name, classes in listed.items():
        if classes != listed.get("train", classes):
            raise ImageError(
                f"the classes of the {name} images are {', '.join(classes[:10])}, those of the training images "
                f"{', '.join(listed['train'][:10])}: one number would mean two classes. Bring both to the same list of classes."
            )


def _arrays(name: str, given: Any) -> tuple[np.ndarray, np.ndarray]:
    """(uint8 [images, 3, height, width], int64 [images]) of a pair of arrays or a data set."""
    if isinstance(given, tuple | list) and len(given) == 2 and all(hasattr(values, "shape") for values in given):
        pixels, labels = (np.asarray(values.detach().cpu() if hasattr(values, "detach") else values) for values in given)
    elif is_data_set(given):
        pixels, labels = data_set_arrays(given)
    else:
        raise ImageError(f"the {name} images are of the type {type(given).__name__}, which cannot be read. {EXPECTED}")
    return _channels_first(pixels), _whole(labels, len(pixels))


def _channels_first(pixels: np.ndarray) -> np.ndarray:
    if pixels.dtype != np.uint8:
        raise ImageError(
            f"images must be uint8, 0 to 255, got {pixels.dtype} {_range(pixels)}: leave out what makes them floats (ToTensor, Normalize) "
            "or turn them back, (images * 255).round() in uint8. A network's own mean and std are given with it, as "
            "crossdistill.Preprocessed(network, mean=..., std=...)"
        )
    if pixels.ndim == 3:
        pixels = pixels[:, None]
    elif pixels.ndim == 4 and pixels.shape[1] not in (1, 3) and pixels.shape[3] in (1, 3):
        pixels = np.moveaxis(pixels, 3, 1)
    if pixels.ndim != 4 or pixels.shape[1] not in (1, 3) or not pixels.size:
        raise ImageError(f"images are [images, 3, height, width] (or the channels last, or grey), got {list(pixels.shape)}")
    return np.repeat(pixels, 3, axis=1) if pixels.shape[1] == 1 else pixels


def _range(pixels: np.ndarray) -> str:
    return f"from {pixels.min():.3g} to {pixels.max():.3g}" if pixels.size and pixels.dtype.kind in "fiu" else ""


def _whole(labels: np.ndarray, n_images: int) -> np.ndarray:
    if labels.shape != (n_images,):
        raise ImageError(f"{n_images} images need {n_images} labels, one number each, got labels of the shape {list(labels.shape)}")
    if labels.dtype.kind not in "iu":
        raise ImageError(f"labels are whole numbers from 0 on (-1: unlabelled), got {labels.dtype}")
    return labels.astype(np.int64)


def _class_names(arrays: Mapping[str, Any], given: Sequence[str] | None, train: Any) -> tuple[str, ...]:
    """The names that were given, those of the training images, or the class numbers."""
    found = next((part.class_names for part in arrays.values() if isinstance(part, ImageSet)), None)
    names = given if given is not None else found or getattr(train, "classes", None)
    if names is None:
        highest = max((int(part[1].max(initial=-1)) for part in arrays.values()), default=-1)
        names = [str(number) for number in range(highest + 1)]
    if len(set(map(str, names))) != len(names):
        raise ImageError(f"two classes have one name: {', '.join(map(str, names))}")
    return tuple(str(name) for name in names)


def _image_set(name: str, pixels: np.ndarray, labels: np.ndarray, class_names: tuple[str, ...]) -> ImageSet:
    wrong = labels[(labels < UNLABELLED) | (labels >= len(class_names))]
    if len(wrong):
        raise ImageError(
            f"{len(wrong)} of {len(labels)} {name} labels are out of range: the first is {wrong[0]}, expected 0 to {len(class_names) - 1} "
            "(-1: unlabelled)"
        )
    return ImageSet(pixels, labels, np.array([f"{name}-{row}" for row in range(len(labels))]), class_names)


def _refuse_useless(parts: Mapping[str, ImageSet]) -> None:
    """Raises ImageError for fewer than two classes, classes without a training image, and splits that do not fit together."""
    train = parts["train"]
    if train.n_classes < 2:
        raise ImageError(f"the images have {train.n_classes} class{'es' if train.n_classes != 1 else ''}: at least two are needed")
    empty = sorted(set(range(train.n_classes)) - set(train.labels.tolist()))
    if empty:
        named = ", ".join(train.class_names[number] for number in empty[:10])
        raise ImageError(f"no training image has the label of {len(empty)} of the {train.n_classes} classes ({named}): number them from 0")
    for name, part in parts.items():
        if part.class_names != train.class_names:
            raise ImageError(f"the {name} images have other classes than the training images: {', '.join(part.class_names[:10])}")
        if name != "train" and (part.labels == UNLABELLED).any():
            raise ImageError(f"{int((part.labels == UNLABELLED).sum())} {name} images have no label: nothing can be measured on them")
