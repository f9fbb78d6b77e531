"""What the centre of the last map depends on: the gradient with respect to the pixels (Luo et al., NeurIPS 2016, arXiv 1701.04128)."""

import numpy as np
import torch
from torch import Tensor

from crossdistill.core.registry import instrument
from crossdistill.instruments._passes import as_rows, pixels_of, undisturbed
from crossdistill.ops.network import Network

STEPS = 256
"""Sides are told apart to this part of the image; the rings of pixels of a 32, 64 or 128 pixel image fall on it exactly."""


def centre_gradient(network: Network, images: Tensor) -> Tensor:
    """|d centre / d pixel| summed over colours, [images, height, width]; the centre is the middle unit of `stage4`, channels summed.

    Of an even grid the four middle units are averaged. `stage4` is the last map before the final norm: the channels of a position
    after a LayerNorm add up to a constant, whose gradient is zero. Blocks that normalise what they add (Swin V2) therefore hide most
    of it from this sum, the more so the less they are trained.
    """
    pixels = pixels_of(images)
    with undisturbed(network, images), torch.enable_grad():
        grid = network(pixels, ["stage4"]).stages["stage4"].grid
        height, width = grid.shape[-2:]
        middle = grid[:, :, (height - 1) // 2 : height // 2 + 1, (width - 1) // 2 : width // 2 + 1]
        (gradient,) = torch.autograd.grad(middle.mean(dim=(2, 3)).sum(), pixels)
    return gradient.abs().sum(dim=1)


def mass_within(values: np.ndarray) -> np.ndarray:
    """The sum of each map [images, height, width] inside centred squares of side 0, 1/256, ... 1 of the image's: [images, 257].

    What a ring of pixels holds is spread evenly over its area, so that sides are not rounded to whole pixels. Where the image is no
    square, neither are they: both sides are the same part of the image's.
    """
    height, width = values.shape[1:]
    # The side of the smallest centred square that holds the whole pixel.
    rows, columns = ((np.abs(2 * np.arange(n) + 1 - n) + 1) / n for n in (height, width))
    sides, ring = np.unique(np.maximum(rows[:, None], columns), return_inverse=True)
    of_ring = np.stack([np.bincount(ring.ravel(), weights=image.ravel()) for image in values.astype(np.float64)])
    inside = np.concatenate([np.zeros((len(values), 1)), of_ring.cumsum(axis=1)], axis=1)
    areas = np.concatenate([[0.0], sides**2])
    return np.stack([np.interp(np.linspace(0, 1, STEPS + 1) ** 2, areas, image) for image in inside])


@instrument(source="Luo et al., NeurIPS 2016", unit="gradient per pixel value")
def receptive_field(network: Network, images: Tensor) -> np.ndarray:
    """[images, sides]: the gradient's mass inside centred squares whose sides run from 0 to 1 of the image's in steps of 1/256.

    For networks of every family, at the images' own size. `centre_gradient` gives the maps; the metric
    `effective_receptive_field` reads the sides that hold 50 and 99 % of the mass.
    """
    return mass_within(as_rows(centre_gradient(network, images))).astype(np.float32)
