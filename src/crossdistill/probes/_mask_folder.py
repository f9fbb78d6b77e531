"""Masks that the user has: a folder with one picture for each image, named by the image's id."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from crossdistill.core.errors import ImageError
from crossdistill.core.store import digest, file_sha256
from crossdistill.core.types import ImageSet
from crossdistill.probes._supplies import Supply

if TYPE_CHECKING:
    from PIL.Image import Image

RECIPE = 2  # how a picture becomes a mask
SUFFIXES = (".png", ".bmp", ".gif", ".jpg", ".jpeg", ".pgm", ".tif", ".tiff", ".webp")


def folder_masks(folder: Path, images: ImageSet) -> Supply:
    """Masks read from pictures: `folder`/ID.png, or with another or no suffix in place of the id's own; see `mask_picture`.

    An image without a picture has an empty mask, which probes drop. Raises ImageError where no picture is named like an image, or two
    pictures are named like one.
    """
    pictures = _pictures(folder)
    files = {str(name): file for name in images.ids if (file := _file_of(str(name), pictures))}
    if not files:
        examples = ", ".join(sorted({name for found in pictures.values() for name in found})[:3]) or "no picture at all"
        raise ImageError(
            f"{folder} holds no mask for any of the {len(images)} images: expected one picture for each, named by its id "
            f"(for the first image {Path(images.ids[0]).with_suffix('.png')}), found {examples}"
        )
    content = [[name, file_sha256(folder / file)] for name, file in sorted(files.items())]
    identity = {"kind": "folder", "recipe": RECIPE, "files": digest(content)}
    about = {"path": str(folder), "n_found": len(files), "n_missing": len(images) - len(files)}
    return Supply(_Pictures(folder, files).of, identity, identity | about)


@dataclass(frozen=True)
class _Pictures:
    folder: Path
    files: Mapping[str, str]  # id -> path below the folder

    def of(self, block: ImageSet) -> np.ndarray:
        masks = np.zeros((len(block), *block.size), np.uint8)
        for row, name in enumerate(block.ids):
            if file := self.files.get(str(name)):
                masks[row] = mask_picture(self.folder / file, block.size)
        return masks


def mask_picture(path: Path, size: tuple[int, int]) -> np.ndarray:
    """The mask in a picture, brought to `size` (height, width) as images are, scaled to cover it and cropped: uint8, 255 for covered.

    Where anything is transparent, what is opaque is the object. In a palette picture, and in one of only two levels, everything but the
    value 0 is. Else the grey level is the covered share. Raises ImageError for a file that is no picture.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as picture:
            levels = _levels(picture)
    except (OSError, ValueError, SyntaxError) as error:
        raise ImageError(f"the mask {path} cannot be read ({error}): mend or remove it; an image without a mask is dropped") from error
    if levels.shape == size:
        return levels
    # Reduced by averaging areas, so that a share of a pixel stays what it is.
    reduced = size[0] <= levels.shape[0] and size[1] <= levels.shape[1]
    method = Image.Resampling.BOX if reduced else Image.Resampling.BILINEAR
    return np.asarray(ImageOps.fit(Image.fromarray(levels), (size[1], size[0]), method=method))


def _levels(picture: "Image") -> np.ndarray:
    """How much of each pixel the object covers, uint8 [height, width]."""
    if "A" in picture.getbands():
        opaque = np.asarray(picture.getchannel("A"))
        if (opaque < 255).any():  # else the programme that saved it always adds the channel, and it says nothing
            return opaque
    palette = picture.getbands()[0] == "P"
    levels = np.asarray(picture.getchannel(0) if palette else picture.convert("L"))
    return (levels > 0).astype(np.uint8) * 255 if palette or len(np.unique(levels)) <= 2 else levels


def _pictures(folder: Path) -> dict[str, list[str]]:
    """Every picture below a folder, by its path and by its path without the suffix."""
    found: dict[str, list[str]] = {}
    for file in _files(folder):
        found.setdefault(file, []).append(file)
        found.setdefault(os.path.splitext(file)[0], []).append(file)
    return found


def _files(folder: Path) -> Iterator[str]:
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES:
                yield Path(place, name).relative_to(folder).as_posix()


def _file_of(name: str, pictures: Mapping[str, list[str]]) -> str | None:
    stem, suffix = os.path.splitext(name)
    for wanted in (name, stem) if suffix.lower() in SUFFIXES else (name,):
        if len(files := pictures.get(wanted, [])) > 1:
            raise ImageError(f"image {name} has more than one mask: {', '.join(files)}. Keep one of them.")
        if files:
            return files[0]
    return None
