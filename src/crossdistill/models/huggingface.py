"""Image classifiers of the transformers library, by repository or local folder: huggingface/microsoft/resnet-50."""

import json
from collections.abc import Mapping
from typing import Any

from crossdistill.core.errors import CrossdistillError, SettingError
from crossdistill.core.registry import model_source
from crossdistill.models._sizes import InputSize, check_side, chosen_size
from crossdistill.models._weights import head_note, reaching_hub
from crossdistill.ops.network import Network


@model_source(example="huggingface/microsoft/resnet-50")
def huggingface(
    name: str,
    n_classes: int,
    size: tuple[int, int],
    *,
    pretrained: bool = False,
    input_size: InputSize = None,
    config: Mapping[str, Any] | None = None,
) -> Network:
    """A transformers image classifier as a Network.

    `input_size`: the pixels (side, or [height, width]) that images are resized to; default the image size, or with
    pretrained weights the size that they were made for. `config`: the architecture itself, as in a config.json (with its
    `model_type`); nothing is then fetched, and the name is a label.
    """
    try:
        import transformers
    except ImportError as error:
        raise CrossdistillError("models of Hugging Face need the transformers library: pip install 'crossdistill[hf]'") from error

    if pretrained and config is not None:
        raise SettingError(f"huggingface/{name}: `config` describes a network without weights; leave it out, or set `pretrained: false`")
    with reaching_hub(f"huggingface/{name}", wanted=config is None):
        settings = transformers.AutoConfig.for_model(**config) if config else transformers.AutoConfig.from_pretrained(name)
    n_published, own_side = settings.num_labels, getattr(settings, "image_size", None)
    own_size = (own_side, own_side) if isinstance(own_side, int) else tuple(own_side) if own_side else size
    target = chosen_size(input_size, own_size if pretrained else size)
    if own_side is not None and pretrained and target != own_size:
        raise SettingError(
            f"huggingface/{name} has weights for {own_size[0]} x {own_size[1]} pixels, "
            f"got input_size {target[0]} x {target[1]}: leave `input_size` out"
        )
    _fit(settings, f"huggingface/{name}", n_classes, target)
    classifier = transformers.AutoModelForImageClassification
    if not pretrained:
        mean, std, notes = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), []
        model = classifier.from_config(settings)
    else:
        with reaching_hub(f"huggingface/{name}", wanted=True):
            model = classifier.from_pretrained(name, config=settings, ignore_mismatched_sizes=True)
            mean, std = _normalisation(name)
        notes = head_note(f"huggingface/{name}", n_published, n_classes)
    rebuild = {"config": json.loads(settings.to_json_string())}
    return Network(model, n_classes, target, mean=mean, std=std, model_name=f"huggingface/{name}", settings=rebuild, notes=notes)


def _fit(settings: Any, model_name: str, n_classes: int, size: tuple[int, int]) -> None:
    """Write the class count and the image size into a configuration."""
    settings.architectures = settings.architectures or []  # transformers takes it for a list where a model type has several heads
    patch = getattr(settings, "patch_size", None)
    if isinstance(patch, int):
        for side in size:
            check_side(model_name, side, patch)
    if getattr(settings, "image_size", None) is not None:
        settings.image_size = size[0] if size[0] == size[1] else list(size)
    if settings.num_labels != n_classes:
        settings.num_labels = n_classes


def _normalisation(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The mean and standard deviation that the weights were made with."""
    from transformers.image_processing_base import ImageProcessingMixin

    published, _ = ImageProcessingMixin.get_image_processor_dict(name)
    if not published.get("do_normalize", True):
        return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    return tuple(published["image_mean"]), tuple(published["image_std"])
