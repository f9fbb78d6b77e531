"""What some probes are given beside images and labels: masks of the objects, an encoder, pictures of styles."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from crossdistill.core.errors import SettingError
from crossdistill.core.registry import Plugin
from crossdistill.core.types import ImageSet

HOW_TO_GET = {
    "masks": "give --masks DIR (one picture for each image, named by its id), --masks grabcut, or the name of a segmentation network",
    "encoder": "give --encoder FILE.safetensors of a trained network, or the name of a model with published weights (torchvision/vgg19)",
    "styles": "give --styles DIR with pictures, --styles images (others of the set) or --styles textures (those that are built in)",
}
CALLABLES = {"mask_of": "masks"}  # the supply itself, to be asked for any images of the pool: (ImageSet) -> uint8 [images, height, width]
COMPANIONS = {"style_labels": "styles"}  # the classes of what is supplied
ONE_PER_IMAGE = ("masks",)  # costly, and equal at all levels and draws: made once and kept on disk while a set is built


@dataclass(frozen=True)
class Supply:
    """Something that probes ask for by name. `of(block)` is what they receive for a block of images."""

    of: Callable[[ImageSet], Any]
    identity: Any  # plain JSON that names its content: part of the probe set's key
    about: Mapping[str, Any]  # for the manifest and for people: name, kind, where its weights come from
    labels: np.ndarray | None = None  # int64, the classes of what it gives, where that has any


Supplies = Mapping[str, Supply]


def wanted_supplies(plugin: Plugin) -> list[str]:
    """The names of the supplies that a probe asks for, directly or as a callable."""
    return list(dict.fromkeys(CALLABLES.get(name, name) for name in plugin.inputs if name in {*HOW_TO_GET, *CALLABLES}))


def used_supplies(plugin: Plugin, supplies: Supplies) -> dict[str, Supply]:
    """Those that a probe asks for. Raises SettingError, with what to give, where one is missing."""
    for name in wanted_supplies(plugin):
        if name not in supplies:
            raise SettingError(f"probe '{plugin.name}' needs {name}: {HOW_TO_GET[name]}")
    return {name: supplies[name] for name in wanted_supplies(plugin)}


@dataclass(frozen=True)
class StoredRows:
    """Rows of an array file, one for each image, looked up by the images' ids, which must be unique.

    Unlike what most supplies are made of, it can be sent to another process.
    """

    path: Path
    ids: np.ndarray  # text, of all images in the order of the file

    @cached_property
    def _order(self) -> np.ndarray:
        return np.argsort(self.ids, kind="stable")

    def __call__(self, images: ImageSet) -> np.ndarray:
        place = np.searchsorted(self.ids, np.asarray(images.ids).astype(str), sorter=self._order)
        return np.load(self.path, mmap_mode="r")[self._order[place]]
