"""Attention transfer: where on the image the features are strong (Zagoruyko & Komodakis, ICLR 2017, https://arxiv.org/abs/1612.03928)."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from crossdistill.core.registry import method
from crossdistill.core.types import Activations, Batch, Needs
from crossdistill.methods._features import Stages, repeated_stages
from crossdistill.ops.checks import refuse_unpaired
from crossdistill.ops.layouts import to_common_grid
from crossdistill.ops.losses import cross_entropy, widened


def attention_transfer_loss(student_map: Tensor, teacher_map: Tensor) -> Tensor:
    """Mean squared difference of the energy maps of two grids [batch, channels, height, width].

    An image's energy map is the mean over the channels of the squared features, scaled to unit length over its positions; the
    larger grid is averaged down to the smaller before squaring. Channels may differ. Two unit vectors lie at most 2 apart
    (squared, without negative entries), and the mean is over positions: the loss shrinks as 1 / (height * width). The paper
    takes the length of the difference for each image; this is its authors' code. Raises ValueError unless both are grids of one
    batch.

    >>> attention_transfer_loss(torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([[[[0.0, 5.0]]]])).item()
    1.0
    """
    refuse_unpaired(student_map, teacher_map, "batch, channels, height, width")
    student_grid, teacher_grid = to_common_grid(widened(student_map), widened(teacher_map))
    return (_energy(student_grid) - _energy(teacher_grid)).square().mean()


def _energy(grid: Tensor) -> Tensor:
    return F.normalize(grid.square().mean(dim=1).flatten(1), dim=1)  # batch positions


def _needs(settings: Mapping[str, Any], student: Mapping[str, Any], teacher: Mapping[str, Any]) -> Needs:
    return Needs(settings["stages"], settings["stages"], refusal=repeated_stages(settings["stages"]))


@method(paper="Zagoruyko & Komodakis 2017", weights={"ce": 1.0, "attention": 1000.0}, needs=_needs)
def attention_transfer(
    student: Any,
    teacher: Any,
    images: Any,
    rng: Any,
    *,
    stages: Stages = ("stage2", "stage3", "stage4"),
) -> Callable[..., dict[str, Tensor]]:
    """Cross-entropy with the labels, and the squared difference of the energy maps, summed over `stages`: where, never what.

    Weights 1 and 1000, energy of power 2 and the three groups of blocks of a CIFAR ResNet as in the authors' code and
    RepDistiller: `stage2` to `stage4`, since `stage1` is the stem of such a network. Nothing is trained beside the student and
    channels need not agree. A ViT gives the energy of its patch tokens on their grid, the mean of squares over the channels, and
    not its attention matrices (which are another thing, with another method: `capd`); prefix tokens do not take part. Where the
    grids differ, the larger is averaged down to the smaller. The mean over positions makes the loss shrink with their number: a
    weight tuned on 8 x 8 to 32 x 32 maps weighs a 7 x 7 stage 21 times as much as a 32 x 32 stage.
    """

    def objective(batch: Batch, student: Activations, teacher: Activations) -> dict[str, Tensor]:
        losses = [attention_transfer_loss(student.stages[stage].grid, teacher.stages[stage].grid) for stage in stages]
        return {"ce": cross_entropy(student.logits, batch.targets), "attention": torch.stack(losses).sum()}

    return objective
