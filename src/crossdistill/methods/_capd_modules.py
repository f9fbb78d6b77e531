"""CAPD's trained parts: the projectors of the student's map, the discriminator, and the objectives made of them."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossdistill.core.types import Activations, Batch
from crossdistill.methods._capd_terms import (
    Generator,
    capd_attention,
    capd_discriminator,
    capd_features,
    capd_generator,
    capd_value,
    grouped_linear,
    n_blocks,
    release_attention,
    release_ramp,
    release_value,
)
from crossdistill.ops.attention import patch_rows
from crossdistill.ops.layouts import tokens_from_grid
from crossdistill.ops.losses import cross_entropy
from crossdistill.ops.parallel import drawn_rows

Size = tuple[int, int]
HIDDEN = 512  # of the discriminator: the paper gives three layers and no widths
JUDGED = 8
"""Positions of each image that the discriminator judges in a step, drawn afresh: three passes over all of them would cost as
much as student and teacher together, and the mean over a random sample has the same expectation."""
DROPOUT = 0.1
RELEASE_HEADS = 16
RELEASE_EPOCHS = 120


@dataclass(frozen=True)
class Pair:
    """The shapes of a pair: the student's stage that is read, and the teacher's last features and attention."""

    stage: str
    student_channels: int
    student_pooled: int
    teacher_channels: int
    teacher_pooled: int
    grid: Size  # the teacher's
    heads: int
    head_dim: int

    @property
    def n_positions(self) -> int:
        return math.prod(self.grid)

    def student_map(self, student: Activations) -> Tensor:
        """The student's map on the teacher's grid: the method compares position with position, so the teacher's is the measure."""
        grid = student.stages[self.stage].grid
        if tuple(grid.shape[2:]) == self.grid:
            return grid
        if grid.shape[2] >= self.grid[0] and grid.shape[3] >= self.grid[1]:
            return F.adaptive_avg_pool2d(grid, self.grid)
        return F.interpolate(grid, self.grid, mode="bilinear", align_corners=False)


def teacher_features(teacher: Activations) -> Tensor:
    """h_T [batch, positions, channels]: the patch tokens after the final norm."""
    return tokens_from_grid(teacher.stages["last"].grid)


class GroupedLinear(nn.Module):
    """The group-wise linear projector (GL): dropout, then one linear layer for each 4 x 4 neighbourhood."""

    def __init__(self, n_in: int, n_out: int, size: Size, *, dropout: float) -> None:
        super().__init__()
        n_groups = math.prod(n_blocks(size))
        bound = n_in**-0.5  # torch's own for a linear layer
        self.weight = nn.Parameter(torch.empty(n_groups, n_out, n_in).uniform_(-bound, bound))
        # Flat, so that the optimiser, which decays tensors of two dimensions and more, takes it for the bias that it is.
        self.bias = nn.Parameter(torch.empty(n_groups * n_out).uniform_(-bound, bound))
        # Before the layers: dropped outputs would be zeros, which no teacher gives and any discriminator sees.
        self.dropout = dropout

    def forward(self, grid: Tensor) -> Tensor:
        """[batch, n_in, height, width] -> [batch, height * width, n_out]."""
        return grouped_linear(self._thinned(grid), self.weight, self.bias.view(len(self.weight), -1))

    def _thinned(self, grid: Tensor) -> Tensor:
        """Dropout, drawn for the whole batch where several processes share it."""
        if not self.training or not self.dropout:
            return grid
        n_images, channels, height, width = grid.shape
        shape, share = (height, width, channels), 1 - self.dropout  # channels last, as the grid lies in memory
        kept = drawn_rows(lambda rows: torch.empty(rows, *shape, device=grid.device).bernoulli_(share), n_images)
        return grid * kept.div_(share).to(grid.dtype).permute(0, 3, 1, 2)


def make_discriminator(channels: int) -> nn.Sequential:
    """Logits [batch, positions, 1] that a position's features are a teacher's."""
    return nn.Sequential(
        nn.Linear(channels, HIDDEN),
        nn.LeakyReLU(0.2, inplace=True),
        nn.Linear(HIDDEN, HIDDEN),
        nn.LeakyReLU(0.2, inplace=True),
        nn.Linear(HIDDEN, 1),
    )


