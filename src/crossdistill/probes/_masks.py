"""Where masks of objects come from: what the user names, else what the image source knows, else GrabCut."""

from collections.abc import Callable
from pathlib import Path

from crossdistill.core import registry
from crossdistill.core.errors import SettingError
from crossdistill.core.types import ImageSet
from crossdistill.probes._grabcut import grabcut, has_opencv
from crossdistill.probes._mask_folder import folder_masks
from crossdistill.probes._mask_maker import MaskMaker, made_masks
from crossdistill.probes._supplies import Supply

LIBRARIES = ("torchvision", "huggingface")
WAYS = (
    "a folder with one picture for each image, named by its id; the name of a segmentation network (torchvision/fcn_resnet101, "
    "huggingface/OWNER/NAME); or grabcut, which needs OpenCV (pip install 'crossdistill[opencv]')"
)


def mask_supply(text: str | None, images: ImageSet, segment: Callable[[str], MaskMaker] | None = None) -> Supply:
    """Masks uint8 [n, height, width] of any of these images, 255 where the object covers a whole pixel.

    `text` is a folder, "grabcut" or the name of a segmentation network, which `segment` turns into a maker of masks; None takes the
    source's own masks, and GrabCut where it has none. Raises SettingError, with all the ways, where there is none, and what the ways
    raise.
    """
    if text is None:
        if own := _own_masks(images):
            return own
        if not has_opencv():
            source = images.provenance.get("source", "these images")
            raise SettingError(f"{source} has no masks of its own. Give masks in one of three ways: {WAYS}.")
        return made_masks(grabcut(), images)
    if text == "grabcut":
        return made_masks(grabcut(), images)
    folder = Path(text).expanduser()
    if folder.is_dir():
        return folder_masks(folder, images)
    if segment and text.partition("/")[0] in LIBRARIES:
        return made_masks(segment(text), images)
    raise SettingError(f"masks cannot come from '{text}', which is neither a folder nor a name that is known. The ways: {WAYS}.")


def _own_masks(images: ImageSet) -> Supply | None:
    source = images.provenance.get("source")
    if source not in registry.names("images"):
        return None
    plugin = registry.get("images", str(source))
    if not (masks := plugin.facts["masks"]):
        return None
    about = {"kind": "source", "source": plugin.name}
    return Supply(masks, about | {"version": plugin.identity}, about)
