"""Random boxes inside an image, one for each key: drawn as torchvision draws its resized crops and its erased boxes, for a whole batch.

The draws are integers. What follows is float64, rounded to whole pixels: the last bit in which machines may differ decides nothing.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from crossdistill.ops.random import uniform_integers

TRIES = 10
DRAW = 1 << 31


class Boxes(NamedTuple):
    """Boxes of whole pixels, int64 [batch] each; `height` is 0 where none was found."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor


def drawn_boxes(
    keys: Tensor, size: tuple[int, int], *, area: tuple[float, float], ratio: tuple[float, float], most: tuple[int, int]
) -> Boxes:
    """The first of ten tries that fits into `most` (height, width), anywhere in an image of `size`; of height 0 where none fits.

    Its share of the image's area is uniform in `area`; the logarithm of its height over its width is uniform in those of `ratio`.
    """
    draws = uniform_integers(keys, 2 * TRIES + 2, DRAW)
    share, slope = (draws[:, : 2 * TRIES].view(-1, 2, TRIES).double() / DRAW).unbind(1)  # batch tries
    pixels = (area[0] + (area[1] - area[0]) * share) * (size[0] * size[1])
    quotient = torch.exp(math.log(ratio[0]) + math.log(ratio[1] / ratio[0]) * slope)
    heights, widths = (pixels * quotient).sqrt().round().long(), (pixels / quotient).sqrt().round().long()
    fits = (heights > 0) & (heights <= most[0]) & (widths > 0) & (widths <= most[1])
    first = fits.byte().argmax(dim=1, keepdim=True)  # of equals, argmax is the first
    height, width = (sides.gather(1, first)[:, 0] * fits.any(dim=1) for sides in (heights, widths))
    top, left = ((draws[:, 2 * TRIES + i] * (size[i] - side + 1)) // DRAW for i, side in enumerate((height, width)))
    return Boxes(top, left, height, width)
