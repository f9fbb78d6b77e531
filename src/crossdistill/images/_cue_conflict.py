"""The published cue-conflict images (Geirhos et al., ICLR 2019, https://arxiv.org/abs/1811.12231), read from a folder that the user has.

FOLDER/SHAPE/SHAPE1-TEXTURE2.png    16 shapes x 16 textures x 5; any folders between will do, the file names say it all
"""

import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from crossdistill.core.errors import ImageError
from crossdistill.core.store import digest, file_sha256
from crossdistill.core.types import ImageSet
from crossdistill.images._files import decoded_image
from crossdistill.images._raw import Damaged, existing_path

FILE_NAME = re.compile(r"([a-z]+)\d*-([a-z]+)\d*\.png")
LAYOUT = "SHAPE/SHAPE1-TEXTURE2.png, such as cat/cat1-elephant2.png"

SYNONYMS = {"automobile": "car", "ship": "boat", "aeroplane": "airplane", "bike": "bicycle"}
"""The published name of a class that image sets call otherwise."""


def published_cue_conflict(folder: Path, class_names: Sequence[str], size: tuple[int, int]) -> ImageSet:
    """The published images whose shape and texture are both among `class_names`, brought to `size` (height, width).

    The label is the shape's class; factors `shape` and `texture` hold both, for `shape_bias`, which leaves out those that agree. Of
    CIFAR-10's classes seven are shared: 245 images, 210 of them in conflict. Raises ImageError where the folder is another or damaged,
    and where fewer than two classes are shared.
    """
    folder = existing_path(Path(folder), f"the folder of published cue-conflict images ({LAYOUT})")
    found = {path: match.groups() for path in sorted(folder.rglob("*.png")) if (match := FILE_NAME.fullmatch(path.name.lower()))}
    if not found:
        raise ImageError(f"{folder} holds no cue-conflict image: expected {LAYOUT}")
    classes = _classes(class_names)
    published = sorted({name for cues in found.values() for name in cues})
    shared = [name for name in published if name in classes]
    if len(shared) < 2:
        raise ImageError(
            f"cue conflict needs two classes, and of the published ones ({', '.join(published)}) these images share "
            f"{', '.join(shared) or 'none'}: leave the set out"
        )
    files = {path: cues for path, cues in found.items() if all(name in classes for name in cues)}
    shape, texture = (np.array([classes[cues[cue]] for cues in files.values()], np.int64) for cue in (0, 1))
    about = {
        "source": "cue_conflict",
        "path": str(folder),
        "fingerprint": digest([[path.name, file_sha256(path)] for path in files]),
        "shared_classes": {name: class_names[classes[name]] for name in shared},
        "n_published": len(found),
    }
    ids = np.array([path.relative_to(folder).as_posix() for path in files])
    return ImageSet(_decoded(list(files), size), shape, ids, tuple(class_names), about, {"shape": shape, "texture": texture})


def _classes(class_names: Sequence[str]) -> Mapping[str, int]:
    """The number of each class, by its published name."""
    return {SYNONYMS.get(name.lower(), name.lower()): number for number, name in enumerate(class_names)}


def _decoded(files: list[Path], size: tuple[int, int]) -> np.ndarray:
    with ThreadPoolExecutor() as pool:
        return np.stack(list(pool.map(lambda path: _image(path, size), files)))


def _image(path: Path, size: tuple[int, int]) -> np.ndarray:
    image = decoded_image(path, size)
    if isinstance(image, Damaged):
        raise ImageError(f"{path} cannot be read: {image.reason}. Copy it again from where the images are published.")
    return image
