"""The memory of contrastive representation distillation: an embedding of every image from each side, and the loss against them."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from crossdistill.ops.losses import widened, without_autocast
from crossdistill.ops.parallel import averaged, gathered

EPSILON = 1e-7  # of the published loss; it keeps its place for the sake of equal numbers
ROWS_PER_CANDIDATE = 32  # measured on 2 CPU threads: below this many bank rows for each candidate, one product is the faster way
ROWS_PER_WEIGHT = 6  # likewise for the weighted sums of rows: at 12 the sums of single rows are faster, at 3 the product by far


class CRDMemory(nn.Module):
    """The two banks of CRD and its loss (Tian et al., ICLR 2020, eq. 17-19): every image's embedding, of the student and the teacher.

    `memory(student_embedding, teacher_embedding, index, candidates)` takes unit rows [batch, dim], the images' rows in the bank
    `index` [batch], and `candidates` [batch, 1 + n_negatives], of which column 0 is the positive. It gives {"student", "teacher",
    "total"}: the mean over the batch of the student's embedding against the teacher's bank, the other way round, and their sum.
    With s = exp(<anchor, bank row> / temperature), o = s / z and c = n_negatives / n_images, one anchor costs
    -log(o / (o + c + 1e-7)) for its positive and -log(c / (o + c + 1e-7)) for each negative. Banks are constants in the gradient.

    After scoring, in train mode, bank rows move to normalize(momentum * row + (1 - momentum) * embedding). With `update=False`
    they wait for a call of `update()`: so all micro-batches of one optimiser step read the same banks. An index that occurs more
    than once counts with its last row.

    The buffers `z_student` and `z_teacher` are n_images * mean(s) of the first batch in train mode, then frozen, as published
    (0: not estimated yet), in the embeddings' precision. With `z_momentum` they follow later batches as an exponential average,
    which helps where the banks are not random at the start (the author's advice,
    https://github.com/HobbitLong/CMC/issues/23, is 0.99).

    Where several processes share each batch, every one of them moves the rows of the whole batch, so that their banks stay equal.
    """

    student_bank: Tensor
    teacher_bank: Tensor
    z_student: Tensor
    z_teacher: Tensor

    def __init__(
        self,
        n_images: int,
        dim: int,
        *,
        n_negatives: int,
        temperature: float = 0.07,
        momentum: float = 0.5,
        z_momentum: float | None = None,
    ) -> None:
        super().__init__()
        if min(n_images, dim, n_negatives) < 1 or temperature <= 0 or not 0 <= momentum <= 1 or not 0 <= (z_momentum or 0) <= 1:
            raise ValueError(
                "n_images, dim and n_negatives must be at least 1, temperature positive, momentum and z_momentum from 0 to 1; got "
                f"{n_images}, {dim}, {n_negatives}, {temperature}, {momentum}, {z_momentum}"
            )
        self.n_negatives, self.temperature = n_negatives, temperature
        self.momentum, self.z_momentum = momentum, z_momentum
        bound = math.sqrt(3 / dim)  # rows of expected norm 1
        self.register_buffer("student_bank", torch.empty(n_images, dim).uniform_(-bound, bound))
        self.register_buffer("teacher_bank", torch.empty(n_images, dim).uniform_(-bound, bound))
        self.register_buffer("z_student", torch.zeros(()))
        self.register_buffer("z_teacher", torch.zeros(()))
        self._waiting: list[tuple[Tensor, ...]] = []  # index, embeddings and estimates of z since the last update

    @without_autocast
    def forward(
        self, student_embedding: Tensor, teacher_embedding: Tensor, index: Tensor, candidates: Tensor, *, update: bool = True
    ) -> dict[str, Tensor]:
        student, teacher = widened(student_embedding), widened(teacher_embedding)
        self._refuse_wrong_shapes(student, teacher, index, candidates)
        if self.training:
            for name in ("z_student", "z_teacher"):  # a float32 buffer would round the estimate of float64 embeddings
                setattr(self, name, getattr(self, name).to(student.dtype))
        student_loss, student_estimate = self._side(student, self.teacher_bank, self.z_student, candidates)
        teacher_loss, teacher_estimate = self._side(teacher, self.student_bank, self.z_teacher, candidates)
        if self.training:
            moved = (gathered(rows) for rows in (index, student.detach(), teacher.detach()))
            self._waiting.append((*moved, student_estimate, teacher_estimate))
            if update:
                self.update()
        return {"student": student_loss, "teacher": teacher_loss, "total": student_loss + teacher_loss}

    @torch.no_grad()
    def update(self) -> None:
        """Move the bank rows of all images that were scored in train mode since the last update; does nothing where there are none."""
        if not self._waiting:
            return
        indices, students, teachers, student_estimates, teacher_estimates = zip(*self._waiting, strict=True)
        self._waiting.clear()
        index = torch.cat(indices)
        self._move(self.student_bank, index, torch.cat(students))
        self._move(self.teacher_bank, index, torch.cat(teachers))
        if self.z_momentum is not None:
            self.z_student.lerp_(torch.stack(student_estimates).mean().to(self.z_student.dtype), 1 - self.z_momentum)
            self.z_teacher.lerp_(torch.stack(teacher_estimates).mean().to(self.z_teacher.dtype), 1 - self.z_momentum)

    def _side(self, anchor: Tensor, bank: Tensor, z: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of one side's anchors against the other side's bank, and this batch's estimate of z."""
        bank = bank.to(anchor.dtype)
        with torch.no_grad():
            scores = candidate_scores(anchor, bank, candidates).div_(self.temperature)
            largest = torch.finfo(scores.dtype).max  # where a tiny temperature overflows, a finite z keeps the loss finite
            estimate = averaged(len(bank) * scores.exp().mean()).clamp(max=largest)
            z_now = torch.where(z > 0, z.to(scores.dtype), estimate)  # no `if`: it would wait for the device
            if self.training:
                z.copy_(z_now)
        noise = self.n_negatives / len(bank)
        # In logarithms: s / z is never formed, so that nothing overflows.
        log_ratio = scores.sub_(z_now.log() + math.log(noise + EPSILON))
        loss = _Contrast.apply(anchor, bank, candidates, log_ratio, self.temperature)
        return loss + self.n_negatives * math.log((noise + EPSILON) / noise), estimate

    def _move(self, bank: Tensor, index: Tensor, embedding: Tensor) -> None:
        same = index[:, None] == index
        last = (same * torch.arange(len(index), device=index.device)).amax(dim=1)  # equal rows get equal values: any order will do
        moved = torch.lerp(embedding[last].to(bank.dtype), bank[index], self.momentum)
        bank[index] = F.normalize(moved)

    def _refuse_wrong_shapes(self, student: Tensor, teacher: Tensor, index: Tensor, candidates: Tensor) -> None:
        batch, dim = len(index), self.student_bank.shape[1]
        expected = {
            "student_embedding": (batch, dim),
            "teacher_embedding": (batch, dim),
            "index": (batch,),
            "candidates": (batch, 1 + self.n_negatives),
        }
        for (name, shape), given in zip(expected.items(), (student, teacher, index, candidates), strict=True):
            if tuple(given.shape) != shape:
                raise ValueError(f"{name} must be of shape {shape} for {batch} indices, got {tuple(given.shape)}")


def candidate_scores(anchor: Tensor, bank: Tensor, candidates: Tensor) -> Tensor:
    """The products of each anchor [batch, dim] with its candidates' bank rows: [batch, candidates], for use without a gradient.

    The whole bank is scored by one matrix product where it is not too large for that. Otherwise the products are the
    derivatives of a weighted sum of bank rows by its weights: that reads the rows in place, at an eighth of the cost of a gather.
    """
    if len(bank) <= ROWS_PER_CANDIDATE * candidates.shape[1]:
        return (anchor @ bank.T).gather(1, candidates)
    with torch.enable_grad():
        weights = torch.zeros(candidates.shape, dtype=anchor.dtype, device=anchor.device, requires_grad=True)
        return torch.autograd.grad(weighted_rows(bank, candidates, weights), weights, anchor)[0]


def weighted_rows(bank: Tensor, candidates: Tensor, weights: Tensor) -> Tensor:
    """Sums of bank rows [batch, dim], each candidate's with its weight [batch, candidates].

    On a CPU a matrix product with the whole bank where most of its rows are candidates; on a GPU the order of that scatter's sums
    would be left to chance.
    """
    if bank.device.type == "cpu" and len(bank) <= ROWS_PER_WEIGHT * candidates.shape[1]:
        return weights.new_zeros(len(weights), len(bank)).scatter_add_(1, candidates, weights) @ bank
    return F.embedding_bag(candidates, bank, mode="sum", per_sample_weights=weights)


class _Contrast(torch.autograd.Function):
    """A logistic regression: column 0 belongs to class 1, all others to class 0, and log_ratio = log(o / (c + eps)) is the logit.

    The gradient is taken in the forward pass, since the bank rows it needs may have moved before the backward pass.
    """

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, bank: Tensor, candidates: Tensor, log_ratio: Tensor, temperature: float) -> Tensor:
        batch = len(anchor)
        if ctx.needs_input_grad[0]:
            residual = log_ratio.sigmoid()
            residual[:, 0] -= 1
            ctx.save_for_backward(weighted_rows(bank, candidates, residual) / (batch * temperature))
        right = -log_ratio
        right[:, 0] = log_ratio[:, 0]
        return -F.logsigmoid(right).sum() / batch

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        (slope,) = ctx.saved_tensors
        return gradients[0] * slope, None, None, None, None
