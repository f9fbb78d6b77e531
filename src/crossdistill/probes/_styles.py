"""Pictures of styles for probes: drawn and photographed textures that come with the package, a folder, or other images of the set."""

from importlib.resources import files
from pathlib import Path

import numpy as np

from crossdistill.core.errors import ImageError
from crossdistill.core.seeds import permutation
from crossdistill.core.types import ImageSet
from crossdistill.images._files import decoded_image
from crossdistill.images._raw import Damaged
from crossdistill.probes._array_file import array_sha256
from crossdistill.probes._drawn_textures import drawn_texture, texture_name
from crossdistill.probes._supplies import Supply

SMALLEST_SIDE = 64  # pixels; finer textures than a small image can show still have statistics of their own
N_DRAWN = 120
PHOTOGRAPHS = ("brick.png", "grass.png", "gravel.png", "ihc.png")  # of those that lie inside scikit-image, textures all over
CROPS = 4  # of each photograph, its quarters
MOST_PICTURES = 1000  # of a folder: its styles are held in memory
MOST_IMAGES = 256  # of the set
SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm"}


def style_supply(text: str | None, images: ImageSet) -> Supply:
    """The styles that `text` names, uint8 [styles, 3, side, side], side that of the images but at least 64 pixels.

    `textures` (also for None): 120 drawn ones and quarters of scikit-image's photographs of textures. `images`: at most 256 images of the
    set itself, in their own size and with their classes. Anything else is a folder of pictures, searched to any depth, at most 1,000 of
    which are taken. Raises ImageError for a folder that is missing, has no pictures or a damaged one.
    """
    side, labels = max(SMALLEST_SIDE, min(images.size)), None
    if text is None or text == "textures":
        named = built_in_styles(side)
    elif text == "images":
        named, labels = _styles_of_the_set(images)
    else:
        named = _pictures(Path(text), side)
    styles = np.stack(list(named.values()))
    identity = array_sha256(styles)[:16]
    about = {"name": text or "textures", "styles": list(named), "size": list(styles.shape[2:]), "sha256": identity}
    return Supply(lambda block: styles, identity, about, labels)


def built_in_styles(side: int) -> dict[str, np.ndarray]:
    """{name: uint8 [3, side, side]} of the textures that come with the package."""
    drawn = {texture_name(number): drawn_texture(number, side) for number in range(N_DRAWN)}
    return drawn | {name: crop for file in PHOTOGRAPHS for name, crop in _quarters(file, side).items()}


def _quarters(file: str, side: int) -> dict[str, np.ndarray]:
    from PIL import Image

    with files("skimage.data").joinpath(file).open("rb") as opened, Image.open(opened) as picture:
        half_width, half_height = picture.width // 2, picture.height // 2
        cut = min(half_width, half_height)
        corners = [(half_width * (quarter % 2), half_height * (quarter // 2)) for quarter in range(CROPS)]
        rgb = picture.convert("RGB")
        crops = [rgb.crop((left, top, left + cut, top + cut)).resize((side, side), Image.Resampling.BOX) for left, top in corners]
    return {f"{Path(file).stem}-{quarter}": np.asarray(crop).transpose(2, 0, 1) for quarter, crop in enumerate(crops)}


def _styles_of_the_set(images: ImageSet) -> tuple[dict[str, np.ndarray], np.ndarray]:
    rows = np.sort(permutation(len(images), "styles of the set")[:MOST_IMAGES])
    return dict(zip(images.ids[rows].tolist(), np.asarray(images.images[rows]), strict=True)), images.labels[rows]


def _pictures(folder: Path, side: int) -> dict[str, np.ndarray]:
    if not folder.expanduser().is_dir():
        raise ImageError(
            f"there is no folder {folder} of style pictures: give one, or `textures` (built in) or `images` (others of the set)"
        )
    folder = folder.expanduser()
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not found:
        raise ImageError(f"{folder} has no pictures ({', '.join(sorted(SUFFIXES))}) to take styles from")
    if len(found) > MOST_PICTURES:
        found = [found[row] for row in np.sort(permutation(len(found), "style pictures")[:MOST_PICTURES])]
    decoded = {path: decoded_image(path, (side, side)) for path in found}
    for path, picture in decoded.items():
        if isinstance(picture, Damaged):
            raise ImageError(f"the style picture {path} cannot be read ({picture.reason}): mend it or take it away")
    return {str(path.relative_to(folder)): picture for path, picture in decoded.items() if not isinstance(picture, Damaged)}
