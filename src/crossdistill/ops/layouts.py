"""Tokens and grids: two layouts of the same features. Token n stands at row n // width, column n % width."""

from torch import Tensor

from crossdistill.core.types import FeatureMap
from crossdistill.ops.losses import widened


def tokens_from_grid(grid: Tensor) -> Tensor:
    """The positions of a grid [batch, channels, height, width] as tokens [batch, height * width, channels], row by row.

    >>> import torch
    >>> tokens_from_grid(torch.arange(4).view(1, 1, 2, 2)).flatten().tolist()
    [0, 1, 2, 3]
    """
    return grid.flatten(2).transpose(1, 2)


def grid_from_tokens(tokens: Tensor, size: tuple[int, int], *, n_prefix: int = 0) -> FeatureMap:
    """Tokens [batch, n_prefix + height * width, channels] as a FeatureMap; `size` is (height, width).

    Raises ValueError where the number of tokens does not fit.

    >>> import torch
    >>> tokens = torch.arange(5).view(1, 5, 1)
    >>> feature_map = grid_from_tokens(tokens, (2, 2), n_prefix=1)
    >>> feature_map.grid.tolist(), feature_map.prefix.tolist()
    ([[[[1, 2], [3, 4]]]], [[[0]]])
    """
    height, width = size
    if tokens.shape[1] != n_prefix + height * width:
        raise ValueError(f"{tokens.shape[1]} tokens are not {n_prefix} prefix tokens and a {height} x {width} grid")
    grid = tokens[:, n_prefix:].transpose(1, 2).reshape(tokens.shape[0], tokens.shape[2], height, width)
    return FeatureMap(grid, tokens[:, :n_prefix] if n_prefix else None)


def widened_map(feature_map: FeatureMap) -> FeatureMap:
    """The FeatureMap with half and bfloat16 values as float32."""
    prefix = feature_map.prefix
    return FeatureMap(widened(feature_map.grid), None if prefix is None else widened(prefix))
