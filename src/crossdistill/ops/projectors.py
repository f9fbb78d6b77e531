"""Trained maps from a student's features to a teacher's shape, which methods share.

Where a linear map is enough, methods take torch's own: `nn.Linear` on vectors, `nn.Conv2d(..., kernel_size=1)` on grids.
"""

from torch import Tensor, nn

GridShape = tuple[int, ...]  # (channels, height, width)


class ConvRegressor(nn.Module):
    """A convolution to the teacher's channels and grid, BatchNorm, ReLU: RepDistiller's ConvReg (https://github.com/HobbitLong/RepDistiller).

    Shapes are (channels, height, width). Half and double the teacher's size are reached by stride 2, a larger map by a
    convolution without padding; ValueError for other sizes. Without `rectified` there is no ReLU, which features with negative
    values need: a rectified answer could never equal them.
    """

    def __init__(self, student_shape: GridShape, teacher_shape: GridShape, *, rectified: bool = True) -> None:
        super().__init__()
        self.conv = _convolution(student_shape, teacher_shape)
        self.bn = nn.BatchNorm2d(teacher_shape[0])
        self.activation = nn.ReLU() if rectified else nn.Identity()

    def forward(self, grid: Tensor) -> Tensor:
        """[batch, student's channels, height, width] -> [batch, *teacher's shape]."""
        values = self.conv(grid)
        # One value a channel (one image, one position) has no variance, and BatchNorm would raise an error.
        return self.activation(self.bn(values) if values[:, 0].numel() > 1 else values)


def fits_conv_regressor(student_shape: GridShape, teacher_shape: GridShape) -> bool:
    """Whether a ConvRegressor leads from the one grid to the other."""
    student, teacher = student_shape[1:], teacher_shape[1:]
    larger = all(a >= b for a, b in zip(student, teacher, strict=True))
    return larger or _scaled(student, 2) == tuple(teacher)


def _convolution(student_shape: GridShape, teacher_shape: GridShape) -> nn.Module:
    student, teacher = student_shape[1:], teacher_shape[1:]
    channels = student_shape[0], teacher_shape[0]
    if tuple(student) == _scaled(teacher, 2):
        return nn.Conv2d(*channels, kernel_size=3, stride=2, padding=1)
    if tuple(teacher) == _scaled(student, 2):
        return nn.ConvTranspose2d(*channels, kernel_size=4, stride=2, padding=1)
    if fits_conv_regressor(student_shape, teacher_shape):
        return nn.Conv2d(*channels, kernel_size=(1 + student[0] - teacher[0], 1 + student[1] - teacher[1]))
    sizes = " to ".join(f"{height} x {width}" for height, width in (student, teacher))
    raise ValueError(f"a convolution leads to a grid of half, double or smaller size, not from {sizes}")


def _scaled(size: tuple[int, ...], factor: int) -> tuple[int, ...]:
    return tuple(factor * side for side in size)
