"""Data sets of torch and torchvision as arrays, read once."""

from typing import Any

import numpy as np

from crossdistill.core.errors import ImageError


def is_data_set(given: Any) -> bool:
    """Whether it gives (image, label) by number, as torch's and torchvision's data sets do; a loader of batches does not."""
    by_number = hasattr(given, "__len__") and hasattr(given, "__getitem__")
    return by_number and not hasattr(given, "shape") and not isinstance(given, str | bytes | tuple | dict)


def data_set_arrays(given: Any) -> tuple[np.ndarray, np.ndarray]:
    """(images [images, 3, height, width], labels [images]) of every item, in order.

    An image is a PIL picture, an array [height, width, 3] or a tensor [3, height, width]. Raises ImageError for what is no image, and
    for images of several sizes.
    """
    if not len(given):
        raise ImageError("the data set is empty")
    pixels: np.ndarray | None = None
    labels = np.empty(len(given), np.int64)
    for row in range(len(given)):
        image, labels[row] = _item(given[row], row)
        if pixels is None:
            pixels = np.empty((len(given), *image.shape), image.dtype)
        if image.shape != pixels.shape[1:] or image.dtype != pixels.dtype:
            raise ImageError(
                f"item {row} of the data set is {image.dtype} {list(image.shape)}, the first is {pixels.dtype} {list(pixels.shape[1:])}: "
                "bring all to one size, such as by transform=torchvision.transforms.Resize((64, 64))"
            )
        pixels[row] = image
    assert pixels is not None
    return pixels, labels


def _item(item: Any, row: int) -> tuple[np.ndarray, int]:
    try:
        image, label = item
        return _channels_first(image), int(label)
    except (TypeError, ValueError) as error:
        kinds = ", ".join(type(part).__name__ for part in item) if isinstance(item, tuple | list) else type(item).__name__
        raise ImageError(f"item {row} of the data set is ({kinds}), expected (image, class number): {error}") from error


def _channels_first(image: Any) -> np.ndarray:
    if hasattr(image, "convert"):  # a PIL picture
        return np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    if hasattr(image, "detach"):
        array = image.detach().cpu().numpy()
    elif isinstance(image, np.ndarray):
        array = image.transpose(2, 0, 1) if image.ndim == 3 else image[None]
    else:
        raise TypeError("an image is a PIL picture, a tensor [3, height, width] or an array [height, width, 3]")
    if array.ndim != 3:
        raise TypeError(f"a tensor of the shape {list(array.shape)} is no image")
    return array
