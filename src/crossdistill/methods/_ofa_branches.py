"""OFA-KD's branches: from a stage's features, of any family and size, to logits (official code, distillers/ofa.py and utils)."""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossdistill.core.types import FeatureMap
from crossdistill.ops.projectors import BatchNorm

FINAL_SIDE = 7
"""Token branches work on at most 7 x 7 positions: what the official branches reach at 224 pixels, and what keeps them cheap."""

CLASS_TOKENS = ("cls_token", "class_token", "class_embedding")


def make_branch(
    family: str, stage: int, shape: tuple[int, ...], *, student_width: int, teacher_width: int, n_classes: int,
    n_prefix: int, has_class_token: bool,
) -> nn.Module:  # fmt: skip
    """The branch for the student's stage 1 to 4 whose features have `shape` (channels, height, width): FeatureMap -> logits.

    The widths are those of the pooled vectors; a class token is the first of the `n_prefix` tokens. Weights are drawn from
    torch's global generator: convolutions Kaiming (fan out), linear layers from a truncated normal of 0.02, biases zero.
    """
    if family == "cnn":
        branch: nn.Module = CnnBranch(stage, shape, width=max(student_width, teacher_width), n_classes=n_classes)
    else:
        branch = TokenBranch(stage, shape, width=student_width, n_classes=n_classes, n_prefix=n_prefix, has_class_token=has_class_token)
    return branch.apply(_initialise)


class CnnBranch(nn.Sequential):
    """Stage s: 4 - s halvings of the grid, each doubling the channels, the last one giving `width`; then mean and linear head.

    A grid that is a single position earlier is halved no further; one that is never halved (stage 4) gets a 1 x 1 convolution.
    """

    def __init__(self, stage: int, shape: tuple[int, ...], *, width: int, n_classes: int) -> None:
        channels, height, width_px = shape
        n_halvings = min(4 - stage, (max(height, width_px) - 1).bit_length())  # the grid is halved upwards: 5, 3, 2, 1
        widths = [channels * 2**step for step in range(n_halvings)] + [width]
        halvings = [separable_halving(widths[step], widths[step + 1]) for step in range(n_halvings)]
        mean = nn.AdaptiveAvgPool2d(1)
        # The mean and a 1 x 1 convolution may change places, and fewer positions are projected.
        project = [*halvings, mean] if halvings else [mean, nn.Conv2d(channels, width, 1)]
        super().__init__(*project, nn.Flatten(), nn.Linear(width, n_classes))

    def forward(self, feature_map: FeatureMap) -> Tensor:
        # On a CPU the depthwise convolutions take a third of the time in this layout.
        return super().forward(feature_map.grid.contiguous(memory_format=torch.channels_last))


