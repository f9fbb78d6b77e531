"""Tokens and grids: two layouts of the same features. Token n stands at row n // width, column n % width."""

import torch.nn.functional as F
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


def to_common_grid(student_grid: Tensor, teacher_grid: Tensor) -> tuple[Tensor, Tensor]:
    """Student's and teacher's grids [batch, channels, height, width] on the smaller of the two sizes, axis by axis.

    The larger is averaged down (adaptive average pooling: plain average pooling where the sizes divide, overlapping windows
    otherwise). Upsampling would have the student match values that the teacher never computed.

    >>> import torch
    >>> student, teacher = to_common_grid(torch.arange(4.0).view(1, 1, 1, 4), torch.zeros(1, 3, 2, 2))
    >>> student.tolist(), tuple(teacher.shape)
    ([[[[0.5, 2.5]]]], (1, 3, 1, 2))
    """
    height = min(student_grid.shape[2], teacher_grid.shape[2])
    width = min(student_grid.shape[3], teacher_grid.shape[3])
    return _pooled_to(student_grid, (height, width)), _pooled_to(teacher_grid, (height, width))


def _pooled_to(grid: Tensor, size: tuple[int, int]) -> Tensor:
    return grid if tuple(grid.shape[2:]) == size else F.adaptive_avg_pool2d(grid, size)


def normalized_channels(grid: Tensor) -> Tensor:
    """A grid [batch, channels, height, width] whose channels have zero mean and unit variance at each position.

    A LayerNorm without parameters: no channel and no position of large norm, as ViTs have them, outweighs the others.
    """
    return F.layer_norm(grid.permute(0, 2, 3, 1), grid.shape[1:2]).permute(0, 3, 1, 2)
