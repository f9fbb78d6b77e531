import pytest
import torch
from torch import nn
from torchvision.models import resnet50
from torchvision.models.swin_transformer import SwinTransformer
from torchvision.models.vision_transformer import VisionTransformer

from crossdistill.core.errors import SettingError
from crossdistill.ops.hook_reader import HookReader, answer_of
from crossdistill.ops.network import Network

K = 5


def _network(model: nn.Module, side: int) -> Network:
    return Network(model, K, (side, side)).eval()


def test_stages_of_a_bottleneck_resnet_are_its_four_layers():
    """A bottleneck convolves at the old resolution before it strides: its inside must not be taken for the stage before."""
    reader = _network(resnet50(num_classes=K, width_per_group=4), 64).reader
    assert isinstance(reader, HookReader)
    assert [reader.tapped[name].module for name in reader.stages] == ["layer1", "layer2", "layer3", "layer4"]


def test_a_swin_is_read_as_grids_with_the_norm_between_stage4_and_last():
    torch.manual_seed(0)
    network = _network(SwinTransformer([4, 4], 8, [1, 1, 1, 1], [1, 1, 2, 2], [2, 2], num_classes=K), 64)
    assert [network.shapes()[name] for name in ("stage1", "stage4", "last")] == [(8, 16, 16), (64, 2, 2), (64, 2, 2)]
    with torch.no_grad():
        seen = network(torch.rand(2, 3, 64, 64), ["stage4", "last", "dense"])
        normed = network.model.norm(seen.stages["stage4"].grid.movedim(1, -1)).movedim(-1, 1)
    torch.testing.assert_close(seen.stages["last"].grid, normed, rtol=0, atol=1e-6)
    torch.testing.assert_close(seen.dense["class"].mean(dim=(2, 3)), seen.logits, rtol=0, atol=1e-6)


def test_a_torchvision_vit_is_read_as_grids_with_its_class_token_apart():
    torch.manual_seed(0)
    model = VisionTransformer(image_size=32, patch_size=8, num_layers=6, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=K)
    nn.init.normal_(model.heads.head.weight)  # zeros at first
    network = _network(model, 32)
    with torch.no_grad():
        seen = network(torch.rand(2, 3, 32, 32), network.taps)
    assert network.family == "token"
    assert seen.stages["stage1"].grid.shape == (2, 16, 4, 4)
    assert torch.equal(seen.stages["last"].prefix[:, 0], seen.pooled)
    expected = model.heads.head(seen.stages["last"].grid.movedim(1, -1)).movedim(-1, 1)
    torch.testing.assert_close(seen.dense["class"], expected, rtol=0, atol=1e-6)


class TwoTokenHead(nn.Module):
    """A head on more than a pooled vector: the class token beside the mean of the patches."""

    def __init__(self) -> None:
        super().__init__()
        self.body = VisionTransformer(image_size=16, patch_size=8, num_layers=4, num_heads=1, hidden_dim=8, mlp_dim=8, num_classes=K)
        self.body.heads = nn.Identity()
        self.head = nn.Linear(16, K)

    def forward(self, x):
        seen = []
        handle = self.body.encoder.ln.register_forward_hook(lambda module, inputs, output: seen.append(output))
        self.body(x)
        handle.remove()
        return self.head(torch.cat([seen[0][:, 0], seen[0][:, 1:].mean(dim=1)], dim=1))


def test_dense_logits_are_refused_in_words_where_the_head_takes_no_single_position():
    network = _network(TwoTokenHead(), 16)
    assert "dense" not in network.shapes()
    assert network.shapes()["pooled"] == (16,)
    with pytest.raises(SettingError, match="dense logits need a head that can be applied to one position"):
        network(torch.rand(1, 3, 16, 16), ["dense"])


def test_a_model_without_a_linear_classifier_is_refused():
    with pytest.raises(SettingError, match="no linear classifier"):
        _network(nn.Sequential(nn.Conv2d(3, K, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()), 8)


def test_a_model_that_answers_with_something_else_is_refused():
    with pytest.raises(SettingError, match="a classifier gives logits .* got dict"):
        answer_of({"scores": torch.zeros(1)})
