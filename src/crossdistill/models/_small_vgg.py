"""A VGG for images of 32 to 64 pixels, with timm's interface: what probes that need an encoder are given where there are no weights."""

from itertools import pairwise
from typing import Any

import torch.nn.functional as F
from timm.layers.classifier import ClassifierHead
from timm.models._features import feature_take_indices
from torch import Tensor, nn


class SmallVGG(nn.Module):
    """Four stages of two 3 x 3 convolutions each (Simonyan & Zisserman, ICLR 2015), `width` to 4 * `width` channels, halved in between.

    Batch normalisation makes a short training enough. Averages halve the maps where the paper takes maxima: images optimised
    through averages are smoother (Gatys et al., CVPR 2016, section 2). It takes images of any size from 8 pixels a side.
    """

    def __init__(self, width: int, n_classes: int) -> None:
        super().__init__()
        self.num_classes = n_classes
        self.num_features = 4 * width
        channels = [3, width, 2 * width, 4 * width, 4 * width]
        stages = (nn.Sequential(*_convolution(n_in, n_out), *_convolution(n_out, n_out)) for n_in, n_out in pairwise(channels))
        self.stages = nn.ModuleList(stages)
        self.head = ClassifierHead(self.num_features, n_classes, pool_type="avg")
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def get_classifier(self) -> nn.Module:
        return self.head.fc

    def forward_intermediates(self, x: Tensor, indices: Any = None, *, output_fmt: str = "NCHW") -> tuple[Tensor, list[Tensor]]:
        """The final map, and those of the four stages that `indices` choose, each before it is halved."""
        taken, _ = feature_take_indices(len(self.stages), indices)
        maps: list[Tensor] = []
        for number, stage in enumerate(self.stages):
            x = stage(F.avg_pool2d(x, 2) if number else x)
            if number in taken:
                maps.append(x)
        return x, maps

    def forward_features(self, x: Tensor) -> Tensor:
        return self.forward_intermediates(x, 1)[0]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        return self.head(x, pre_logits=pre_logits)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


def _convolution(n_in: int, n_out: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(n_in, n_out, 3, padding=1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU(inplace=True)
