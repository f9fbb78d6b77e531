"""CIFAR-size networks for 32 to 64 pixels: small/resnet20, small/resnet8, small/wrn_16_2, small/vgg, small/vit."""

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from crossdistill.core.errors import SettingError, UnknownNameError, unknown_name
from crossdistill.core.registry import model_source
from crossdistill.models._sizes import InputSize, check_side, chosen_size
from crossdistill.ops.network import Network

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
"""One normalisation for all, since none of them comes with weights: about zero mean and unit spread on photographs."""


@model_source(example="small/resnet20")
def small(
    name: str,
    n_classes: int,
    size: tuple[int, int],
    *,
    pretrained: bool = False,
    input_size: InputSize = None,
    width: int | None = None,
    depth: int | None = None,
    heads: int | None = None,
    patch: int | None = None,
    drop_path: float | None = None,
) -> Network:
    """A small network, never pretrained. `resnet20` and `resnet8`: He et al. 2016, section 4.2; `wrn_16_2`: Zagoruyko & Komodakis 2016.

    `input_size`: the pixels that images are resized to, default the image size. `width`: the VGG's channels at full resolution (32), or
    the ViT's (128). The other settings are the ViT's alone: `depth` (6) blocks, `heads` (width / 32), `patch` (4) pixels, `drop_path`
    (0), the rate of stochastic depth.
    """
    builders: dict[str, Callable[..., Any]] = {
        "resnet8": _resnet8,
        "resnet20": _resnet20,
        "wrn_16_2": _wrn_16_2,
        "vgg": _vgg,
        "vit": _vit,
    }
    if name not in builders:
        raise unknown_name("small model", name, builders)
    if pretrained:
        raise SettingError(f"small/{name} has no published weights: set `pretrained: false`, or give `checkpoint: FILE.safetensors`")
    target = chosen_size(input_size, size)
    asked = dict(width=width, depth=depth, heads=heads, patch=patch, drop_path=drop_path)
    given = {setting: value for setting, value in asked.items() if value is not None}
    known = list(inspect.signature(builders[name]).parameters)[2:]
    if unknown := next((setting for setting in given if setting not in known), None):
        raise UnknownNameError(f"small/{name} has no setting '{unknown}'. Its settings: {', '.join(['input_size', *known])}.")
    model = builders[name](n_classes, target, **given)
    return Network(model, n_classes, target, mean=MEAN, std=STD, model_name=f"small/{name}")


def _resnet8(n_classes: int, size: tuple[int, int]) -> nn.Module:
    from crossdistill.models._cifar_resnet import CifarResNet

    return CifarResNet(1, n_classes)


def _resnet20(n_classes: int, size: tuple[int, int]) -> nn.Module:
    from crossdistill.models._cifar_resnet import CifarResNet

    return CifarResNet(3, n_classes)


def _wrn_16_2(n_classes: int, size: tuple[int, int]) -> nn.Module:
    from crossdistill.models._cifar_resnet import wide_resnet

    return wide_resnet(n_blocks=2, widen=2, n_classes=n_classes)


def _vgg(n_classes: int, size: tuple[int, int], *, width: int = 32) -> nn.Module:
    from crossdistill.models._small_vgg import SmallVGG

    if width < 1:
        raise SettingError(f"setting 'width' of small/vgg is at least 1, got {width}")
    if min(size) < 8:
        raise SettingError(f"small/vgg halves images three times and takes sides from 8 pixels, got {size[0]} x {size[1]}")
    return SmallVGG(width, n_classes)


def _vit(
    n_classes: int,
    size: tuple[int, int],
    *,
    width: int = 128,
    depth: int = 6,
    heads: int | None = None,
    patch: int = 4,
    drop_path: float = 0.0,
) -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer

    for setting, value in dict(width=width, depth=depth, patch=patch).items():
        if value < 1:
            raise SettingError(f"setting '{setting}' of small/vit is at least 1, got {value}")
    n_heads = heads or max(width // 32, 1)
    if width % n_heads:
        raise SettingError(f"small/vit splits its width over its heads: {width} channels are not a multiple of {n_heads} heads")
    for side in size:
        check_side("small/vit", side, patch)
    return VisionTransformer(
        img_size=size, patch_size=patch, num_classes=n_classes, embed_dim=width, depth=depth, num_heads=n_heads, drop_path_rate=drop_path
    )
