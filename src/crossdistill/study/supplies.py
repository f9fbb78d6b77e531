"""What a probe asks for beside images and labels, made from what the user named: masks, an encoder, styles."""

from collections.abc import Callable
from pathlib import Path

import torch

from crossdistill.core.errors import SettingError
from crossdistill.core.progress import Progress
from crossdistill.core.registry import Plugin
from crossdistill.core.types import ImageSet, Splits
from crossdistill.probes._build import Supply, wanted_supplies


def supplies_for(
    plugin: Plugin,
    images: ImageSet,
    *,
    masks: str | None = None,
    encoder: str | None = None,
    styles: str | None = None,
    splits: Splits | None = None,
    store: Path,
    device: torch.device | None = None,
    progress: Progress | None = None,
) -> dict[str, Supply]:
    """The supplies that the probe asks for on these images, by name; nothing else is made.

    `masks` is a folder, grabcut or a segmentation network (None: the source's own, else grabcut); `encoder` a .safetensors file or a
    model's name (None: a small one trained on the training images of `splits`, kept in `store`); `styles` a folder, images or textures
    (None: textures). Raises SettingError, ImageError and WeightsError, with what to give instead.
    """
    device, progress = device or torch.device("cpu"), progress or Progress(quiet=True)
    makers: dict[str, Callable[[], Supply]] = {
        "masks": lambda: _masks(masks, images, device),
        "styles": lambda: _styles(styles, images),
        # Last, since it may be trained: what else was named wrongly should be told before.
        "encoder": lambda: _encoder(encoder, images, splits, store, device, progress),
    }
    wanted = wanted_supplies(plugin)
    return {name: make() for name, make in makers.items() if name in wanted}


def _masks(text: str | None, images: ImageSet, device: torch.device) -> Supply:
    from crossdistill.probes._masks import mask_supply
    from crossdistill.study.segmentation import network_masks

    return mask_supply(text, images, lambda name: network_masks(name, device))


def _styles(text: str | None, images: ImageSet) -> Supply:
    from crossdistill.probes._styles import style_supply

    return style_supply(text, images)


def _encoder(
    text: str | None, images: ImageSet, splits: Splits | None, store: Path, device: torch.device, progress: Progress
) -> Supply:  # fmt: skip
    from crossdistill.study.encoders import encoder_supply, trained_encoder

    if text is None:
        if splits is None:
            raise SettingError(
                "there are no training images to train an encoder on: name one, a .safetensors file or a model with published weights"
            )
        progress.line("training an encoder for probes on the training images, once for all studies that share the store")
        text = str(trained_encoder(splits, store=store, device=device, progress=progress))
    return encoder_supply(text, images, device=device)