def separable_halving(channels: int, out_channels: int) -> nn.Sequential:
    """Two separable 3 x 3 convolutions, the first of stride 2, each with BatchNorm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, stride=2, padding=1, groups=channels, bias=False),
        nn.Conv2d(channels, channels, 1, bias=False),
        BatchNorm(channels),
        nn.ReLU(),
        nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
        nn.Conv2d(channels, out_channels, 1, bias=False),
        BatchNorm(out_channels),
        nn.ReLU(),
    )


class TokenBranch(nn.Module):
    """Patch tokens merged or pooled to at most 7 x 7, then max(4 - stage, 1) transformer blocks, then a linear head.

    Merging takes 2 x 2 tokens into one, while a side is longer than 7 positions and both sides are even: 14 to 7 and 56 to 7 as
    in the official code; but also 8 to 4 and 16 to 4, where the official count, floor(log2(side / 7)), merges less and leaves
    branches as costly as the student. What is then still longer than 7 (37, 9) is averaged to 7. Prefix tokens skip all this.
    The head reads the class token, which is the first prefix token, or the mean of the patch tokens where there is none: a
    register token is no class token.
    """

    def __init__(self, stage: int, shape: tuple[int, ...], *, width: int, n_classes: int, n_prefix: int, has_class_token: bool) -> None:
        super().__init__()
        channels, height, width_px = shape
        self.has_class_token = has_class_token
        n_merges = merges_of((height, width_px))
        # The official merge also changes the width; without a merge, or where prefix tokens skip it, a linear layer does.
        widens_first = channels != width and (n_merges == 0 or n_prefix > 0)
        self.widen = nn.Linear(channels, width) if widens_first else nn.Identity()
        entering = width if widens_first else channels
        # The official code drops the activation of the last of several merges, but keeps that of a single one.
        activations = [nn.Identity() if 0 < step == n_merges - 1 else nn.GELU() for step in range(n_merges)]
        self.merge = nn.Sequential(
            *(TokenMerge(width if step else entering, width, activation) for step, activation in enumerate(activations))
        )
        self.blocks = nn.Sequential(*(_block(width) for _ in range(max(4 - stage, 1))))
        self.head = nn.Linear(width, n_classes)

    def forward(self, feature_map: FeatureMap) -> Tensor:
        positions = self.merge(self.widen(feature_map.grid.permute(0, 2, 3, 1)))  # batch height width channels
        tokens = _at_most(FINAL_SIDE, positions).flatten(1, 2)  # batch tokens channels
        if feature_map.prefix is not None:
            tokens = torch.cat([self.widen(feature_map.prefix), tokens], dim=1)
        n_prefix = 0 if feature_map.prefix is None else feature_map.prefix.shape[1]
        answers = self.blocks(tokens)
        return self.head(answers[:, 0] if self.has_class_token and n_prefix else answers[:, n_prefix:].mean(dim=1))


def has_class_token(model: nn.Module) -> bool:
    """Whether the model has a learned class token, by the names of parameters in timm, torchvision and transformers."""
    return any(name.rpartition(".")[2] in CLASS_TOKENS for name, _ in model.named_parameters())


class TokenMerge(nn.Module):
    """Each 2 x 2 positions of [batch, height, width, channels] as one: concatenated, normalised, projected."""

    def __init__(self, channels: int, out_channels: int, activation: nn.Module) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * channels, eps=1e-5)
        self.reduction = nn.Linear(4 * channels, out_channels, bias=False)
        self.activation = activation

    def forward(self, positions: Tensor) -> Tensor:
        batch, height, width, channels = positions.shape
        corners = positions.reshape(batch, height // 2, 2, width // 2, 2, channels).permute(0, 1, 3, 4, 2, 5)
        # Order of the official code: (row, column) offsets (0, 0), (1, 0), (0, 1), (1, 1).
        return self.activation(self.reduction(self.norm(corners.flatten(3))))


def merges_of(size: tuple[int, int]) -> int:
    """How often tokens on a grid of `size` (height, width) are merged 2 x 2: while a side is longer than 7 and both are even.

    >>> [merges_of((side, side)) for side in (56, 14, 8, 7, 37)]
    [3, 1, 1, 0, 0]
    """
    height, width = size
    if max(size) <= FINAL_SIDE or height % 2 or width % 2:
        return 0
    return 1 + merges_of((height // 2, width // 2))


def _at_most(side: int, positions: Tensor) -> Tensor:
    """[batch, height, width, channels] averaged over adaptive windows, so that neither side is longer than `side`."""
    height, width = positions.shape[1:3]
    if max(height, width) <= side:
        return positions
    return F.adaptive_avg_pool2d(positions.permute(0, 3, 1, 2), (min(height, side), min(width, side))).permute(0, 2, 3, 1)


def _block(width: int) -> nn.Module:
    from timm.models.vision_transformer import Block

    n_heads = next(heads for heads in (4, 3, 2, 1) if width % heads == 0)
    # Its epsilon is given, since timm's default changed between versions.
    norm: Any = partial(nn.LayerNorm, eps=1e-6)
    return Block(width, n_heads, norm_layer=norm)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
    if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
