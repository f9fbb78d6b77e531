"""Precision, as the recipe and the hardware say, and the kernels of a GPU that give the same bytes each time, where they are asked for."""

import os

import torch

DETERMINISTIC = "CROSSDISTILL_DETERMINISTIC"
"""The environment variable that asks for kernels whose sums have a fixed order; processes that are started later inherit it."""


def resolved_precision(precision: str, device: torch.device) -> str:
    """ "bf16" or "fp32"; `auto` takes bf16 only where the hardware has units for it (elsewhere it is 4 to 7 times slower)."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    # torch 2.11 cannot tell its CPU's units: there, fp32.
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return "bf16" if device.type == "cpu" and capabilities.get("avx512_bf16") else "fp32"


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """The autocast context of a resolved precision."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def settle_kernels(device: torch.device) -> None:
    """Where CROSSDISTILL_DETERMINISTIC is set and not 0, let a GPU give the same bytes in every run, at some cost in time.

    A CPU does so anyway. torch warns of an operation that has no such kernel. Best called before the process's first matrix product:
    cuBLAS reads its setting when it starts.
    """
    if device.type != "cuda" or os.environ.get(DETERMINISTIC, "0") in ("", "0"):
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)
