"""What a caller's session has set for its whole process: left out of the work, and given back afterwards."""

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch


@contextlib.contextmanager
def session_kept() -> Iterator[None]:
    """In this block torch is as a fresh process has it; afterwards all is as it was: generators, threads, types, modes, kernels."""
    generators = random.getstate(), np.random.get_state()
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    deterministic = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    kernels = torch.backends.cudnn.flags(benchmark=torch.backends.cudnn.benchmark, deterministic=torch.backends.cudnn.deterministic)
    with torch.random.fork_rng(devices=devices), kernels, _plain_modes():
        try:
            torch.set_default_dtype(torch.float32)
            yield
        finally:
            random.setstate(generators[0])
            np.random.set_state(generators[1])
            torch.set_num_threads(threads)
            torch.set_default_dtype(dtype)
            torch.use_deterministic_algorithms(deterministic[0], warn_only=deterministic[1])


@contextlib.contextmanager
def _plain_modes() -> Iterator[None]:
    """Gradients on and autocast off, on the CPU unless a device is named, whatever blocks the caller stands in."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        yield
