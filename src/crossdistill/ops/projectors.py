"""Trained maps from a student's features to a teacher's shape, which methods share.

Where a linear map is enough, methods take torch's own: `nn.Linear` on vectors, `nn.Conv2d(..., kernel_size=1)` on grids.
"""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from crossdistill.ops.layouts import to_common_grid

GridShape = tuple[int, ...]  # (channels, height, width)


class BatchNorm(nn.modules.batchnorm._BatchNorm):
    """BatchNorm of [batch, channels] or [batch, channels, height, width] that passes a single value a channel in train mode.

    One value, as of one image on one position, has no variance, and torch refuses it; here the running statistics answer, and stay.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"expected [batch, channels, ...], got {tuple(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:
        if input.numel() > input.shape[1]:
            return super().forward(input)
        return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps)


def projected(projection: nn.Module, student_grid: Tensor, teacher_grid: Tensor) -> tuple[Tensor, Tensor]:
    """The student's grid, projected, and the teacher's, on the smaller of the two sizes; `projection` is a 1 x 1 convolution.

    The larger grid is averaged before that: averaging and a 1 x 1 convolution may change places, and fewer positions are projected.
    """
    student_grid, teacher_grid = to_common_grid(student_grid, teacher_grid)
    return projection(student_grid), teacher_grid


class ConvRegressor(nn.Module):
    """A convolution to the teacher's channels and grid, BatchNorm, ReLU: RepDistiller's ConvReg (https://github.com/HobbitLong/RepDistiller).

    Shapes are (channels, height, width). Half and double the teacher's size are reached by stride 2, a larger map by a
    convolution without padding; ValueError for other sizes. Without `rectified` there is no ReLU, which features with negative
    values need: a rectified answer could never equal them.
    """

    def __init__(self, student_shape: GridShape, teacher_shape: GridShape, *, rectified: bool = True) -> None:
        super().__init__()
        found = _convolution(student_shape[1:], teacher_shape[1:])
        if found is None:
            sizes = " to ".join(f"{height} x {width}" for _, height, width in (student_shape, teacher_shape))
            raise ValueError(f"a convolution leads to a grid of half, double or smaller size, not from {sizes}")
        kind, settings = found
        self.conv = kind(student_shape[0], teacher_shape[0], **settings)
        self.bn = BatchNorm(teacher_shape[0])
        self.activation = nn.ReLU() if rectified else nn.Identity()

    def forward(self, grid: Tensor) -> Tensor:
        """[batch, student's channels, height, width] -> [batch, *teacher's shape]."""
        return self.activation(self.bn(self.conv(grid)))


def fits_conv_regressor(student_shape: GridShape, teacher_shape: GridShape) -> bool:
    """Whether a ConvRegressor leads from the one grid to the other."""
    return _convolution(student_shape[1:], teacher_shape[1:]) is not None


def _convolution(student: tuple[int, ...], teacher: tuple[int, ...]) -> tuple[type[nn.Module], dict[str, Any]] | None:
    """The convolution from one size (height, width) to the other, as its class and settings; None where none leads there."""
    if student == _doubled(teacher):
        return nn.Conv2d, {"kernel_size": 3, "stride": 2, "padding": 1}
    if teacher == _doubled(student):
        return nn.ConvTranspose2d, {"kernel_size": 4, "stride": 2, "padding": 1}
    if all(a >= b for a, b in zip(student, teacher, strict=True)):
        return nn.Conv2d, {"kernel_size": tuple(1 + a - b for a, b in zip(student, teacher, strict=True))}
    return None


def _doubled(size: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(2 * side for side in size)
