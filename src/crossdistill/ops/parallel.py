"""Several processes that share each batch: which rows are whose, and what they tell each other. With one process nothing is sent.

No network is wrapped: after the backward pass one coalesced all-reduce averages the gradients, and buffers are never broadcast.
What is on the host travels by gloo, what is on a GPU by NCCL; all ranks must ask for the same exchanges in the same order.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from crossdistill.core.errors import CrossdistillError, SettingError, StudyError

T = TypeVar("T")

PATIENCE = timedelta(days=100)  # how long a rank waits for another: as long as a training by one process alone may take


@dataclass(frozen=True)
class World:
    """This process among those that train together; `rank` 0 writes what is kept."""

    rank: int = 0
    size: int = 1


_everyone = World()  # as started
_here = World()  # as it is now: one process where the others wait


def world() -> World:
    """This process's place; alone where no process group was started, and within `alone`."""
    return _here


@contextmanager
def started(device: torch.device, *, init_method: str = "env://") -> Iterator[World]:
    """The process group of the environment variables RANK and WORLD_SIZE (torchrun's), for networks on `device`, until the block ends.

    `init_method` is torch's: by default MASTER_ADDR and MASTER_PORT say where the ranks meet. A GPU is to be this rank's own.
    """
    global _everyone, _here
    place = World(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.set_device(device)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if on_gpu else "gloo", init_method=init_method, rank=place.rank, world_size=place.size, timeout=PATIENCE
    )
    _everyone = _here = place
    try:
        yield place
    finally:
        _everyone = _here = World()
        dist.destroy_process_group()


@contextmanager
def alone() -> Iterator[None]:
    """Within the block this process is a world of its own, and the others do something else or wait."""
    with _as(World()):
        yield


@contextmanager
def together() -> Iterator[None]:
    """Within the block, inside `alone`, all processes of the group are there again."""
    with _as(_everyone):
        yield


@contextmanager
def _as(place: World) -> Iterator[None]:
    global _here
    before, _here = _here, place
    try:
        yield
    finally:
        _here = before


@contextmanager
def first_ahead() -> Iterator[None]:
    """Rank 0 goes through the block by itself, and then the others, each by itself: what rank 0 left on disk they find there.

    Raises on all ranks the CrossdistillError that rank 0 raised, and StudyError where another rank could not follow.
    """
    place = world()
    if place.size == 1:
        yield
        return
    if place.rank and (refused := told(None)):
        raise refused
    error: CrossdistillError | None = None
    try:
        with alone():
            yield
    except CrossdistillError as raised:
        error = raised
    if place.rank == 0:
        told(error)
        if error:
            raise error
    if agreed(error is not None):
        raise error or StudyError("another of the processes that train together could not prepare its part: its own message says why")


def refuse_other_world(devices: int) -> None:
    """Raise SettingError unless that many processes are here: another number gives other bytes."""
    if devices != world().size:
        raise SettingError(
            f"this training is shared by {devices} devices, and {world().size} of its processes are here: "
            "start it by `crossdistill study run FILE`, or set `devices` to their number"
        )


