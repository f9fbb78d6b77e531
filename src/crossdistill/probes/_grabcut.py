"""Masks by GrabCut: the object is what differs from the rim of the picture (Rother, Kolmogorov and Blake, SIGGRAPH 2004; OpenCV's).

Often wrong on photographs, hence the drop rules of the probes that use it. The same picture gives the same mask, in any company and
thread, under one version of OpenCV.
"""

import importlib.util
import os
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from crossdistill.core.errors import SettingError
from crossdistill.probes._mask_maker import MaskMaker

SIDE = 128  # pixels of the longest side while cutting. At 64 px more than twice as many small pictures end without an object.
RIM = 1 / 32  # of each side is surely ground: small pictures are filled by their objects
ITERATIONS = 3  # two more change 1 % of the mask and cost a third more
SPECK = 1 / 100  # of the picture; smaller pieces and holes are noise of the cut


def grabcut() -> MaskMaker:
    """The maker of masks. Raises SettingError where OpenCV is not installed."""
    if not has_opencv():
        raise SettingError("GrabCut needs OpenCV: pip install 'crossdistill[opencv]'")
    about = {"kind": "grabcut", "side": SIDE, "rim": RIM, "iterations": ITERATIONS, "speck": SPECK, "opencv": _opencv_version()}
    return MaskMaker(grabcut_masks, about | {"recipe": 1}, about)


def has_opencv() -> bool:
    """Whether OpenCV can be imported; it is not imported for that."""
    return importlib.util.find_spec("cv2") is not None


def _opencv_version() -> str:
    for package in ("opencv-python-headless", "opencv-python", "opencv-contrib-python", "opencv-contrib-python-headless"):
        try:
            return version(package)
        except PackageNotFoundError:
            continue
    return "unknown"


def grabcut_masks(images: np.ndarray) -> np.ndarray:
    """Masks uint8 [images, height, width] of images uint8 [images, 3, height, width]; 255 where the object covers the whole pixel.

    A picture in which nothing stands out has an empty mask.
    """
    masks = np.empty((len(images), *images.shape[2:]), np.uint8)

    def cut(row: int) -> None:
        masks[row] = _mask(images[row])

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:  # OpenCV releases the GIL
        list(pool.map(cut, range(len(images))))  # listed, so that an error in a thread is raised here
    return masks


def _mask(image: np.ndarray) -> np.ndarray:
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
    share = SIDE / max(picture.size)
    working = (max(16, round(picture.width * share)), max(16, round(picture.height * share)))
    method = Image.Resampling.BICUBIC if share > 1 else Image.Resampling.BOX
    mask = Image.fromarray(_without_specks(_cut(np.asarray(picture.resize(working, method)))))
    # Averaged or interpolated, so that the edge is anti-aliased.
    return np.asarray(mask.resize(picture.size, Image.Resampling.BOX if share > 1 else Image.Resampling.BILINEAR))


def _cut(picture: np.ndarray) -> np.ndarray:
    """The object in a picture uint8 [height, width, 3]: bool [height, width]."""
    import cv2

    height, width = picture.shape[:2]
    down, right = max(1, round(height * RIM)), max(1, round(width * RIM))
    mask = np.zeros((height, width), np.uint8)
    cv2.setRNGSeed(0)  # the generator belongs to this thread
    try:
        model = np.zeros((1, 65)), np.zeros((1, 65))
        cv2.grabCut(picture, mask, (right, down, width - 2 * right, height - 2 * down), *model, ITERATIONS, cv2.GC_INIT_WITH_RECT)
    except cv2.error:  # no colour to tell from another
        return np.zeros((height, width), bool)
    return (mask == cv2.GC_FGD) | (mask == cv2.GC_PR_FGD)


def _without_specks(inside: np.ndarray) -> np.ndarray:
    """The mask in 0 and 255, without pieces and holes smaller than SPECK of the picture."""
    from scipy.ndimage import label

    kept = inside.copy()
    for region in (True, False):
        pieces = np.empty(kept.shape, np.int32)
        label(kept == region, np.ones((3, 3), bool) if region else None, output=pieces)
        sizes = np.bincount(pieces.ravel())
        small = sizes < SPECK * inside.size
        small[0] = False  # everything that is not this region
        kept ^= small[pieces]
    return kept.astype(np.uint8) * 255
