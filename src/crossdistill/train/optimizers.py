"""Optimisers, learning rates and averages of weights, as the recipe says."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn, optim
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from crossdistill.core.recipe import TrainingConfig

FUSED = ("cpu", "cuda", "mps", "xpu")
"""Devices on which torch takes an optimiser's step in one kernel; on others it goes list by list (foreach)."""

TABLES_AND_NORMS = (nn.Embedding, nn.LayerNorm, nn.RMSNorm)
"""Layers whose `weight` has two dimensions or more where it is a table of positions or a scale of each place: neither is decayed."""


def make_optimizer(parameters: Sequence[nn.Parameter], recipe: TrainingConfig, *, modules: Iterable[nn.Module]) -> optim.Optimizer:
    """AdamW, or SGD with Nesterov, of these parameters of `modules`; weight decay on the weights of their layers only."""
    decayed = layer_weights(modules)
    groups = [
        {"params": [p for p in parameters if id(p) in decayed], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if id(p) not in decayed], "weight_decay": 0.0},
    ]
    one_kernel = all(parameter.device.type in FUSED for parameter in parameters)
    how: dict[str, Any] = {"fused": True} if one_kernel else {"foreach": True}
    if recipe.optimizer == "adamw":
        return optim.AdamW(groups, lr=recipe.learning_rate, **how)
    return optim.SGD(groups, lr=recipe.learning_rate, momentum=recipe.momentum, nesterov=recipe.momentum > 0, **how)


def layer_weights(modules: Iterable[nn.Module]) -> set[int]:
    """The ids of the weights of linear layers, convolutions and the like: parameters called `weight`, of two or more dimensions.

    No bias, no norm, no scale of a layer, no token, and no table of positions: decay pulls those towards nothing in particular.
    """
    return {
        id(parameter)
        for module in modules
        for layer in module.modules()
        if not isinstance(layer, TABLES_AND_NORMS)
        for name, parameter in layer.named_parameters(recurse=False)
        if name.endswith("weight") and parameter.ndim > 1  # also `in_proj_weight` of torch's attention
    }


def averaged(network: nn.Module, decay: float | None) -> AveragedModel | None:
    """An exponential moving average of the network's weights and buffers, for `update_parameters` after each step; None without a decay."""
    return None if decay is None else AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)


def settled(recipe: TrainingConfig, family: str) -> TrainingConfig:
    """The recipe with what it leaves to the network's family ("cnn" or "token") written out.

    Attention is easily thrown off by large early steps: networks of tokens warm up for a tenth of the epochs, 1 to 10 of them.
    """
    if recipe.warmup_epochs is not None:
        return recipe
    epochs = 1.0 if family == "cnn" else min(max(1.0, recipe.epochs / 10), 10.0)
    return recipe.model_copy(update={"warmup_epochs": epochs})


def learning_rate(recipe: TrainingConfig, step: int, steps: int) -> float:
    """Linear warm-up to the peak over `warmup_epochs` (at most half the training), then the schedule over all that is left.

    `cosine` falls to zero; `step` to a tenth after each milestone, counted from the training's start; `constant` stays.
    Raises ValueError for a recipe that is not `settled`.
    """
    if recipe.warmup_epochs is None:
        raise ValueError("the warm-up depends on the network's family: give the recipe that `settled` returns")
    warm_up = min(recipe.warmup_epochs * steps / recipe.epochs, steps / 2)
    if step < warm_up:
        return recipe.learning_rate * (step + 1) / (warm_up + 1)
    if recipe.schedule == "cosine":
        return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / (steps - warm_up)))
    if recipe.schedule == "constant":
        return recipe.learning_rate
    passed = sum(step >= round(milestone * steps, 9) for milestone in recipe.milestones)  # 0.7 * 10 is 7.000000000000001
    return recipe.learning_rate * 0.1**passed
