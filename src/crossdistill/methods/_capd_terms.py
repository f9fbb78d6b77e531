"""CAPD's terms: those of the paper's equations (Liu et al., ACCV 2022) and those of the authors' released code."""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from crossdistill.ops.layouts import tokens_from_grid
from crossdistill.ops.losses import widened, without_autocast

Generator = Literal["non_saturating", "saturating"]

BLOCK = 4
"""Side of the neighbourhood of positions that share one layer of the group-wise linear projector."""


@without_autocast
def capd_attention(
    student_q: Tensor, student_k: Tensor, student_v: Tensor, teacher_q: Tensor, teacher_k: Tensor, teacher_v: Tensor, *,
    replaced: tuple[Tensor, Tensor, Tensor] | None = None,
) -> Tensor:  # fmt: skip
    """Mean squared error between the student's and the teacher's attention output softmax(q k^T / sqrt(d)) v (in L_proj1).

    All are [batch, heads, positions, head_dim], patch positions only. `replaced` are the paper's partial cross-attention masks
    g for q, k and v, bool of that shape: where True the teacher's element stands in for the student's. Replacing all gives 0.

    >>> import torch
    >>> ones, twos = torch.ones(1, 1, 2, 3), torch.full((1, 1, 2, 3), 2.0)
    >>> capd_attention(ones, ones, ones, ones, ones, twos).item()  # equal values, whatever the scores: 1 against 2
    1.0
    """
    student = [_rows(values) for values in (student_q, student_k, student_v)]
    teacher = [_rows(values) for values in (teacher_q, teacher_k, teacher_v)]
    for own, given in zip(student, teacher, strict=True):
        _check_equal(own, given)
    if replaced is not None:  # exact at 0 and at 1, and on a CPU twice as fast, there and back, as `where`
        student = [own.lerp(given, mask.to(own.dtype)) for mask, given, own in zip(replaced, teacher, student, strict=True)]
    return _mean_square(_attended(*student), _attended(*teacher))


@without_autocast
def capd_value(student_v: Tensor, teacher_v: Tensor) -> Tensor:
    """Mean squared error between v v^T / sqrt(d) of student and teacher, head by head (in L_proj1).

    Both are [batch, heads, positions, head_dim], patch positions only; the student's are its own, nothing replaced.

    >>> import torch
    >>> capd_value(torch.zeros(1, 1, 1, 4), torch.ones(1, 1, 1, 4)).item()  # (4 / sqrt(4))^2
    4.0
    """
    _check_equal(student_v, teacher_v)
    student, teacher = _rows(student_v), _rows(teacher_v)
    return _mean_square(student @ student.mT, teacher @ teacher.mT) / student.shape[-1]


@without_autocast
def capd_features(projected: Tensor, teacher_features: Tensor) -> Tensor:
    """Mean squared error between projected student and teacher features [batch, positions, channels] (L_proj2)."""
    return _mean_square(widened(projected), widened(teacher_features))


def capd_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """The discriminator's loss, mean of -log D(teacher) plus mean of -log(1 - D(student)), from its logits D of any shape (L_MAD)."""
    return F.softplus(-widened(real)).mean() + F.softplus(widened(fake)).mean()


def capd_generator(fake: Tensor, *, generator: Generator = "non_saturating") -> Tensor:
    """The student's loss against the discriminator's logits of its features (L_MVG).

    "saturating" is the paper's mean of log(1 - D), whose gradient vanishes where the discriminator is sure;
    "non_saturating" is the mean of -log D, with the same fixed point and a gradient there.
    """
    if generator not in ("non_saturating", "saturating"):
        raise ValueError(f"generator is non_saturating or saturating, got {generator!r}")
    logits = widened(fake)
    return F.softplus(-logits).mean() if generator == "non_saturating" else -F.softplus(logits).mean()


