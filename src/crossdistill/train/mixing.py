"""Two images in one: mixup (Zhang et al., ICLR 2018) and CutMix (Yun et al., ICCV 2019), each row with the one before it in the batch.

A row stays for the most part its own image, so that its label and its row in a method's memory stay its own: of a share and its
counterpart the larger one is the own image's. For mixup only the roles change places, since a Beta distribution with two equal
parameters is symmetric; for CutMix boxes of more than half of the image do not occur.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from crossdistill.core.recipe import TrainingConfig
from crossdistill.core.seeds import Part, bits

Box = tuple[int, int, int, int]
"""(top, left, bottom, right) in pixels, the last two not in it."""


@dataclass(frozen=True)
class Mix:
    """How the images of one step are mixed: `share` of the own image, or all of it but `box`, which then has the other share."""

    share: float
    box: Box | None = None

    def __post_init__(self) -> None:
        if not 0.5 <= self.share <= 1:
            raise ValueError(f"share is 0.5 to 1, got {self.share}")

    def images(self, own: Tensor, other: Tensor) -> Tensor:
        """The mixed images: float32 in [0, 1] after mixup, uint8 after CutMix. Both arguments are uint8 [batch, 3, height, width]."""
        if self.box is None:
            return self.share * (own.float() / 255) + (1 - self.share) * (other.float() / 255)
        top, left, bottom, right = self.box
        mixed = own.clone()
        mixed[:, :, top:bottom, left:right] = other[:, :, top:bottom, left:right]
        return mixed

    def targets(self, own: Tensor, other: Tensor) -> Tensor:
        """The mixed target distributions [batch, classes]; all zero where one of the two images has none, since half a target is none."""
        known = (own.sum(dim=1) > 0) & (other.sum(dim=1) > 0)
        return (self.share * own + (1 - self.share) * other) * known[:, None]


def step_mix(recipe: TrainingConfig, size: tuple[int, int], step: int, *who: Part) -> Mix | None:
    """How a step of a training mixes its images, keyed by the step; None where the recipe does not mix.

    Where mixup and cutmix are both on, each step draws one of them, with equal probability.
    """
    if not recipe.mixup and not recipe.cutmix:
        return None
    cuts = bool(recipe.cutmix) and (not recipe.mixup or bits(*who, "mixing", step).random_raw() % 2 == 1)
    alpha, purpose = (recipe.cutmix, "cutmix") if cuts else (recipe.mixup, "mixup")
    random = np.random.Generator(bits(*who, purpose, step))
    share = float(random.beta(alpha, alpha))
    share = max(share, 1 - share)
    return cut(share, size, random.random(), random.random()) if cuts else Mix(share)


def cut(share: float, size: tuple[int, int], down: float, across: float) -> Mix:
    """CutMix with a box of 1 - `share` of the image's area, its centre at the shares `down` and `across` of the sides.

    Its sides are whole even numbers of pixels, rounded down, and what lies outside the image is cut off; the share of targets is what
    the box then covers.

    >>> cut(0.75, (8, 8), 0.5, 0.0)
    Mix(share=0.875, box=(2, 0, 6, 2))
    """
    spans = []
    for side, position in zip(size, (down, across), strict=True):
        centre, half = int(position * side), int(0.5 * (1 - share) ** 0.5 * side)
        spans.append((max(centre - half, 0), min(centre + half, side)))
    (top, bottom), (left, right) = spans
    return Mix(1 - (bottom - top) * (right - left) / (size[0] * size[1]), (top, left, bottom, right))


def with_rows_before(values: Tensor, n_rows: int) -> tuple[Tensor, Tensor]:
    """Each of the last `n_rows` rows, and the row before it: `values` has that of the first in front, or is a whole circle."""
    if len(values) == n_rows:
        return values, torch.roll(values, 1, dims=0)
    return values[1:], values[:-1]
