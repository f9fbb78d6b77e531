"""Colour jitter for each image by its key: brightness, contrast, saturation and hue by a random amount each, in random order.

It is torchvision's ColorJitter with amounts of 0.4, 0.4, 0.4 and 0.5: hues turn to anywhere on the circle, so that who trains with it
learns to do without them. Ojha et al. (NeurIPS 2023, section 4.3) ask whether a teacher passes such an invariance on.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from crossdistill.ops.random import uniform_integers
from crossdistill.train.boxes import DRAW

LUMA = (0.2989, 0.587, 0.114)  # torchvision's weights of red, green and blue
STRENGTH = 0.4  # brightness, contrast and saturation are multiplied by 1 - STRENGTH to 1 + STRENGTH
TURN = 0.5  # hues are turned by up to this share of the circle, either way: by all there are
KINDS = ("brightness", "contrast", "saturation", "hue")


def jittered(images: Tensor, keys: Tensor) -> Tensor:
    """The images uint8 [batch, 3, height, width], each with the four changes that its key draws, in the order that it draws."""
    amounts, order = drawn(keys)
    changed = images.clone()
    for of_round in order.unbind(1):
        for kind, name in enumerate(KINDS):
            rows = (of_round == kind).nonzero()[:, 0]
            changed[rows] = operations()[name](changed[rows], amounts[rows, kind])
    return changed


def drawn(keys: Tensor) -> tuple[Tensor, Tensor]:
    """What each key decides: the amount of each of `KINDS`, float64 [batch, kinds] from -1 to 1, and their order, int64 [batch, rounds]."""
    draws = uniform_integers(keys, 2 * len(KINDS), DRAW)
    return draws[:, : len(KINDS)].double() / DRAW * 2 - 1, draws[:, len(KINDS) :].argsort(dim=1)


def operations() -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """The four changes: (images uint8 [batch, 3, height, width], amounts [batch] from -1 to 1, 0 for none) -> images."""
    return {
        "brightness": partial(_away_from, lambda pixels: torch.zeros_like(pixels)),
        "contrast": partial(_away_from, lambda pixels: grey(pixels).mean(dim=(1, 2, 3), keepdim=True)),
        "saturation": partial(_away_from, grey),
        "hue": turned,
    }


def grey(pixels: Tensor) -> Tensor:
    """The luma of float pixels [batch, 3, height, width], cut to whole numbers as torchvision does: [batch, 1, height, width]."""
    weights = torch.tensor(LUMA, device=pixels.device)[:, None, None]
    return (pixels * weights).sum(dim=1, keepdim=True).floor()


def turned(images: Tensor, amounts: Tensor) -> Tensor:
    """The images with all hues turned by a share `amounts` of `TURN`; saturation and value stay."""
    pixels = images.float()
    red, green, blue = pixels.unbind(1)
    value, least = pixels.amax(dim=1), pixels.amin(dim=1)
    chroma = value - least
    divisor = torch.where(chroma == 0, 1, chroma)
    # In sixths of the circle, from red over green and blue back to red.
    hue = torch.where(
        value == red, (green - blue) / divisor, torch.where(value == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor)
    )
    hue = hue + 6 * TURN * amounts.to(pixels)[:, None, None]
    # Each channel is at the value over a third of the circle, at the least for another third, and moves between in sixths.
    place = [(hue + start) % 6 for start in (5, 3, 1)]
    return torch.stack([value - chroma * torch.minimum(at, 4 - at).clamp(0, 1) for at in place], dim=1).round().to(torch.uint8)


def _away_from(origin: Callable[[Tensor], Tensor], images: Tensor, amounts: Tensor) -> Tensor:
    """The images moved away from what `origin` makes of them, or towards it, and cut to 0 to 255."""
    pixels, ratio = images.float(), 1 + STRENGTH * amounts.float()[:, None, None, None]
    return (pixels * ratio + origin(pixels) * (1 - ratio)).clamp(0, 255).to(torch.uint8)
