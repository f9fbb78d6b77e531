"""Precision, optimisers and averaging, as the recipe and the hardware say."""

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from crossdistill.core.config import TrainingConfig


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


def make_optimizer(parameters: Sequence[nn.Parameter], recipe: TrainingConfig) -> torch.optim.Optimizer:
    """AdamW, or SGD with Nesterov; weight decay on tensors of two or more dimensions only: on no bias and no norm."""
    decayed = [p for p in parameters if p.ndim > 1]
    plain = [p for p in parameters if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.learning_rate, fused=True)
    return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=recipe.momentum, nesterov=recipe.momentum > 0, fused=True)


def averaged(network: nn.Module, decay: float | None) -> AveragedModel | None:
    """An exponential moving average of the network's weights and buffers, for `update_parameters` after each step; None without a decay."""
    return None if decay is None else AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)


def learning_rate(recipe: TrainingConfig, step: int, steps: int) -> float:
    """Linear warm-up to the peak over `warmup_epochs` (at most half the training), then a cosine to zero."""
    warm_up = min(recipe.warmup_epochs * steps / recipe.epochs, steps / 2)
    if step < warm_up:
        return recipe.learning_rate * (step + 1) / (warm_up + 1)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / (steps - warm_up)))
