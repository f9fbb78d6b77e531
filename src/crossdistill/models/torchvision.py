"""torchvision's classifiers by name, with the weights' name where others than the newest are meant: torchvision/resnet50.IMAGENET1K_V1."""

import inspect
from collections.abc import Mapping
from typing import Any

from crossdistill.core.errors import SettingError, UnknownNameError, nearest, unknown_name
from crossdistill.core.registry import model_source
from crossdistill.models._sizes import InputSize, check_side, chosen_size
from crossdistill.models._weights import fitting_weights, head_note, reaching_hub
from crossdistill.ops.network import Network

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@model_source(example="torchvision/resnet18")
def torchvision(
    name: str,
    n_classes: int,
    size: tuple[int, int],
    *,
    pretrained: bool = False,
    input_size: InputSize = None,
    options: Mapping[str, Any] = {},
) -> Network:
    """A torchvision classifier as a Network.

    `input_size`: the pixels (side, or [height, width]) that images are resized to; default the image size, or with
    pretrained weights the size that they were made for. `options`: anything else that the model's constructor takes.
    """
    import torchvision.models as library

    architecture, _, tag = name.partition(".")
    known = library.list_models(module=library)
    if architecture not in known:
        raise UnknownNameError(
            f"torchvision has no classifier '{architecture}'.{nearest(architecture, known)} "
            "`torchvision.models.list_models()` lists them all."
        )
    weights = _weights(architecture, tag)
    published = weights.transforms() if pretrained else None
    target = chosen_size(input_size, (published.crop_size[0],) * 2 if published else size)
    model = library.get_model(architecture, num_classes=n_classes, **_image_size(architecture, target), **options)
    notes: list[str] = []
    if pretrained:
        with reaching_hub(f"torchvision/{name}", wanted=True):
            state = weights.get_state_dict(progress=False, check_hash=True)
        model.load_state_dict(fitting_weights(f"torchvision/{name}", model, state), strict=False)
        notes = head_note(f"torchvision/{name}", len(weights.meta["categories"]), n_classes)
    mean, std = (published.mean, published.std) if published else (IMAGENET_MEAN, IMAGENET_STD)
    return Network(model, n_classes, target, mean=mean, std=std, model_name=f"torchvision/{name}", notes=notes)


def _weights(architecture: str, tag: str) -> Any:
    from torchvision.models import get_model_weights

    weights: Any = get_model_weights(architecture)
    if not tag:
        return weights.DEFAULT
    if tag not in weights.__members__:
        raise unknown_name(f"set of torchvision weights for {architecture}", tag, weights.__members__)
    return weights[tag]


def _image_size(architecture: str, size: tuple[int, int]) -> dict[str, int]:
    """The argument that tells a vision transformer its side; nothing for models that take any size."""
    import torch
    from torchvision.models import get_model, get_model_builder

    made = inspect.signature(get_model_builder(architecture), eval_str=True).return_annotation
    if "image_size" not in inspect.signature(made).parameters:
        return {}
    if size[0] != size[1]:
        raise SettingError(
            f"torchvision/{architecture} takes square images, got {size[0]} x {size[1]} pixels: set `input_size` to one side"
        )
    with torch.device("meta"):
        patch: int = getattr(get_model(architecture), "patch_size")  # noqa: B009 (pyright knows no model's attributes)
    check_side(f"torchvision/{architecture}", size[0], patch)
    return {"image_size": size[0]}
