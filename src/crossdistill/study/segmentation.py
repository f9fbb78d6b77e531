"""Masks of objects from a published segmentation network: torchvision/fcn_resnet101, huggingface/OWNER/NAME."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from crossdistill.core.errors import CrossdistillError, SettingError, UnknownNameError, nearest
from crossdistill.models._weights import reaching_hub
from crossdistill.probes._mask_maker import MaskMaker

SIDE = (224, 520)  # pixels of the longest side shown to the network: smaller images are magnified, larger ones reduced
BATCH = 8
BACKGROUND = {"background", "__background__"}

Scores = Callable[[Tensor], Tensor]
"""Normalised images [n, 3, height, width] -> scores [n, classes, h, w] of any size."""


def network_masks(name: str, device: torch.device) -> MaskMaker:
    """A published network as a maker of masks; its object is all that is not background.

    Raises WeightsError where the weights cannot be had, UnknownNameError for a name that the library does not have, SettingError for a
    network that knows no background, such as one that divides whole scenes.
    """
    library, _, rest = name.partition("/")
    if library not in LIBRARIES or not rest:
        raise SettingError(f"a segmentation network is named torchvision/NAME or huggingface/OWNER/NAME, got '{name}'")
    return LIBRARIES[library](name, rest, device)


def segmenter(
    network: nn.Module, scores: Scores, name: str, *, categories: Iterable[str], mean: Iterable[float], std: Iterable[float],
    device: torch.device,
) -> MaskMaker:  # fmt: skip
    """A network as a maker of masks: where any class but the background scores highest, averaged over each pixel's area.

    `scores` shows the network normalised images; `categories` names its classes in order. Its weights are part of the identity.
    """
    names = [category.lower() for category in categories]
    background = next((row for row, category in enumerate(names) if category in BACKGROUND), None)
    if background is None:
        raise SettingError(
            f"{name} has no class for the background ({', '.join(names[:5])}, ...), so what is an object is not known: "
            "choose a network trained on Pascal VOC or COCO objects"
        )
    network.to(device).eval().requires_grad_(False)
    centre, spread = (torch.tensor(list(values), device=device)[:, None, None] for values in (mean, std))

    @torch.no_grad()
    def masks(images: np.ndarray) -> np.ndarray:
        made = []
        for start in range(0, len(images), BATCH):
            pixels = torch.from_numpy(np.array(images[start : start + BATCH])).to(device).float() / 255
            shown = _resized(pixels, _working_size(images.shape[2:]))
            answers = interpolate(scores((shown - centre) / spread).float(), shown.shape[2:], mode="bilinear")
            inside = (answers.argmax(dim=1, keepdim=True) != background).float()
            made.append((_resized(inside, images.shape[2:])[:, 0] * 255).round().to(torch.uint8).cpu().numpy())
        return np.concatenate(made) if made else np.zeros((0, *images.shape[2:]), np.uint8)

    about = {"kind": "network", "name": name, "sides": list(SIDE), "weights": weights_sha256(network.state_dict())}
    return MaskMaker(masks, about | {"recipe": 1}, about)


def weights_sha256(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of all names and values of a state, in order of name."""
    hashed = hashlib.sha256()
    for name, value in sorted(state.items()):
        hashed.update(name.encode())
        hashed.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return hashed.hexdigest()


def _working_size(size: tuple[int, ...]) -> tuple[int, int]:
    longest = max(size)
    share = min(max(longest, SIDE[0]), SIDE[1]) / longest
    return max(1, round(size[0] * share)), max(1, round(size[1] * share))


def _resized(images: Tensor, size: tuple[int, ...]) -> Tensor:
    return images if images.shape[2:] == size else interpolate(images, tuple(size), mode="bilinear", antialias=True)


def _torchvision(name: str, architecture: str, device: torch.device) -> MaskMaker:
    from torchvision import models

    known = models.list_models(module=models.segmentation)
    if architecture not in known:
        raise UnknownNameError(f"torchvision has no segmentation network '{architecture}'.{nearest(architecture, known)} It has: {known}.")
    weights: Any = models.get_model_weights(architecture)
    published = weights.DEFAULT
    with reaching_hub(name, wanted=True):
        state = published.get_state_dict(progress=False, check_hash=True)
    categories = published.meta["categories"]
    auxiliary = {"aux_loss": True} if any(key.startswith("aux_classifier") for key in state) else {}
    network = models.get_model(architecture, weights=None, weights_backbone=None, num_classes=len(categories), **auxiliary)
    network.load_state_dict(state)
    normalised = published.transforms()
    return segmenter(
        network, lambda images: network(images)["out"], name, categories=categories, mean=normalised.mean, std=normalised.std, device=device
    )


def _huggingface(name: str, repository: str, device: torch.device) -> MaskMaker:
    try:
        import transformers
    except ImportError as error:
        raise CrossdistillError("networks of Hugging Face need the transformers library: pip install 'crossdistill[hf]'") from error
    from transformers.image_processing_base import ImageProcessingMixin

    with reaching_hub(name, wanted=True):
        network = transformers.AutoModelForSemanticSegmentation.from_pretrained(repository)
        published, _ = ImageProcessingMixin.get_image_processor_dict(repository)
    categories = [network.config.id2label[row] for row in range(network.config.num_labels)]
    mean, std = (published[key] for key in ("image_mean", "image_std")) if published.get("do_normalize", True) else ([0.0] * 3, [1.0] * 3)
    return segmenter(
        network, lambda images: network(pixel_values=images).logits, name, categories=categories, mean=mean, std=std, device=device
    )


LIBRARIES = {"torchvision": _torchvision, "huggingface": _huggingface}
