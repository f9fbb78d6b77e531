"""Hints from a teacher's feature maps (FitNets: Romero et al., ICLR 2015, https://arxiv.org/abs/1412.6550)."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from crossdistill.core.registry import method
from crossdistill.core.types import Activations, Batch, Needs
from crossdistill.methods._features import Stages, repeated_stages
from crossdistill.ops.layouts import normalized_channels
from crossdistill.ops.losses import cross_entropy, widened
from crossdistill.ops.modes import evaluating
from crossdistill.ops.projectors import ConvRegressor, fits_conv_regressor, projected

N_LOOKED_AT = 16  # images, for the question whether a teacher's map has negative values


def fitnet_loss(student_map: Tensor, teacher_map: Tensor) -> Tensor:
    """Mean squared difference of two maps of one shape, over all entries; the student's comes out of its regressor.

    Raises ValueError where the shapes differ.

    >>> fitnet_loss(torch.zeros(1, 2, 1, 1), torch.tensor([1.0, 3.0]).view(1, 2, 1, 1)).item()
    5.0
    """
    if student_map.shape != teacher_map.shape:
        raise ValueError(
            f"the maps must have one shape, got {tuple(student_map.shape)} and {tuple(teacher_map.shape)}: regress the student's map first"
        )
    return (widened(student_map) - widened(teacher_map)).square().mean()


def _needs(settings: Mapping[str, Any], student: Mapping[str, Any], teacher: Mapping[str, Any]) -> Needs:
    stages = settings["stages"]
    refusal = repeated_stages(stages)
    for stage in stages if settings["regressor"] == "convreg" else ():
        if stage in student and stage in teacher and not fits_conv_regressor(student[stage], teacher[stage]):
            refusal = (
                f"no ConvReg leads from the student's {stage} map {student[stage]} to the teacher's {teacher[stage]} "
                "(channels, height, width); set `regressor: conv1x1`."
            )
    return Needs(stages, stages, refusal=refusal)


class Hints(nn.Module):
    """The objective of `fitnet`: a trained regressor on the student's side for each stage."""

    def __init__(self, regressors: Mapping[str, nn.Module], *, keeps_size: bool, normalize: bool) -> None:
        super().__init__()
        self.regressors = nn.ModuleDict(regressors)
        self.keeps_size = keeps_size
        self.normalize = normalize

    def forward(self, batch: Batch, student: Activations, teacher: Activations) -> dict[str, Tensor]:
        hints = [self._hint(stage, student.stages[stage].grid, teacher.stages[stage].grid) for stage in self.regressors]
        return {"ce": cross_entropy(student.logits, batch.targets), "hint": torch.stack(hints).sum()}

    def _hint(self, stage: str, student_grid: Tensor, teacher_grid: Tensor) -> Tensor:
        if self.keeps_size:
            answer, teacher_grid = projected(self.regressors[stage], student_grid, teacher_grid)
        else:
            answer = self.regressors[stage](student_grid)
        if self.normalize:
            answer, teacher_grid = normalized_channels(answer), normalized_channels(teacher_grid)
        return fitnet_loss(answer, teacher_grid)


@method(paper="Romero et al. 2015", weights={"ce": 1.0, "hint": 100.0}, needs=_needs)
def fitnet(
    student: Any,
    teacher: Any,
    images: Any,
    rng: Any,
    *,
    stages: Stages = ("stage3",),
    regressor: Literal["conv1x1", "convreg"] = "conv1x1",
    normalize: bool = False,
) -> Hints:
    """Cross-entropy with the labels, and the squared error between the teacher's map and a trained regression of the student's.

    Weights 1 and 100 and one hint after the second of three groups of blocks as in RepDistiller, which is `stage3` of a CIFAR
    ResNet (its `stage1` is the stem) and lies after 5/6 of a ViT's blocks; with several `stages` their errors are summed. The
    paper trains the hint first and the rest afterwards; here, as in all later code, both are trained together. For pairs of two
    families, tokens are laid out on their grid (class and other prefix tokens do not take part), the larger grid is averaged
    down to the smaller and a 1 x 1 convolution with bias leads to the teacher's channels. `regressor: convreg` is RepDistiller's
    for CNN pairs: a convolution to the teacher's grid, BatchNorm, and ReLU unless the teacher's map has negative values, which
    ReLU could never answer. `normalize` puts a LayerNorm without parameters on both sides: ViT tokens have a few channels and
    positions of very large norm, which a plain squared error would mostly be about.
    """
    student_shapes, teacher_shapes = student.shapes(), teacher.shapes()
    if regressor == "conv1x1":
        hints = {stage: nn.Conv2d(student_shapes[stage][0], teacher_shapes[stage][0], kernel_size=1) for stage in stages}
    else:
        rectified = _without_negatives(teacher, images, stages)
        hints = {stage: ConvRegressor(student_shapes[stage], teacher_shapes[stage], rectified=rectified[stage]) for stage in stages}
    return Hints(hints, keeps_size=regressor == "conv1x1", normalize=normalize)


@torch.no_grad()
def _without_negatives(teacher: Any, images: Any, stages: tuple[str, ...]) -> dict[str, bool]:
    """Which of the teacher's maps have no negative value on the first training images: they come out of a ReLU."""
    seen = torch.from_numpy(np.array(images.images[:N_LOOKED_AT])).to(next(teacher.parameters()).device)
    with evaluating(teacher):
        maps = teacher(seen, taps=stages).stages
    return {stage: bool((maps[stage].grid >= 0).all()) for stage in stages}
