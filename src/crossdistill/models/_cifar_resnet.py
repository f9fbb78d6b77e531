"""Residual networks for images of 32 to 64 pixels, of timm's blocks, with timm's interface."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from timm.layers.classifier import ClassifierHead
from timm.layers.create_conv2d import create_conv2d
from timm.layers.norm_act import BatchNormAct2d
from timm.models._features import feature_take_indices
from timm.models.resnet import BasicBlock, downsample_conv
from timm.models.resnetv2 import ResNetV2
from torch import Tensor, nn


class CifarResNet(nn.Module):
    """The CIFAR ResNet of He et al. 2016, section 4.2 (https://arxiv.org/abs/1512.03385): depth 6 * n_blocks + 2.

    A 3 x 3 stem, then three stages of 16, 32 and 64 channels. Where the shape changes, the shortcut is timm's 1 x 1
    projection (the paper's option B); the paper's CIFAR networks pad with zeros (option A), which saves 3 thousand parameters.
    timm's own ResNet class has four stages and a stem of 64 channels built in, so its blocks are used here rather than the class.
    """

    def __init__(self, n_blocks: int, n_classes: int) -> None:
        super().__init__()
        self.num_classes = n_classes
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.act1 = nn.ReLU(inplace=True)
        self.layer1 = _stage(16, 16, n_blocks, stride=1)
        self.layer2 = _stage(16, 32, n_blocks, stride=2)
        self.layer3 = _stage(32, 64, n_blocks, stride=2)
        self.num_features = 64
        self.head = ClassifierHead(64, n_classes, pool_type="avg")
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def get_classifier(self) -> nn.Module:
        return self.head.fc

    def forward_intermediates(self, x: Tensor, indices: Any = None, *, output_fmt: str = "NCHW") -> tuple[Tensor, list[Tensor]]:
        """The final map, and the maps after the stem and the three stages that `indices` choose."""
        return _maps_of((self._stem, self.layer1, self.layer2, self.layer3), x, indices)

    def forward_features(self, x: Tensor) -> Tensor:
        return self.layer3(self.layer2(self.layer1(self._stem(x))))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        return self.head(x, pre_logits=pre_logits)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def _stem(self, x: Tensor) -> Tensor:
        return self.act1(self.bn1(self.conv1(x)))


class WideResNet(ResNetV2):
    """timm's pre-activation ResNet; its own `forward_intermediates` expects, up to timm 1.0.30, a stem that halves the image."""

    def forward_intermediates(  # type: ignore[override]
        self, x: Tensor, indices: Any = None, *, output_fmt: str = "NCHW"
    ) -> tuple[Tensor, list[Tensor]]:
        """The final map, and the maps after the stem and the three stages that `indices` choose (before the final norm)."""
        final, maps = _maps_of((self.stem, *self.stages), x, indices)
        return self.norm(final), maps


def _maps_of(parts: Sequence[Callable[[Tensor], Tensor]], x: Tensor, indices: Any) -> tuple[Tensor, list[Tensor]]:
    taken, _ = feature_take_indices(len(parts), indices)
    maps: list[Tensor] = []
    for index, part in enumerate(parts):
        x = part(x)
        if index in taken:
            maps.append(x)
    return x, maps


def _stage(n_in: int, n_out: int, n_blocks: int, *, stride: int) -> nn.Sequential:
    shortcut = downsample_conv(n_in, n_out, kernel_size=1, stride=stride) if stride != 1 or n_in != n_out else None
    first = BasicBlock(n_in, n_out, stride=stride, downsample=shortcut)
    return nn.Sequential(first, *(BasicBlock(n_out, n_out) for _ in range(n_blocks - 1)))


def wide_resnet(*, n_blocks: int, widen: int, n_classes: int) -> nn.Module:
    """A wide ResNet (Zagoruyko & Komodakis 2016, https://arxiv.org/abs/1605.07146) of depth 6 * n_blocks + 4.

    timm's pre-activation ResNet with three stages and a 3 x 3 stem in place of its stem for large photographs.
    """
    model = WideResNet(
        layers=[n_blocks] * 3,
        channels=(16 * widen, 32 * widen, 64 * widen),
        num_classes=n_classes,
        stem_chs=16,
        basic=True,
        bottle_ratio=1.0,
        conv_layer=create_conv2d,
        norm_layer=partial(BatchNormAct2d, eps=1e-5),
    )
    stem = nn.Conv2d(3, 16, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
    model.stem = nn.Sequential(stem)
    # The linear head, since the class's own is a 1 x 1 convolution.
    model.head = ClassifierHead(model.num_features, n_classes, pool_type="avg")
    return model
