"""Attention rollout against the paper's recursion written out, and heads whose answer is known."""

import numpy as np
import pytest
import torch
from timm.utils import AttentionExtract
from torch import nn

from crossdistill.instruments.attention_rollout import attention_rollout, reads_class_token, rolled_out
from crossdistill.models._build import build_network

IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def _vit(name: str = "small/vit", **settings):
    torch.manual_seed(0)
    network = build_network(name, 5, (32, 32), settings=settings or dict(width=24, depth=3, heads=3, patch=8))
    for block in network.model.blocks:
        nn.init.normal_(block.attn.qkv.weight, std=0.5)
        block.attn.fused_attn = False
    return network.eval()


def _literal(network) -> np.ndarray:
    """[images, tokens, tokens], product by product."""
    with torch.no_grad():
        weights = [w.double().numpy() for w in AttentionExtract(network.model, method="fx")(network.normalised(IMAGES)).values()]
    joint = np.stack([np.eye(weights[0].shape[-1])] * len(IMAGES))
    for layer in weights:
        for image in range(len(IMAGES)):
            mixed = 0.5 * layer[image].mean(axis=0) + 0.5 * np.eye(layer.shape[-1])
            joint[image] = mixed / mixed.sum(axis=1, keepdims=True) @ joint[image]
    return joint


def test_equals_the_recursion_of_the_paper():
    network = _vit()
    expected = _literal(network)[:, 0, 1:].reshape(2, 4, 4)
    expected /= expected.max(axis=(1, 2), keepdims=True)
    found = attention_rollout(network, IMAGES)
    assert found.shape == (2, 32, 32)
    # In the middle of a patch of 8 pixels lie four that are interpolated by a sixteenth each way; the corners are not.
    np.testing.assert_allclose(found[:, ::31, ::31], expected[:, ::3, ::3], rtol=1e-4)
    assert found.max() <= 1
    assert found.min() >= 0


def test_where_patches_are_averaged_so_are_their_rows():
    network = _vit("timm/vit_tiny_patch16_224", options=dict(embed_dim=24, num_heads=3, depth=3, patch_size=8, global_pool="avg"))
    assert not reads_class_token(network)
    expected = _literal(network)[:, 1:, 1:].mean(axis=1).reshape(2, 4, 4)
    expected /= expected.max(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(attention_rollout(network, IMAGES)[:, ::31, ::31], expected[:, ::3, ::3], rtol=1e-4)


def test_rows_add_up_to_one_and_two_blocks_by_hand():
    first, second = torch.tensor([[[0.0, 1.0], [0.0, 1.0]]]), torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    # (0.5 second + 0.5 I) (0.5 first + 0.5 I) = [[1, 0], [.5, .5]] [[.5, .5], [0, 1]]
    assert rolled_out([first, second]).tolist() == [[[0.5, 0.5], [0.25, 0.75]]]
    random = [torch.rand(3, 5, 5).softmax(dim=-1) for _ in range(4)]
    torch.testing.assert_close(rolled_out(random).sum(dim=-1), torch.ones(3, 5))


def test_uniform_attention_holds_all_patches_alike():
    network = _vit()
    for block in network.model.blocks:
        nn.init.zeros_(block.attn.qkv.weight)
    np.testing.assert_allclose(attention_rollout(network, IMAGES), 1, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("timm/deit_tiny_distilled_patch16_224", {}, True),
        ("timm/vit_little_patch16_reg4_gap_256", {}, False),
        ("timm/vit_tiny_patch16_224", dict(global_pool="avg"), False),
    ],
)
def test_which_token_is_read(name, options, expected):
    network = build_network(name, 5, (64, 64), settings=dict(options=dict(embed_dim=24, num_heads=3, depth=2) | options))
    assert reads_class_token(network) is expected
