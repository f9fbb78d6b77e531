"""A distillation token added to a network, and the head that reads it."""

import copy

import pytest
import torch
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from crossdistill.core.errors import SettingError
from crossdistill.models import _build as build
from crossdistill.models._build import build_network, load_network, save_network
from crossdistill.ops.network import Network
from crossdistill.ops.tokens import insert_token, takes_token

K = 5
SMALL = dict(img_size=8, patch_size=4, num_classes=K, embed_dim=8, depth=4, num_heads=2)
KINDS = {
    "class token": dict(),
    "registers": dict(reg_tokens=2),
    "no prefix in the embedding": dict(no_embed_class=True, reg_tokens=1),
    "no embedding": dict(pos_embed="none"),
    "mean pooling": dict(global_pool="avg"),
    "no class token": dict(global_pool="avg", class_token=False),
    "attention pooling": dict(global_pool="map", class_token=False),
    "dynamic size": dict(dynamic_img_size=True),
}


def vit(**options) -> Network:
    torch.manual_seed(0)
    return Network(VisionTransformer(**SMALL, **options), K, (8, 8)).eval()


def images(n: int = 2) -> torch.Tensor:
    return torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_every_vision_transformer_gets_one_more_token_with_a_head(options):
    network = vit(**options)
    before = network.n_prefix
    head = network.add_token_head("distillation")
    place = network.token_heads["distillation"]
    seen = network(images(), network.taps)
    assert network.heads == ("class", "distillation")
    assert (network.n_prefix, place) == (before + 1, int(network.model.cls_token is not None))
    assert seen.stages["stage1"].prefix.shape == seen.stages["last"].prefix.shape == (2, before + 1, 8)
    assert seen.dense["distillation"].shape == (2, K, 2, 2)
    if network.model.attn_pool is None:  # the norm between pooling and head, where there is one, applies to the token too
        expected = head(network.model.fc_norm(seen.stages["last"].prefix[:, place]))
        torch.testing.assert_close(seen.heads["distillation"], expected, rtol=0, atol=1e-6)  # one float32 layer
    seen.heads["distillation"].sum().backward()
    moved = network.model.reg_token.grad.abs().sum(dim=2)[0]
    assert moved[0] > moved[1:].sum()  # the head reads the new token itself, the registers only through attention
    assert network.model.patch_embed.proj.weight.grad.abs().sum() > 0


def test_rotary_attention_leaves_the_new_token_where_it_is():
    torch.manual_seed(0)
    model = Eva(**SMALL, use_rot_pos_emb=True, use_abs_pos_emb=False, qkv_fused=True)
    network = Network(model, K, (8, 8)).eval()
    network.add_token_head("distillation")
    assert {module.num_prefix_tokens for module in model.modules() if hasattr(module, "num_prefix_tokens")} == {2}
    assert network(images(), ["last"]).stages["last"].prefix.shape == (2, 2, 8)


def test_the_token_starts_from_the_class_token_and_its_place():
    network = vit(reg_tokens=1)
    model = network.model
    nn.init.normal_(model.cls_token)  # as after pretraining
    registers, positions = model.reg_token.clone(), model.pos_embed.clone()
    network.add_token_head("distillation")
    difference = (model.reg_token[:, :1] - model.cls_token).abs()
    assert 0 < difference.max() < 0.1  # noise of spread 0.02, truncated
    assert torch.equal(model.reg_token[:, 1:], registers)
    assert torch.equal(model.pos_embed[:, [0, 2, 3, 4, 5, 6]], positions)
    assert torch.equal(model.pos_embed[:, 1], positions[:, 0])


def test_a_second_token_stands_after_the_first():
    network = vit(reg_tokens=1)
    network.add_token_head("distillation")
    first = network.model.reg_token[:, 0].clone()
    network.add_token_head("other")
    assert network.token_heads == {"distillation": 1, "other": 2}
    assert torch.equal(network.model.reg_token[:, 0], first)
    assert network(images()).heads.keys() == {"class", "distillation", "other"}


def test_dense_logits_are_the_distillation_head_on_the_patch_tokens():
    network = vit()
    head = network.add_token_head("distillation")
    seen = network(images(), ["last", "dense"])
    expected = head(seen.stages["last"].grid.movedim(1, -1)).movedim(-1, 1)
    torch.testing.assert_close(seen.dense["distillation"], expected, rtol=0, atol=1e-6)  # one float32 layer
    assert not torch.allclose(seen.dense["class"], seen.dense["distillation"], atol=1e-3)


