"""The attention tap: what it gives must be what the network's last block computed with."""

import math

import pytest
import torch
from torch import nn
from torchvision.models import VisionTransformer

from crossdistill.core.errors import UnknownNameError
from crossdistill.models._build import build_network
from crossdistill.ops.attention import attention_calls, patch_rows
from crossdistill.ops.network import Network
from crossdistill.ops.taps import recording

TIMM = {
    "vit_tiny_patch16_224": dict(embed_dim=24, num_heads=3, depth=4),
    "deit_tiny_distilled_patch16_224": dict(embed_dim=24, num_heads=3, depth=4),
    "deit3_small_patch16_224": dict(embed_dim=24, num_heads=3, depth=4),
    "vit_little_patch16_reg4_gap_256": dict(embed_dim=24, num_heads=3, depth=4),  # normed queries and keys, registers
    "eva02_tiny_patch14_224": dict(embed_dim=24, num_heads=3, depth=4),  # rotary embedding
    "beit_base_patch16_224": dict(embed_dim=24, num_heads=3, depth=4, use_rel_pos_bias=False),
}
CNNS_AND_WINDOWS = {
    "small/resnet8": {},
    "timm/resnet10t": {},
    "timm/mixer_s32_224": {},
    # Its last window covers the whole map, but tokens of stages are no row of patches.
    "timm/swin_tiny_patch4_window7_224": dict(options=dict(embed_dim=16, depths=(1, 1, 2, 1), num_heads=(1, 2, 2, 4))),
    # A bias for each pair of positions, which no q and k can tell.
    "timm/beit_base_patch16_224": dict(options=dict(embed_dim=24, num_heads=3, depth=4)),
}


def _timm(name: str, side: int = 64) -> Network:
    torch.manual_seed(0)
    return build_network(f"timm/{name}", 5, (side, side), settings={"input_size": side, "options": TIMM[name]}).eval()


def _images(side: int, n: int = 3) -> torch.Tensor:
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(1))


def _mixed(attention: dict[str, torch.Tensor]) -> torch.Tensor:
    """softmax(q k^T / sqrt(d)) v written out, heads side by side: [batch, tokens, channels]."""
    scores = attention["q"] @ attention["k"].transpose(-2, -1) / math.sqrt(attention["q"].shape[-1])
    return (scores.softmax(dim=-1) @ attention["v"]).transpose(1, 2).flatten(2)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("name", TIMM)
def test_the_written_out_attention_gives_the_last_blocks_output(name, fused):
    side = 56 if "patch14" in name else 64
    network = _timm(name, side)
    blocks = [module for module in network.model.modules() if hasattr(module, "fused_attn")]
    for block in blocks:
        block.fused_attn = fused
    # eva and beit normalise before the projection where they are told to; the projection's own input is the attention's output.
    with torch.no_grad(), recording({"proj": blocks[-1].proj}) as seen:
        tapped = network(_images(side), ["attention"])
    assert [block.fused_attn for block in blocks] == [fused] * len(blocks)
    expected = seen.inputs["proj"]
    got = _mixed(tapped.attention)
    got = getattr(blocks[-1], "norm", nn.Identity())(got)
    # 1e-5: the fused call sums in another order.
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    assert network.shapes()["attention"] == tapped.attention["q"].shape[1:]
    assert network.shapes()["attention"][1] == network.n_prefix + math.prod(network.shapes()["last"][1:])
    with torch.no_grad():
        torch.testing.assert_close(tapped.logits, network(_images(side)).logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model", CNNS_AND_WINDOWS)
def test_networks_whose_last_block_does_not_attend_over_all_patches_do_not_offer_it(model):
    side = 32 if model.startswith("small") else 64
    network = build_network(model, 5, (side, side), settings=CNNS_AND_WINDOWS[model])
    assert "attention" not in network.taps
    assert "attention" not in network.shapes()
    with pytest.raises(UnknownNameError, match="attention"):
        network(_images(side), ["attention"])


def test_torchvisions_multihead_attention_is_read_too():
    torch.manual_seed(0)
    model = VisionTransformer(image_size=32, patch_size=8, num_layers=4, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=5)
    nn.init.normal_(model.heads.head.weight)  # zeros at first
    network = Network(model, 5, (32, 32)).eval()
    attention = model.encoder.layers[-1].self_attention
    with torch.no_grad(), recording({"attention": attention}) as seen:
        tapped = network(_images(32), ["attention"])
    assert network.shapes()["attention"] == (2, 17, 8)
    torch.testing.assert_close(attention.out_proj(_mixed(tapped.attention)), seen.outputs["attention"], rtol=1e-4, atol=1e-5)
    with torch.no_grad():  # without the tap torch takes its own fast path
        torch.testing.assert_close(tapped.logits, network(_images(32)).logits, rtol=1e-4, atol=1e-5)


def test_a_hugging_face_vit_is_read_too():
    pytest.importorskip("transformers", reason="the extra `hf` is not installed")
    config = dict(
        model_type="vit", hidden_size=24, num_hidden_layers=4, num_attention_heads=2, intermediate_size=48, image_size=32, patch_size=8
    )
    network = build_network("huggingface/example/tiny-vit", 5, (32, 32), settings={"config": config})
    with torch.no_grad():
        seen = network(_images(32), ["attention"])
    assert network.shapes()["attention"] == seen.attention["v"].shape[1:] == (2, 17, 12)


def test_half_precision_comes_back_as_float32():
    network = _timm("vit_tiny_patch16_224")
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        seen = network(_images(64), ["attention"])
    assert {values.dtype for values in seen.attention.values()} == {torch.float32}


def test_gradient_reaches_the_first_parameter_through_the_tap():
    network = _timm("vit_tiny_patch16_224").train()
    seen = network(_images(64), ["attention"])
    sum(values.square().sum() for values in seen.attention.values()).backward()
    assert network.model.patch_embed.proj.weight.grad.abs().sum() > 0


def test_a_network_that_gained_a_token_attends_over_one_token_more():
    network = build_network("small/vit", 5, (16, 16), settings={"width": 16, "depth": 2, "heads": 2})
    heads, tokens, dim = network.shapes()["attention"]
    network.add_token_head("distillation")
    assert network.shapes()["attention"] == (heads, tokens + 1, dim)


@pytest.mark.parametrize("reason", ["mask", "scale", "causal", "shared keys"])
def test_a_call_that_q_k_and_v_do_not_tell_alone_hides_the_block_before_it(reason):
    plain = torch.rand(2, 4, 9, 8)
    options = {
        "mask": dict(attn_mask=torch.zeros(9, 9)),
        "scale": dict(scale=1.0),
        "causal": dict(is_causal=True),
        "shared keys": dict(enable_gqa=True),
    }[reason]
    keys = plain[:, :2] if reason == "shared keys" else plain
    with attention_calls(nn.Identity()) as calls:
        nn.functional.scaled_dot_product_attention(plain, plain, plain)
        assert calls.shape(2, 9) == (4, 9, 8)
        nn.functional.scaled_dot_product_attention(plain, keys, keys, **options)
    assert calls.last(2, 9) is None


def test_patch_rows_leave_the_prefix_out():
    values = torch.arange(5.0).view(1, 1, 5, 1)
    assert patch_rows({"q": values}, 4)["q"].flatten().tolist() == [1, 2, 3, 4]
