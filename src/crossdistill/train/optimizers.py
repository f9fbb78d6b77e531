"""Optimisers, learning rates and averages of weights, as the recipe says."""

import math
from collections.abc import Sequence

from torch import nn, optim
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from crossdistill.core.config import TrainingConfig


def make_optimizer(parameters: Sequence[nn.Parameter], recipe: TrainingConfig) -> optim.Optimizer:
    """AdamW, or SGD with Nesterov; weight decay on tensors of two or more dimensions only: on no bias and no norm."""
    decayed = [p for p in parameters if p.ndim > 1]
    plain = [p for p in parameters if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    if recipe.optimizer == "adamw":
        return optim.AdamW(groups, lr=recipe.learning_rate, fused=True)
    return optim.SGD(groups, lr=recipe.learning_rate, momentum=recipe.momentum, nesterov=recipe.momentum > 0, fused=True)


def averaged(network: nn.Module, decay: float | None) -> AveragedModel | None:
    """An exponential moving average of the network's weights and buffers, for `update_parameters` after each step; None without a decay."""
    return None if decay is None else AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)


def learning_rate(recipe: TrainingConfig, step: int, steps: int) -> float:
    """Linear warm-up to the peak over `warmup_epochs` (at most half the training), then a cosine to zero."""
    warm_up = min(recipe.warmup_epochs * steps / recipe.epochs, steps / 2)
    if step < warm_up:
        return recipe.learning_rate * (step + 1) / (warm_up + 1)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / (steps - warm_up)))