def test_a_convolutional_stem_without_a_class_token_keeps_its_family():
    network = vit(global_pool="avg", class_token=False)
    network.model.patch_embed.proj = nn.Conv2d(3, 8, 5, stride=4, padding=2)
    before = network.family
    network.add_token_head("distillation")
    assert (before, network.family) == ("cnn", "cnn")


@pytest.mark.parametrize("name", ["small/resnet8", "timm/beit_base_patch16_224", "timm/swin_tiny_patch4_window7_224"])
def test_elsewhere_the_head_reads_the_pooled_vector_and_a_note_says_so(name):
    with torch.device("meta"):
        network = build_network(name, K, (64, 64))
    assert not takes_token(network.model)
    network.add_token_head("distillation")
    assert (network.heads, network.token_heads) == (("class", "distillation"), {})
    assert network.notes == [f"distillation head on the pooled vector: {name} takes no further token"]


def test_a_model_that_is_distilled_already_is_left_alone():
    network = build_network("timm/deit_tiny_distilled_patch16_224", K, (32, 32), settings={"options": {"depth": 4}})
    assert not takes_token(network.model)
    with pytest.raises(ValueError, match="has a head 'distillation' already"):
        network.add_token_head("distillation")
    with pytest.raises(ValueError, match="takes no further token"):
        insert_token(network.model)


@pytest.mark.parametrize("name", ["small/vit", "small/resnet8"])
def test_a_saved_network_comes_back_with_its_token(name, tmp_path):
    torch.manual_seed(0)
    network = build_network(name, 3, (16, 16), settings=dict(width=16, depth=2) if name == "small/vit" else {}).eval()
    network.add_token_head("distillation")
    network.readout = "mean_heads_dense"
    save_network(network, tmp_path / "network.safetensors", class_names="abc")
    loaded = load_network(tmp_path / "network.safetensors").eval()
    assert (loaded.heads, loaded.token_heads, loaded.notes) == (network.heads, network.token_heads, network.notes)
    shown = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(loaded(shown).logits, network(shown).logits)


def test_a_file_from_before_there_were_tokens_still_loads(tmp_path, monkeypatch):
    network = build_network("small/vit", 3, (16, 16), settings=dict(width=16, depth=2))
    network.add_head("distillation")
    fingerprint = build._fingerprint

    def older(description, tensors):
        description.pop("token_heads", None)
        return fingerprint(description, tensors)

    monkeypatch.setattr(build, "_fingerprint", older)
    save_network(network, tmp_path / "old.safetensors", class_names="abc")
    monkeypatch.undo()
    assert load_network(tmp_path / "old.safetensors").heads == ("class", "distillation")


def test_classes_of_a_loaded_network_are_reordered_in_both_heads(tmp_path):
    network = build_network("small/vit", 3, (16, 16), settings=dict(width=16, depth=2)).eval()
    network.add_token_head("distillation")
    save_network(network, tmp_path / "network.safetensors", class_names="abc")
    loaded = load_network(tmp_path / "network.safetensors", class_map=[1, 2, 0]).eval()
    shown = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        for head, logits in network(shown).heads.items():
            torch.testing.assert_close(loaded(shown).heads[head], logits[:, [2, 0, 1]])


def test_a_copy_and_half_precision_work_as_the_network_does():
    network = vit()
    network.add_token_head("distillation")
    copied = copy.deepcopy(network)
    with torch.no_grad():
        assert torch.equal(copied(images()).heads["distillation"], network(images()).heads["distillation"])
        with torch.autocast("cpu", torch.bfloat16):
            half = network(images(1)).heads["distillation"]
        assert half.dtype == torch.float32
        # bfloat16 keeps 8 bits, and the logits are of the order of 0.1.
        torch.testing.assert_close(half, network(images(1)).heads["distillation"], rtol=0, atol=0.02)
        assert network.double()(images(1).double()).heads["distillation"].dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("kind", ["class token", "no class token"])
def test_a_token_is_added_in_the_networks_precision(kind, dtype):
    network = vit(**KINDS[kind]).to(dtype)
    head = network.add_token_head("distillation")
    assert {head.weight.dtype, network.model.reg_token.dtype, network.model.pos_embed.dtype} == {dtype}
    assert network(images()).heads["distillation"].isfinite().all()


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "eva02_tiny_patch14_224"])
def test_a_model_that_drops_patches_in_training_is_refused(name):
    side = 56 if "patch14" in name else 64
    network = build_network(f"timm/{name}", K, (side, side), settings={"options": {"patch_drop_rate": 0.25, "depth": 4}})
    with pytest.raises(SettingError, match=f"timm/{name} drops patches in training.* leave out the option `patch_drop_rate`"):
        network.add_token_head("distillation")
    assert (network.heads, network.notes) == (("class",), [])
