"""Queries, keys and values of a network's self-attention, caught as they enter the scores."""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from crossdistill.ops.losses import widened

AttentionShape = tuple[int, int, int]
"""Heads, tokens (prefix tokens included) and channels of a head."""

Projections = Callable[[], dict[str, Tensor]]


@dataclass(frozen=True)
class SelfAttention:
    """One self-attention as it enters its softmax; `bias`, where there is one, is added to the scores or, boolean, says what to keep."""

    query: Tensor  # [images, heads, tokens, head_dim]
    key: Tensor
    scale: float
    bias: Tensor | None = None

    def scores(self) -> Tensor:
        """[images, heads, tokens, tokens], float32 or wider; the softmax over the last axis is the attention of each token."""
        scores = (widened(self.query) * self.scale) @ widened(self.key).transpose(-2, -1)
        if self.bias is None:
            return scores
        return scores.masked_fill(~self.bias, -math.inf) if self.bias.dtype == torch.bool else scores + widened(self.bias)


class AttentionCalls(TorchFunctionMode):
    """Remembers the last self-attention over each number of images and tokens while it is active.

    A call counts where its output is softmax(q k^T / sqrt(head_dim)) v and nothing else: one with a mask or a position bias, with
    fewer key than query heads, or with a scale of its own cannot be told from q, k and v, and is remembered as unreadable.

    `each`, where it is given, is called with every attention in turn, so that what it holds can be reduced on the spot; a mask, a bias
    and a scale do no harm there. It is called with None for one whose scores cannot be computed from what was caught.
    """

    def __init__(self, each: Callable[[SelfAttention | None], None] | None = None) -> None:
        super().__init__()
        self.seen: dict[tuple[int, int], Projections | None] = {}
        self.each = each

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            self._note(*args, **kwargs)
        elif func is F.multi_head_attention_forward:
            self._note_module(*args, **kwargs)
        return func(*args, **kwargs)

    def last(self, n_images: int, n_tokens: int) -> dict[str, Tensor] | None:
        """{"q", "k", "v"}, each [n_images, heads, n_tokens, head_dim], of the last such call; None where there is none to read."""
        projections = self.seen.get((n_images, n_tokens))
        return projections() if projections else None

    def shape(self, n_images: int, n_tokens: int) -> AttentionShape | None:
        """(heads, n_tokens, head_dim) of what `last` gives."""
        last = self.last(n_images, n_tokens)
        return (last["q"].shape[1], n_tokens, last["q"].shape[3]) if last else None

    def _note(
        self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0, is_causal: bool = False,
        scale: float | None = None, enable_gqa: bool = False,
    ) -> None:  # fmt: skip
        by_itself = query.ndim == 4 and query.shape == key.shape and not is_causal
        of_head = query.shape[-1] ** -0.5
        self._tell((lambda: SelfAttention(query, key, of_head if scale is None else scale, attn_mask)) if by_itself else None)
        if query.ndim != 4:
            return
        same = query.shape == key.shape == value.shape
        usual_scale = scale is None or math.isclose(scale, query.shape[-1] ** -0.5, rel_tol=1e-6)
        readable = same and usual_scale and attn_mask is None and not is_causal
        # A closure over tensors that exist anyway: nothing is computed or copied unless it is asked for.
        self.seen[query.shape[0], query.shape[2]] = (lambda: {"q": query, "k": key, "v": value}) if readable else None

    def _note_module(
        self, query: Tensor, key: Tensor, value: Tensor, embed_dim: int, n_heads: int, weight: Tensor | None, bias: Tensor | None,
        bias_k: Tensor | None, bias_v: Tensor | None, add_zero_attn: bool, *_: Any, attn_mask: Tensor | None = None,
        key_padding_mask: Tensor | None = None, **__: Any,
    ) -> None:  # fmt: skip
        """torch.nn.MultiheadAttention projects inside one call, [tokens, images, channels], so its projections are taken again."""
        if query.ndim != 3:
            return self._tell(None)
        key_is = (query.shape[1], query.shape[0])
        extras = (bias_k, bias_v, attn_mask, key_padding_mask)
        if weight is None or query is not key or query is not value or add_zero_attn or any(extra is not None for extra in extras):
            self.seen[key_is] = None
            return self._tell(None)

        def projections() -> dict[str, Tensor]:
            projected = F.linear(query, weight, bias).unflatten(-1, (3, n_heads, -1))  # tokens images 3 heads channels
            q, k, v = projected.permute(2, 1, 3, 0, 4).unbind(0)
            return {"q": q, "k": k, "v": v}

        self.seen[key_is] = projections

        def attention() -> SelfAttention:
            projected = projections()
            return SelfAttention(projected["q"], projected["k"], projected["q"].shape[-1] ** -0.5)

        self._tell(attention)

    def _tell(self, attention: Callable[[], SelfAttention] | None) -> None:
        if self.each:
            self.each(attention() if attention else None)


@contextlib.contextmanager
def attention_calls(model: nn.Module, each: Callable[[SelfAttention | None], None] | None = None) -> Iterator[AttentionCalls]:
    """Watch the model's self-attention while the block runs; `each` is called with every one of them, see AttentionCalls.

    timm's blocks that compute attention in steps are switched to the one fused call, which gives the same up to rounding, and
    back afterwards. Attention written out in any other way is not seen.
    """
    in_steps = [module for module in model.modules() if getattr(module, "fused_attn", None) is False]
    for module in in_steps:
        module.fused_attn = True  # type: ignore[assignment]
    try:
        with AttentionCalls(each) as calls:
            yield calls
    finally:
        for module in in_steps:
            module.fused_attn = False  # type: ignore[assignment]


def patch_rows(attention: Mapping[str, Tensor], n_patches: int) -> dict[str, Tensor]:
    """Queries, keys and values [batch, heads, patches, head_dim] of the last `n_patches` tokens: the prefix tokens are left out.

    >>> import torch
    >>> patch_rows({"q": torch.zeros(2, 3, 17, 4)}, 16)["q"].shape
    torch.Size([2, 3, 16, 4])
    """
    return {name: values[:, :, -n_patches:] for name, values in attention.items()}
