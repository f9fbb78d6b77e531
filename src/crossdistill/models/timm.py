"""timm's models by name, with a tag where pretrained weights are meant: timm/resnet18, timm/vit_base_patch16_224.augreg_in1k."""

from collections.abc import Mapping
from typing import Any

from crossdistill.core.errors import SettingError, UnknownNameError, WeightsError, nearest
from crossdistill.core.registry import model_source
from crossdistill.models._sizes import InputSize, check_patches, chosen_size
from crossdistill.models._weights import head_note, reaching_hub
from crossdistill.ops.network import Network


@model_source(example="timm/resnet18")
def timm(
    name: str,
    n_classes: int,
    size: tuple[int, int],
    *,
    pretrained: bool = False,
    input_size: InputSize = None,
    drop_path: float | None = None,
    options: Mapping[str, Any] = {},
) -> Network:
    """A timm model as a Network.

    `input_size`: the pixels (side, or [height, width]) that images are resized to; default the image size, or with
    pretrained weights the size that they were made for. Positional embeddings are resampled by timm. `drop_path`: the
    rate of stochastic depth. `options`: anything else that `timm.create_model` takes.
    """
    import timm as library
    from timm.models import get_pretrained_cfg, is_model, list_models, list_pretrained, split_model_name_tag

    architecture, tag = split_model_name_tag(name)
    if not is_model(architecture):
        raise UnknownNameError(f"timm has no model '{name}'.{nearest(architecture, list_models())} `timm.list_models()` lists them all.")
    if tag and name not in list_pretrained(f"{architecture}*"):
        tags = list_pretrained(f"{architecture}.*")
        raise UnknownNameError(f"timm has no weights '{name}'.{nearest(name, tags)} There are: {', '.join(tags) or 'none'}.")
    published = get_pretrained_cfg(name)
    if pretrained and (published is None or not published.has_weights):
        raise WeightsError(f"timm publishes no weights for '{name}': set `pretrained: false`, or choose one of `timm.list_pretrained()`")
    target = chosen_size(input_size, published.input_size[1:] if pretrained and published else size)
    arguments = {**options, "num_classes": n_classes, "drop_path_rate": drop_path, "pretrained": pretrained}
    with reaching_hub(f"timm/{name}", wanted=pretrained):
        model = _created(library.create_model, name, target, arguments)
    check_patches(f"timm/{name}", model, target)
    cfg = model.pretrained_cfg
    notes = head_note(f"timm/{name}", cfg.get("num_classes"), n_classes) if pretrained else []
    return Network(model, n_classes, target, mean=cfg["mean"], std=cfg["std"], model_name=f"timm/{name}", notes=notes)


def _created(create: Any, name: str, size: tuple[int, int], arguments: Mapping[str, Any]) -> Any:
    """The model, told its image size if it asks for one: convolutional models do not, and say so at once."""
    try:
        return create(name, img_size=size, **arguments)
    except TypeError as error:
        if "img_size" not in str(error):
            raise _unknown_option(name, error) from error
    try:
        return create(name, **arguments)
    except TypeError as error:
        raise _unknown_option(name, error) from error


def _unknown_option(name: str, error: TypeError) -> SettingError:
    return SettingError(f"timm/{name} does not take one of its settings: {error}")