class PaperObjective(nn.Module):
    """The equations of the paper, with cross-entropy."""

    adversary_rate = 0.01  # as in the authors' code; an equally fast discriminator soon tells every feature apart

    def __init__(self, pair: Pair, generator: Generator) -> None:
        super().__init__()
        self.pair = pair
        self.generator: Generator = generator
        # The paper's three convolutions side by side, for one pass over the map.
        self.partial_attention = nn.Conv2d(pair.student_channels, 3 * pair.heads * pair.head_dim, kernel_size=3, padding=1)
        self.group_linear = GroupedLinear(pair.student_channels, pair.teacher_channels, pair.grid, dropout=DROPOUT)
        self.discriminator = make_discriminator(pair.teacher_channels)
        self.faked: Tensor | None = None  # the student's features of this pass, as the discriminator is shown them

    def forward(self, batch: Batch, student: Activations, teacher: Activations) -> dict[str, Tensor]:
        grid = self.pair.student_map(student)
        rows = patch_rows(teacher.attention, self.pair.n_positions)
        taught = (rows["q"], rows["k"], rows["v"])
        with batch.autocast():  # the layers only: every loss promotes what it is given
            own = self.projections(grid)
            projected = self.group_linear(grid)
            judgement = self.discriminator(self.judged(projected))
        self.faked = projected.detach()
        return {
            "ce": cross_entropy(student.logits, batch.targets),
            "attention": capd_attention(*own, *taught, replaced=self.replaced(taught[0])),
            "value": capd_value(own[2], taught[2]),
            "features": capd_features(projected, teacher_features(teacher)),
            "generator": capd_generator(judgement, generator=self.generator),
        }

    def adversary(self, batch: Batch, student: Activations, teacher: Activations) -> dict[str, Tensor]:
        """The discriminator's own loss; nothing of it reaches the student or its projectors."""
        assert self.faked is not None, "the student's side comes first"
        with batch.autocast():
            real, fake = (self.discriminator(self.judged(features)) for features in (teacher_features(teacher), self.faked))
        return {"discriminate": capd_discriminator(real, fake)}

    def adversary_parameters(self) -> Iterator[nn.Parameter]:
        return self.discriminator.parameters()

    def judged(self, features: Tensor) -> Tensor:
        """The features [batch, positions, channels] at a few random positions; at all of them outside training."""
        if not self.training or features.shape[1] <= JUDGED:
            return features
        return features[:, torch.randperm(features.shape[1], device=features.device)[:JUDGED]]

    def projections(self, grid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The student's q, k and v [batch, heads, positions, head_dim]."""
        # Channels last, positions come out as rows, which attention takes without a copy.
        projected = self.partial_attention(grid.contiguous(memory_format=torch.channels_last))
        rows = tokens_from_grid(projected).unflatten(-1, (3, self.pair.heads, self.pair.head_dim))
        q, k, v = rows.transpose(1, 3).unbind(2)
        return q, k, v

    def replaced(self, like: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
        """Fresh masks of the teacher's share in q, k and v, each element by a coin of its own; none outside training."""
        if not self.training:
            return None
        return _coins(like), _coins(like), _coins(like)


def _coins(like: Tensor) -> Tensor:
    """A fair coin for each element, bool; all coins of an image come after one another, so that processes may share out the images."""
    # Eight coins from one random byte: on a CPU drawing a float for each costs as much as the projections.
    an_image = like[0].numel()
    draw = lambda rows: torch.randint(256, (rows, -(-an_image // 8), 1), dtype=torch.uint8, device=like.device)  # noqa: E731
    bits = 1 << torch.arange(8, dtype=torch.uint8, device=like.device)
    return (drawn_rows(draw, len(like)) & bits).bool().flatten(1)[:, :an_image].view_as(like)


class ReleaseObjective(nn.Module):
    """The released code's loss, its terms apart. Its adversarial term, detached on every side, taught nothing and is left out."""

    def __init__(self, pair: Pair) -> None:
        super().__init__()
        self.pair = pair
        self.heads = math.gcd(RELEASE_HEADS, pair.student_channels)
        self.qkv = nn.Linear(pair.student_channels, 3 * pair.student_channels, bias=False)
        self.group_linear = GroupedLinear(pair.student_channels, pair.teacher_channels, pair.grid, dropout=0.0)
        self.token = nn.Linear(pair.student_pooled, pair.teacher_pooled)

    def forward(self, batch: Batch, student: Activations, teacher: Activations) -> dict[str, Tensor]:
        assert student.pooled is not None, "asked for in `needs`"
        assert teacher.pooled is not None, "asked for in `needs`"
        grid = self.pair.student_map(student)
        q, k, v = self.qkv(tokens_from_grid(grid)).chunk(3, dim=-1)
        taught = patch_rows(teacher.attention, self.pair.n_positions)
        terms = {
            "attention": release_attention(q, k, taught["q"], taught["k"], heads=self.heads),
            "value": release_value(v, taught["v"], heads=self.heads),
            "features": capd_features(self.group_linear(grid), teacher_features(teacher)),
            "logits": F.mse_loss(student.logits, teacher.logits),
            "token": F.mse_loss(self.token(student.pooled), teacher.pooled),
        }
        # Floored to whole epochs of the released 120, which other lengths of training are scaled to.
        ramp = release_ramp(RELEASE_EPOCHS * batch.clock.step // batch.clock.steps)
        return {"ce": cross_entropy(student.logits, batch.targets), **{name: ramp * value for name, value in terms.items()}}
