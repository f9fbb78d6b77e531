"""Attention distance against a literal computation from timm's own attention weights, and heads whose answer is known."""

import math

import numpy as np
import pytest
import torch
from timm.utils import AttentionExtract
from torch import nn

from crossdistill.core.errors import SettingError
from crossdistill.instruments.attention_distance import attention_distance, mean_distances, patch_distances, uniform_distance
from crossdistill.models._build import build_network
from crossdistill.ops.attention import attention_calls

IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def _vit(**settings: int):
    torch.manual_seed(0)
    network = build_network("small/vit", 5, (32, 32), settings=dict(width=24, depth=3, heads=3) | settings)
    for block in network.model.blocks:  # far from uniform
        nn.init.normal_(block.attn.qkv.weight, std=0.5)
    return network.eval()


def _literal(attention: torch.Tensor, n_prefix: int, rows: int, columns: int, patch: float) -> float:
    """One head of one image, sum by sum."""
    total = 0.0
    n = rows * columns
    for i in range(n):
        weights = [float(attention[n_prefix + i, n_prefix + j]) for j in range(n)]
        for j, weight in enumerate(weights):
            distance = math.hypot((i // columns - j // columns) * patch, (i % columns - j % columns) * patch)
            total += weight / sum(weights) * distance
    return total / n


def test_uniform_attention_has_the_published_distances():
    assert uniform_distance((14, 14), (16, 16)) == pytest.approx(116.5, abs=0.05)
    assert uniform_distance((14, 14), (16, 16)) / 224 == pytest.approx(0.520, abs=0.0005)
    assert uniform_distance((8, 8), (4, 4)) / 32 == pytest.approx(0.517, abs=0.0005)


def test_distances_of_oblong_patches_by_hand():
    assert patch_distances((2, 2), (3, 4)).tolist() == [[0, 4, 3, 5], [4, 0, 5, 3], [3, 5, 0, 4], [5, 3, 4, 0]]


@pytest.mark.parametrize("token", [False, True])
def test_equals_a_literal_computation_from_timms_own_attention(token):
    network = _vit(patch=8)
    if token:
        network.add_token_head("distillation")
    for block in network.model.blocks:
        block.attn.fused_attn = False
    with torch.no_grad():
        weights = list(AttentionExtract(network.model, method="fx")(network.normalised(IMAGES)).values())
    found = attention_distance(network, IMAGES)
    assert found.shape == (2, 3, 3)
    for layer, attention in enumerate(weights):
        for image in range(2):
            for head in range(3):
                expected = _literal(attention[image, head], 1 + token, 4, 4, 8.0) / uniform_distance((4, 4), (8, 8))
                assert found[image, layer, head] == pytest.approx(expected, rel=1e-4)
    assert found.std() > 0.05


def test_heads_with_a_known_answer():
    distances = patch_distances((4, 4), (8, 8))
    n = len(distances)
    uniform, own = torch.zeros(1, 1, n + 1, n + 1), torch.full((1, 1, n + 1, n + 1), -1e9)
    own.diagonal(dim1=2, dim2=3).zero_()
    assert float(mean_distances(uniform, distances)) == pytest.approx(uniform_distance((4, 4), (8, 8)))
    assert float(mean_distances(own, distances)) == 0
    to_class = uniform.clone()
    to_class[..., 0] = 1e4  # rows that look at the class token alone are renormalised all the same
    assert float(mean_distances(to_class, distances)) == pytest.approx(uniform_distance((4, 4), (8, 8)))


def test_queries_and_keys_of_zero_are_uniform_in_every_layer_and_head():
    network = _vit()
    for block in network.model.blocks:
        nn.init.zeros_(block.attn.qkv.weight)
    np.testing.assert_allclose(attention_distance(network, IMAGES), 1, rtol=1e-5)


def test_a_position_bias_counts():
    """All of BEiT's bias on distance zero, however its queries and keys are: each patch attends to itself."""
    options = dict(embed_dim=24, num_heads=3, depth=2)
    network = build_network("timm/beit_base_patch16_224", 5, (64, 64), settings=dict(options=options))
    before = attention_distance(network, torch.rand(1, 3, 64, 64))
    for block in network.model.blocks:
        table = block.attn.relative_position_bias_table.data
        table.zero_()
        table[block.attn.relative_position_index[-1, -1]] = 100
    np.testing.assert_allclose(attention_distance(network, torch.rand(1, 3, 64, 64)), 0, atol=1e-6)
    assert (before > 0.5).all()


def test_every_block_is_seen_in_order():
    network = _vit(depth=4)
    nn.init.zeros_(network.model.blocks[2].attn.qkv.weight)
    found = attention_distance(network, IMAGES)
    assert found.shape[1] == 4
    assert (np.abs(found[0] - 1).max(axis=1) < 1e-5).tolist() == [False, False, True, False]


def test_attention_with_windows_is_refused_with_the_reason():
    options = dict(embed_dim=16, depths=(1, 1, 2, 1), num_heads=(1, 2, 2, 4))
    network = build_network("timm/swin_tiny_patch4_window7_224", 5, (224, 224), settings=dict(options=options))
    with pytest.raises(SettingError, match=r"swin.* attends within windows .*: 49 tokens in 64 groups, where there are 3136"):
        attention_distance(network, torch.rand(1, 3, 224, 224))


def test_causal_attention_and_attention_to_other_tokens_are_told_apart_from_self_attention():
    seen: list[bool] = []
    q = torch.rand(2, 4, 9, 8)
    with attention_calls(nn.Identity(), lambda attention: seen.append(attention is not None)):
        nn.functional.scaled_dot_product_attention(q, q, q)
        nn.functional.scaled_dot_product_attention(q, q, q, is_causal=True)
        nn.functional.scaled_dot_product_attention(q[:, :, :1], q, q)
        nn.functional.scaled_dot_product_attention(q, q[:, :2], q[:, :2], enable_gqa=True)
    assert seen == [True, False, False, False]


@pytest.mark.parametrize("mask", [None, torch.rand(9, 9), torch.rand(2, 1, 9, 9) > 0.5])
@pytest.mark.parametrize("scale", [None, 0.7])
def test_scores_give_what_the_fused_call_gives(mask, scale):
    q, k, v = torch.rand(3, 2, 4, 9, 8).unbind(0)
    if mask is not None and mask.dtype == torch.bool:
        mask = mask | torch.eye(9, dtype=torch.bool)  # no row without any key
    scores = []
    with attention_calls(nn.Identity(), lambda attention: scores.append(attention.scores())):
        expected = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    torch.testing.assert_close(scores[0].softmax(dim=-1) @ v, expected, rtol=1e-5, atol=1e-6)
