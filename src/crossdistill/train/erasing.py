"""Random erasing (Zhong et al., AAAI 2020, https://arxiv.org/abs/1708.04896): a box of the image in the training images' mean colour.

The boxes are torchvision's. The colour is not zero after normalisation, as it is usual: teacher and student are shown the same
image and normalise it in their own ways.
"""

import math

import torch
from torch import Tensor

from crossdistill.ops.random import uniform_integers
from crossdistill.train.boxes import DRAW, TRIES, drawn_boxes

AREA, RATIO = (0.02, 0.33), (0.3, 3.3)  # of the box: share of the image's area, height over width
FEW = 1024  # images that the mean colour is taken from: their standard error is below a grey level


def mean_color(images: Tensor) -> Tensor:
    """uint8 [3]: the mean colour of images uint8 [images, 3, height, width], of at most 1,024 of them, evenly spread."""
    some = images[:: math.ceil(len(images) / FEW)]
    count = some[:, 0].numel()
    return ((2 * some.sum(dim=(0, 2, 3)) + count) // (2 * count)).to(torch.uint8)


def erased(images: Tensor, keys: Tensor, probability: float, color: Tensor) -> Tensor:
    """The images, with that probability each with a box of one colour, where its key puts it."""
    height, width = images.shape[2:]
    top, left, box_height, box_width = drawn_boxes(keys, (height, width), area=AREA, ratio=RATIO, most=(height - 1, width - 1))
    chosen = uniform_integers(keys, 2 * TRIES + 3, DRAW)[:, -1] < probability * DRAW  # a box takes the draws before
    rows, columns = torch.arange(height, device=images.device), torch.arange(width, device=images.device)
    in_rows = (rows >= top[:, None]) & (rows < (top + box_height * chosen)[:, None])  # batch height
    in_columns = (columns >= left[:, None]) & (columns < (left + box_width)[:, None])  # batch width
    return torch.where((in_rows[:, :, None] & in_columns[:, None, :])[:, None], color[None, :, None, None], images)
