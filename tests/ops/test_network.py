import copy

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from crossdistill.core.errors import SettingError, UnknownNameError
from crossdistill.models._build import build_network
from crossdistill.ops.network import Network

K = 5


class TinyConvNet(nn.Module):
    """Two convolutions and a linear head on the mean: small enough to be worked out by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(4, 6, 3, stride=2, padding=1), nn.ReLU()
        )
        self.head = nn.Linear(6, K)

    def forward(self, x):
        return self.head(self.features(x).mean(dim=(2, 3)))


@pytest.fixture
def conv() -> Network:
    torch.manual_seed(0)
    return Network(TinyConvNet(), K, (8, 8), mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 0.2)).eval()


@pytest.fixture
def vit() -> Network:
    torch.manual_seed(0)
    model = VisionTransformer(img_size=8, patch_size=4, num_classes=K, embed_dim=8, depth=4, num_heads=2, reg_tokens=1)
    return Network(model, K, (8, 8)).eval()


def test_uint8_and_unit_range_images_are_normalised_alike(conv):
    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    expected = (images / 255 - conv.mean) / conv.std
    # 1e-5: values up to 5, and the division by 255 is folded into the factor.
    torch.testing.assert_close(conv.normalised(images), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(conv.normalised(images / 255), expected, rtol=0, atol=1e-5)


def test_normalising_leaves_the_callers_images_alone(conv):
    images = torch.rand(2, 3, 8, 8)
    before = images.clone()
    conv(images)
    assert torch.equal(images, before)


def test_channels_last_images_stay_channels_last(conv):
    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    assert conv.normalised(images).is_contiguous(memory_format=torch.channels_last)


def test_images_of_one_colour_keep_it_through_the_resize(conv):
    # Bilinear weights sum to one, so a constant image stays constant at any size.
    grey = torch.full((1, 3, 20, 12), 0.5)
    torch.testing.assert_close(conv(grey).logits, conv(torch.full((1, 3, 8, 8), 0.5)).logits, rtol=0, atol=1e-6)


def test_an_unknown_tap_is_refused_with_the_nearest_name(conv):
    with pytest.raises(UnknownNameError, match="no tap of this network is called 'poled'. Did you mean 'pooled'"):
        conv(torch.rand(1, 3, 8, 8), ["poled"])


def test_a_shallow_network_still_has_four_stages_if_it_has_four_different_maps(conv):
    assert {name: shape[1:] for name, shape in conv.shapes().items() if name.startswith("stage")} == {
        "stage1": (4, 4),
        "stage2": (4, 4),
        "stage3": (2, 2),
        "stage4": (2, 2),
    }


def test_tokens_of_a_vit_stand_where_their_patches_are(vit):
    """Positional embedding in place: without it, swapping two patches of the image would merely swap two tokens."""
    images = torch.rand(1, 3, 8, 8)
    swapped = images.clone()
    swapped[..., :4, :4], swapped[..., 4:, 4:] = images[..., 4:, 4:], images[..., :4, :4]
    with torch.no_grad():
        a, b = vit(images, ["last"]).stages["last"], vit(swapped, ["last"]).stages["last"]
    assert not torch.allclose(a.grid[..., 0, 0], b.grid[..., 1, 1], atol=1e-4)
    nn.init.zeros_(vit.model.pos_embed)
    with torch.no_grad():
        a, b = vit(images, ["last"]).stages["last"], vit(swapped, ["last"]).stages["last"]
    torch.testing.assert_close(a.grid[..., 0, 0], b.grid[..., 1, 1], rtol=0, atol=1e-5)


def test_prefix_tokens_of_a_vit_are_kept_apart(vit):
    with torch.no_grad():
        seen = vit(torch.rand(2, 3, 8, 8), ["stage1", "last", "pooled"])
    assert vit.n_prefix == 2  # class and register
    assert seen.stages["stage1"].prefix.shape == (2, 2, 8)
    assert torch.equal(seen.stages["last"].prefix[:, 0], seen.pooled)


def test_stage4_is_before_the_final_norm_and_last_after_it(vit):
    with torch.no_grad():
        seen = vit(torch.rand(2, 3, 8, 8), ["stage4", "last"])
        normed = vit.model.norm(seen.stages["stage4"].grid.movedim(1, -1)).movedim(-1, 1)
    torch.testing.assert_close(seen.stages["last"].grid, normed, rtol=0, atol=1e-6)


def test_dense_logits_of_a_vit_are_its_head_on_the_patch_tokens(vit):
    with torch.no_grad():
        seen = vit(torch.rand(2, 3, 8, 8), ["last", "dense"])
        expected = vit.model.head(seen.stages["last"].grid.movedim(1, -1)).movedim(-1, 1)
    torch.testing.assert_close(seen.dense["class"], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "size", "grid"),
    [
        ("timm/vit_tiny_patch16_224", (224, 224), (14, 14)),
        ("timm/swin_tiny_patch4_window7_224", (224, 224), (56, 56)),
        ("torchvision/vit_b_32", (224, 224), (7, 7)),
        ("torchvision/swin_t", (64, 64), (16, 16)),
        ("timm/mixer_s32_224", (224, 224), (7, 7)),
        ("small/vit", (32, 48), (8, 12)),
        ("timm/vit_small_r26_s32_224", (224, 224), None),  # patches of a convolutional stem's map, which overlap in the image
        ("small/resnet8", (32, 32), None),
    ],
)
def test_the_patch_grid_is_that_of_the_finest_tokens(name, size, grid):
    with torch.device("meta"):
        assert build_network(name, K, size).patch_grid == grid


def test_an_added_head_reads_the_pooled_vector_and_the_positions(conv):
    head = conv.add_head("distillation")
    with torch.no_grad():
        seen = conv(torch.rand(2, 3, 8, 8), ["pooled", "dense"])
        torch.testing.assert_close(seen.heads["distillation"], head(seen.pooled), rtol=0, atol=1e-6)
    assert conv.heads == ("class", "distillation")
    # An affine head after average pooling: the mean of its dense logits is its answer.
    torch.testing.assert_close(seen.dense["distillation"].mean(dim=(2, 3)), seen.heads["distillation"], rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="has a head 'distillation' already"):
        conv.add_head("distillation")


def test_the_readout_says_which_heads_predict(vit):
    vit.add_head("distillation")
    images = torch.rand(2, 3, 8, 8)
    with torch.no_grad():
        heads = vit(images).heads
        dense = vit(images, ["dense"]).dense["distillation"].mean(dim=(2, 3))
        assert torch.equal(vit(images).logits, heads["class"])
        vit.readout = "mean_heads"
        torch.testing.assert_close(vit(images).logits, (heads["class"] + heads["distillation"]) / 2)
        vit.readout = "mean_heads_dense"
        torch.testing.assert_close(vit(images).logits, (heads["class"] + heads["distillation"] + dense) / 3)
        assert not vit(images).dense, "dense logits were not asked for"
        vit.readout = "loudest"
        with pytest.raises(SettingError, match="readout is one of class, mean_heads, mean_heads_dense, got 'loudest'"):
            vit(images)


def test_half_precision_comes_back_as_float32_and_float64_stays(conv):
    images = torch.rand(2, 3, 8, 8)
    with torch.no_grad():
        with torch.autocast("cpu", torch.bfloat16):
            seen = conv(images, conv.taps)
        assert {seen.logits.dtype, seen.pooled.dtype, seen.dense["class"].dtype, seen.stages["stage1"].grid.dtype} == {torch.float32}
        assert conv.double()(images).logits.dtype == torch.float64


def test_a_copy_is_independent_of_its_original(conv):
    twin = copy.deepcopy(conv)
    nn.init.zeros_(twin.model.head.weight)
    nn.init.zeros_(twin.model.head.bias)
    with torch.no_grad():
        assert not twin(torch.rand(1, 3, 8, 8), ["pooled"]).logits.any()
        assert conv(torch.rand(1, 3, 8, 8)).logits.any()


def test_a_network_may_be_built_without_memory():
    with torch.device("meta"):
        network = Network(TinyConvNet(), K, (8, 8))
        assert network.shapes()["stage4"] == (6, 2, 2)
        assert network.shapes()["dense"] == (K, 2, 2)
    assert network.n_parameters == sum(p.numel() for p in TinyConvNet().parameters())


def test_a_model_that_cannot_take_the_size_is_refused_with_the_size():
    with pytest.raises(SettingError, match="cannot take images of 6 x 6 pixels"):
        Network(nn.Sequential(nn.Conv2d(3, 4, 7), nn.Flatten(), nn.Linear(4, K)), K, (6, 6))


class NormedHead(nn.Module):
    """A convolution, a mean, a BatchNorm and a linear head, in no library's layout."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.norm, self.head = nn.Conv2d(3, 6, 4, stride=4), nn.BatchNorm1d(6), nn.Linear(6, K)

    def forward(self, x):
        return self.head(self.norm(self.body(x).mean(dim=(2, 3))))


