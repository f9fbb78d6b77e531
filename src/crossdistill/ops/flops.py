"""Floating-point operations of a forward pass, counted by torch from the shapes of what is multiplied."""

from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from crossdistill.ops.modes import evaluating
from crossdistill.ops.network import Network

COUNTABLE = ("aten", "prim", "prims", "profiler")
"""The namespaces of torch's own operators; what an operator of another package costs is not known."""


class _Foreign(TorchDispatchMode):
    """Notes whether an operator of another package ran."""

    found = False

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.found = self.found or function.namespace not in COUNTABLE
        return function(*args, **(kwargs or {}))


@torch.no_grad()
def forward_flops(network: Network) -> int | None:
    """Floating-point operations of one image's forward pass: those of matrix products, convolutions and attention.

    A multiplication and an addition count as two. Additions, activations and normalisations are not counted, which are few beside them.
    The same on every device: attention is taken apart, and fused paths that torch cannot look into are off. None where an operator of
    another package runs, of which nobody knows the cost. The network is left as it was.
    """
    images = torch.zeros(1, 3, *network.input_size, dtype=network.mean.dtype, device=network.mean.device)
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with (
            evaluating(network),
            torch.random.fork_rng(devices=[]),
            sdpa_kernel(SDPBackend.MATH),
            FlopCounterMode(display=False) as counter,
            _Foreign() as foreign,
        ):
            network(images)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return None if foreign.found else int(counter.get_total_flops())
