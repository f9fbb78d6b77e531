"""Precision, as the recipe and the hardware say."""

import torch


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