def refuse_uneven(batch_size: int, accumulate: int, devices: int) -> None:
    """Raise SettingError where the (micro-)batches cannot be shared out evenly, without which a mean over the ranks is not one over images.

    >>> refuse_uneven(128, 2, 4)
    """
    whole = -(-batch_size // accumulate)  # as torch.chunk cuts: all micro-batches of one size, but for the last
    sizes = {whole, batch_size % whole or whole}
    if any(size % devices for size in sizes):
        cut = f" in {accumulate} micro-batches" if accumulate > 1 else ""
        raise SettingError(
            f"a batch of {batch_size} images{cut} cannot be shared evenly by {devices} devices: set `batch_size` to a multiple of "
            f"{accumulate * devices} that the training images can fill, or change `accumulate` or `devices`"
        )


def own_rows(index: Tensor) -> Tensor:
    """This process's share of the rows of a (micro-)batch: the ranks' shares, one after the other, are the whole."""
    place = world()
    if place.size == 1:
        return index
    assert len(index) % place.size == 0, "refused where the training was made"
    return index.chunk(place.size)[place.rank]


def gathered(rows: Tensor) -> Tensor:
    """The rows of all ranks, one after the other; gradients flow back to every rank's own, summed over what the ranks made of them.

    Averaged over the ranks, as `average_gradients` does, that is the gradient of a loss of the whole batch that each rank takes.
    """
    return rows if world().size == 1 else _Gathered.apply(rows)  # type: ignore[return-value]


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.n_rows = len(rows)
        parts = [torch.empty(rows.shape, dtype=rows.dtype, device=rows.device) for _ in range(world().size)]
        _exchanged(dist.all_gather, parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Any) -> Tensor:
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        _exchanged(dist.all_reduce, total)
        return total[world().rank * ctx.n_rows :][: ctx.n_rows]


def drawn_rows(draw: Callable[[int], Tensor], n_rows: int) -> Tensor:
    """Random rows for this process's share of a batch: `draw(rows)` draws those of the whole batch, so that all ranks draw alike.

    For use inside an objective, where every rank's generator stands at the same place.
    """
    return own_rows(draw(world().size * n_rows))


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace the gradients by their means over the ranks, in one all-reduce for each type of number.

    A gradient that some ranks do not have is zero there; one that no rank has stays None, which optimisers step over.
    """
    size = world().size
    if size == 1:
        return
    parameters = list(parameters)
    present = torch.tensor([parameter.grad is not None for parameter in parameters], dtype=torch.uint8)
    _exchanged(dist.all_reduce, present, op=dist.ReduceOp.MAX)  # on the host: nothing waits for a GPU
    by_type: dict[torch.dtype, list[Tensor]] = {}
    for parameter, somewhere in zip(parameters, present.tolist(), strict=True):
        if somewhere:
            parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            by_type.setdefault(parameter.dtype, []).append(parameter.grad)
    for gradients in by_type.values():
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        _exchanged(dist.all_reduce, flat)
        parts = flat.div_(size).split([gradient.numel() for gradient in gradients])
        torch._foreach_copy_(gradients, [part.view(gradient.shape) for part, gradient in zip(parts, gradients, strict=True)])  # type: ignore[reportPrivateImportUsage]


def averaged(value: Tensor) -> Tensor:
    """The mean over the ranks of a tensor without gradient, the same on each; of integers in float64."""
    size = world().size
    if size == 1:
        return value
    total = value.detach().clone() if value.is_floating_point() else value.double()
    _exchanged(dist.all_reduce, total)
    return total.div_(size)


def agreed(flag: bool) -> bool:
    """Whether any rank raised its flag: all ranks get the same answer."""
    if world().size == 1:
        return flag
    flags = torch.tensor([flag], dtype=torch.uint8)
    _exchanged(dist.all_reduce, flags, op=dist.ReduceOp.MAX)
    return bool(flags)


def from_first(value: float) -> float:
    """Rank 0's value, on every rank."""
    if world().size == 1:
        return value
    told_value = torch.tensor([value], dtype=torch.float64)
    _exchanged(dist.broadcast, told_value, src=0)
    return float(told_value)


def told(message: T) -> T:
    """What rank 0 says, on every rank: anything that can be pickled."""
    if world().size == 1:
        return message
    messages = [message]
    _exchanged(dist.broadcast_object_list, messages, src=0, device=torch.device("cpu"))
    return messages[0]


def _exchanged(operation: Callable[..., Any], *arguments: Any, **options: Any) -> None:
    """Carry out a collective operation; raises StudyError where another process has ended, so that nobody waits for it."""
    try:
        operation(*arguments, **options)
    except RuntimeError as error:  # gloo's and NCCL's own kinds derive from it
        raise StudyError(
            "another of the processes that train together has ended, and its own message, if any, says why. What was saved is kept: "
            "the same command goes on from there."
        ) from error


def has_batch_norm(*modules: nn.Module | None) -> bool:
    """Whether any of these holds a BatchNorm layer that is trained."""
    layers = (layer for module in modules if module is not None for layer in module.modules())
    return any(isinstance(layer, _BatchNorm) and any(p.requires_grad for p in layer.parameters()) for layer in layers)


def batch_norm_statistics(network: nn.Module, device: torch.device) -> str | None:
    """Over which images trained BatchNorm layers take their statistics where ranks share a batch, in words; None without either."""
    if world().size == 1 or not has_batch_norm(network):
        return None
    return "synchronised" if device.type == "cuda" else "each device's own"


def synchronise_batch_norm(module: nn.Module, device: torch.device) -> None:
    """Let the BatchNorm layers inside `module` take their statistics over all ranks, on a GPU; torch has no such layer for a CPU.

    Parameters, buffers and their names stay. timm's conversion knows torch's layers and its own, which hold an activation.
    """
    if world().size > 1 and device.type == "cuda":
        from timm.layers.norm_act import convert_sync_batchnorm

        convert_sync_batchnorm(module)
