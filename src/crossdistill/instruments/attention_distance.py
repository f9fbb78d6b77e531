"""How far each head looks: the mean distance of its attention (Dosovitskiy et al., ICLR 2021, arXiv 2010.11929, appendix D.7)."""

import numpy as np
import torch
from torch import Tensor

from crossdistill.core.registry import instrument
from crossdistill.instruments._blocks import attending_grid, of_each_block
from crossdistill.instruments._passes import as_rows
from crossdistill.ops.network import Network


def patch_distances(grid: tuple[int, int], patch: tuple[float, float]) -> Tensor:
    """Distances in pixels between the centres of all patches, [patches, patches]; both arguments are (height, width)."""
    rows, columns = torch.arange(grid[0]) * patch[0], torch.arange(grid[1]) * patch[1]
    centres = torch.cartesian_prod(rows.double(), columns.double())
    return torch.cdist(centres, centres, compute_mode="donot_use_mm_for_euclid_dist")


def uniform_distance(grid: tuple[int, int], patch: tuple[float, float]) -> float:
    """The mean attention distance in pixels of a head that attends to all patches alike, its own included.

    >>> round(uniform_distance((14, 14), (16, 16)), 1), round(uniform_distance((8, 8), (4, 4)), 1)
    (116.5, 16.5)
    """
    return float(patch_distances(grid, patch).mean())


def mean_distances(scores: Tensor, distances: Tensor) -> Tensor:
    """Mean over query patches i of sum_j A_ij d(i, j), [images, heads], for scores [images, heads, tokens, tokens].

    The patches are the last tokens. The softmax runs over the patches alone, which is the whole attention without the prefix
    tokens' columns, its rows renormalised, also where nearly all of it lies on the prefix.
    """
    n_patches = len(distances)
    attention = scores[..., -n_patches:, -n_patches:].softmax(dim=-1)
    return (attention * distances.to(attention)).sum(dim=-1).mean(dim=-1)


@instrument(source="Dosovitskiy et al., ICLR 2021", unit="share of uniform")
def attention_distance(network: Network, images: Tensor) -> np.ndarray:
    """[images, layers, heads]: the mean attention distance of each head, divided by that of uniform attention (`uniform_distance`).

    For vision transformers whose blocks attend over all patches, with or without a position bias. Times `uniform_distance` of the
    patch grid and the patch size it is in pixels.
    """
    grid = attending_grid(network)
    patch = (network.input_size[0] / grid[0], network.input_size[1] / grid[1])
    distances = patch_distances(grid, patch).to(images.device)
    layers = of_each_block(network, images, grid, lambda scores: mean_distances(scores, distances))
    return as_rows(torch.stack(layers, dim=1) / uniform_distance(grid, patch))
