"""A further learned token in timm's vision transformers: DeiT's distillation token (Touvron et al., ICML 2021, section 4)."""

from typing import Any

import torch
from torch import Tensor, nn

STD = 0.02
"""DeiT's spread of the initial tokens and of the weights of their heads."""


def takes_token(model: nn.Module) -> bool:
    """Whether the model keeps its tokens where `insert_token` can add one: timm's VisionTransformer and Eva, without a distillation token.

    Such a model puts `reg_token` between class token and patches, and reads `num_prefix_tokens` where it tells these apart.
    """
    has = ("cls_token", "reg_token", "pos_embed", "no_embed_class", "num_prefix_tokens", "_pos_embed")
    return all(hasattr(model, name) for name in has) and not hasattr(model, "dist_token")


def drops_patches(model: nn.Module) -> bool:
    """Whether the model leaves out random patches in training (timm's `patch_drop_rate`)."""
    return getattr(getattr(model, "patch_drop", None), "prob", 0) > 0


def insert_token(model: Any, n_before: int = 0) -> int:
    """Put one learned token after the class token and `n_before` others, in place; returns its place among the prefix tokens.

    It starts as the class token plus noise, with a copy of the class token's positional embedding where the prefix has its own:
    in a fresh network the class token is all but zero and this is DeiT's start, in a pretrained one the token starts from
    what the network knows how to use. Noise comes from torch's global generator. Raises ValueError where `takes_token` is False.
    """
    if not takes_token(model):
        raise ValueError(f"{type(model).__name__} takes no further token")
    has_class = model.cls_token is not None
    place = int(has_class) + n_before
    start = model.cls_token.detach() if has_class else next(model.parameters()).new_zeros(1, 1, model.embed_dim)
    token = start + nn.init.trunc_normal_(torch.empty(1, 1, model.embed_dim), std=STD).to(start)
    model.reg_token = _with_row(token[:, :0] if model.reg_token is None else model.reg_token, n_before, token)
    if model.pos_embed is not None and not model.no_embed_class:
        row = model.pos_embed[:, :1] if has_class else model.pos_embed.new_zeros(1, 1, model.embed_dim)
        model.pos_embed = _with_row(model.pos_embed, place, row, requires_grad=model.pos_embed.requires_grad)
    _count_one_more(model)
    return place


def _with_row(values: Tensor, place: int, row: Tensor, *, requires_grad: bool = True) -> nn.Parameter:
    values = values.detach()
    rows = torch.cat([values[:, :place], row.detach().to(values), values[:, place:]], dim=1)
    return nn.Parameter(rows, requires_grad=requires_grad)


def _count_one_more(model: Any) -> None:
    """Patch dropout and rotary attention keep counts of their own of the tokens that are no patches."""
    before = model.num_prefix_tokens
    for module in model.modules():
        if getattr(module, "num_prefix_tokens", None) == before:
            module.num_prefix_tokens = before + 1
    if hasattr(model, "num_reg_tokens"):
        model.num_reg_tokens += 1
