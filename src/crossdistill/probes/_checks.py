"""What every probe asks of its images and of settings that are names, wherever it is called from."""

from collections.abc import Iterable

import numpy as np

from crossdistill.core.errors import SettingError


def check_images(images: np.ndarray) -> None:
    """Raise ValueError unless the images are uint8 [images, 3, height, width]."""
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"images must be uint8 [images, 3, height, width], got {images.dtype} {list(images.shape)}")


def check_choice(setting: str, value: str, choices: Iterable[str]) -> None:
    """Raise SettingError unless the value of the setting is one of the choices.

    >>> check_choice("fill", "white", ("black", "mean"))
    Traceback (most recent call last):
    crossdistill.core.errors.SettingError: fill must be 'black' or 'mean', got 'white'
    """
    known = list(choices)
    if value not in known:
        raise SettingError(f"{setting} must be {' or '.join(map(repr, known))}, got {value!r}")