@pytest.mark.parametrize("name", ["own", "timm/mobilenetv4_conv_small", "timm/efficientvit_b0", "timm/repvit_m0_9", "timm/levit_128s"])
def test_dense_logits_leave_the_statistics_as_one_forward_pass_alone_moves_them(name):
    torch.manual_seed(0)
    side = 224 if "levit" in name else 64
    network = Network(NormedHead(), K, (64, 64)) if name == "own" else build_network(name, K, (side, side))
    network.add_head("extra")
    network.train()
    plain, images = copy.deepcopy(network), torch.rand(4, 3, side, side)
    plain(images)
    seen = network(images, ["dense"])
    assert "dense" in network.shapes()
    assert all(seen.dense[head].shape[:2] == (4, K) for head in network.heads)
    for (buffer, moved), expected in zip(network.named_buffers(), plain.buffers(), strict=True):
        assert torch.equal(moved, expected), buffer
    assert all(module.training for module in network.modules())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_head_is_added_in_the_networks_precision(conv, dtype):
    conv.to(dtype)
    assert conv.add_head("distillation").weight.dtype == dtype
    assert conv(torch.rand(2, 3, 8, 8)).heads["distillation"].isfinite().all()


@pytest.mark.parametrize("name", ["coat_tiny", "coat_lite_tiny", "pit_ti_distilled_224", "volo_d1_224"])
def test_a_timm_model_whose_features_cannot_be_read_is_refused_in_a_sentence(name):
    with pytest.raises(SettingError, match=rf"the features of timm/{name} cannot be read \(.*Choose another model"), torch.device("meta"):
        build_network(f"timm/{name}", K, (224, 224))
