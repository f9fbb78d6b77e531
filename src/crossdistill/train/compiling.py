"""The student by torch.compile, where the machine and the network can do it; else as it is, and a sentence says so."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from crossdistill.core.types import Activations
from crossdistill.ops.network import Network

FORMS = 64  # compiled forms of one piece of code, as many as there are blocks of one kind where a model falls into pieces


class CompiledStudent:
    """Calls the network by torch.compile, in each way that it is called (taps, sizes) only where that works; else the network itself.

    Each way is tried once, forward and backward, and what that moved is put back: BatchNorm's statistics, the generators. So a
    failure half-way leaves nothing behind, and a training that is resumed finds its network as it was left. A way that would be
    compiled anew in later steps does not work either: what is compiled would depend on how many steps came before. Sizes are never
    dynamic, for the same reason. `tell` gets one sentence, at the first failure.
    """

    def __init__(self, network: Network, *, tell: Callable[[str], None], backend: str | Callable[..., Any] = "inductor") -> None:
        torch.compiler.reset()  # what was compiled for other trainings of this process counts towards FORMS
        self.network, self.tell = network, tell
        self.works: dict[tuple[Any, ...], bool] = {}
        # Else inductor may time kernels that sum in different orders, and take the fastest.
        options: dict[str, Any] | None = (
            {"deterministic": True} if backend == "inductor" and torch.are_deterministic_algorithms_enabled() else None
        )
        self.compiled = torch.compile(network, dynamic=False, backend=backend, options=options)

    def __call__(self, images: Tensor, taps: tuple[str, ...] = ()) -> Activations:
        way = (images.shape, images.stride(), images.dtype, taps)
        if way not in self.works:
            self.works[way] = self._tried(images, taps)
        return (self.compiled if self.works[way] else self.network)(images, taps=taps)

    def _tried(self, images: Tensor, taps: tuple[str, ...]) -> bool:
        try:
            with left_as_it_was(self.network, images.device), _strict():
                self._there_and_back(images, taps)
                with torch.compiler.set_stance("fail_on_recompile"):
                    self._there_and_back(images, taps)
        except (MemoryError, torch.OutOfMemoryError):
            raise  # the network itself would not fit either
        except Exception as error:  # whatever a compiler can raise; what is wrong with the network itself shows when it is called
            if all(self.works.values()):
                self.tell(f"`compile` was asked for, and the student is trained without it: {_reason(error)}")
            return False
        return True

    def _there_and_back(self, images: Tensor, taps: tuple[str, ...]) -> None:
        """A forward and a backward pass, which is compiled only when it runs; no gradient is kept."""
        with torch.enable_grad():
            total = torch.stack([value.float().sum() for value in tensors(self.compiled(images, taps=taps)) if value.requires_grad]).sum()
            parameters = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
            torch.autograd.grad(total, parameters, allow_unused=True)


def tensors(seen: Activations) -> list[Tensor]:
    """Everything that the activations hold."""
    maps = [value for stage in seen.stages.values() for value in (stage.grid, stage.prefix)]
    values = [seen.logits, seen.pooled, *maps, *seen.heads.values(), *seen.dense.values(), *seen.attention.values()]
    return [value for value in values if value is not None]


@contextmanager
def left_as_it_was(network: Network, device: torch.device) -> Iterator[None]:
    """What the block moves is put back: the network's buffers, and torch's generators of the CPU and of the device."""
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            with torch.no_grad():
                for name, buffer in network.named_buffers():
                    buffer.copy_(before[name])


def _strict() -> Any:
    """Errors in place of silent eager execution; and hooks, by which taps are read, count as a part of what was compiled."""
    config: Any = torch._dynamo.config
    return config.patch(fail_on_recompile_limit_hit=True, recompile_limit=FORMS, skip_nnmodule_hook_guards=False)


def _reason(error: Exception) -> str:
    """The first sentence of what went wrong, without the compiler's advice to its own developers."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") + "." if lines else f"{type(error).__name__}."