def grouped_linear(grid: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A grid [batch, C, height, width] through one linear layer for each 4 x 4 neighbourhood: [batch, height * width, D].

    `weight` [groups, D, C] and `bias` [groups, D] have ceil(height / 4) * ceil(width / 4) groups, row by row: position (r, c)
    takes layer (r // 4) * ceil(width / 4) + c // 4. Raises ValueError for other shapes.
    """
    batch, channels, height, width = grid.shape
    rows, columns = n_blocks((height, width))
    if len(weight) != rows * columns:
        raise ValueError(f"a {height} x {width} grid has {rows} x {columns} neighbourhoods of {BLOCK} x {BLOCK}, got {len(weight)} layers")
    if bias.shape != weight.shape[:2]:
        raise ValueError(f"weight [groups, D, C] needs bias [groups, D], got {tuple(weight.shape)} and {tuple(bias.shape)}")
    # Padded to whole neighbourhoods, so that one batched product serves them all.
    padded = F.pad(grid, (0, columns * BLOCK - width, 0, rows * BLOCK - height))
    blocks = padded.reshape(batch, channels, rows, BLOCK, columns, BLOCK).permute(2, 4, 0, 3, 5, 1)  # rows columns batch 4 4 channels
    mapped = bias[:, None] + blocks.reshape(len(weight), -1, channels) @ weight.mT
    mapped = mapped.view(rows, columns, batch, BLOCK, BLOCK, -1).permute(2, 0, 3, 1, 4, 5)
    return mapped.reshape(batch, rows * BLOCK, columns * BLOCK, -1)[:, :height, :width].flatten(1, 2)


def n_blocks(size: tuple[int, ...]) -> tuple[int, ...]:
    """How many neighbourhoods of 4 cover each side.

    >>> n_blocks((14, 8))
    (4, 2)
    """
    return tuple(-(-side // BLOCK) for side in size)


@without_autocast
def capd_release(
    student_map: Tensor, student_logits: Tensor, teacher_logits: Tensor, student_token: Tensor, teacher_token: Tensor,
    teacher_features: Tensor, teacher_q: Tensor, teacher_k: Tensor, teacher_v: Tensor, *, heads: int, qkv_weight: Tensor,
    group_weight: Tensor, group_bias: Tensor,
) -> dict[str, Tensor]:  # fmt: skip
    """The released code's loss in its two parts, weighted as released but for the ramp: {"attention", "features"}.

    `student_map` [batch, C, height, width] on the teacher's grid, `teacher_features` [batch, positions, D] and the teacher's
    q, k, v [batch, heads, 1 + positions, head_dim], class token first; `student_token` is what the student projects its pooled
    vector to. `qkv_weight` [3C, C] gives the student's q, k, v in `heads` heads; `group_*` as in `grouped_linear`.
    Raises ValueError where shapes do not fit, or heads do not divide C.
    """
    n_positions, channels = teacher_features.shape[1], student_map.shape[1]
    if heads < 1 or channels % heads:
        raise ValueError(f"heads must divide the student's {channels} channels, got {heads}")
    if qkv_weight.shape != (3 * channels, channels):
        raise ValueError(f"qkv_weight must be [3C, C] of the student's {channels} channels, got {tuple(qkv_weight.shape)}")
    _check_equal(student_logits, teacher_logits)
    _check_equal(student_token, teacher_token)
    qkv_weight, group_weight, group_bias = (widened(values) for values in (qkv_weight, group_weight, group_bias))
    student_q, student_k, student_v = F.linear(tokens_from_grid(widened(student_map)), qkv_weight).chunk(3, dim=-1)
    teacher_q, teacher_k, teacher_v = (widened(values)[:, :, -n_positions:] for values in (teacher_q, teacher_k, teacher_v))
    projected = grouped_linear(widened(student_map), group_weight, group_bias)
    attention = 0.2 * release_attention(student_q, student_k, teacher_q, teacher_k, heads=heads)
    value = 0.05 * release_value(student_v, teacher_v, heads=heads)
    matched = F.mse_loss(widened(student_logits), widened(teacher_logits)) + F.mse_loss(widened(student_token), widened(teacher_token))
    return {"attention": attention + value, "features": matched + 0.05 * capd_features(projected, teacher_features)}


def release_attention(student_q: Tensor, student_k: Tensor, teacher_q: Tensor, teacher_k: Tensor, *, heads: int) -> Tensor:
    """Mean squared error between the scores q k^T / sqrt(d) before the softmax, each averaged over its own heads.

    The student's are [batch, positions, C] in `heads` heads of d = C / heads, the teacher's [batch, heads, positions, d].
    """
    # The mean over heads of q k^T is the product over all channels at once, divided by the number of heads.
    student = student_q @ student_k.mT / (heads * (student_q.shape[-1] / heads) ** 0.5)
    return _mean_square(student, _head_mean(teacher_q, teacher_k) / teacher_q.shape[-1] ** 0.5)


def release_value(student_v: Tensor, teacher_v: Tensor, *, heads: int) -> Tensor:
    """As `release_attention`, of v v^T. As released, the student's is divided by sqrt(d) and the teacher's is not."""
    student = student_v @ student_v.mT / (heads * (student_v.shape[-1] / heads) ** 0.5)
    return _mean_square(student, _head_mean(teacher_v, teacher_v))


def release_ramp(epoch: float) -> float:
    """The factor of all released terms but the cross-entropy in an epoch (from 0) of 120: zero until 25, 0.2 from 35 on.

    >>> release_ramp(25), release_ramp(30), release_ramp(60)
    (0.0, 0.1, 0.2)
    """
    return min(max(epoch - 25, 0) / 50, 0.2)


def _rows(values: Tensor) -> Tensor:
    """Widened, and positions one after the other in memory: the products below would otherwise copy them more than once."""
    return widened(values).contiguous()


def _attended(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v)


def _head_mean(a: Tensor, b: Tensor) -> Tensor:
    joined = [values.transpose(1, 2).flatten(2) for values in (a, b)]  # batch positions channels
    return joined[0] @ joined[1].mT / a.shape[1]


def _mean_square(student: Tensor, teacher: Tensor) -> Tensor:
    _check_equal(student, teacher)
    return F.mse_loss(student, teacher)


def _check_equal(student: Tensor, teacher: Tensor) -> None:
    if student.shape != teacher.shape:
        raise ValueError(f"student and teacher must have one shape, got {tuple(student.shape)} and {tuple(teacher.shape)}")
