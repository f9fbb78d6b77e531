"""Grad-CAM against a literal computation, of convolutional and token networks, and a class that stands in one corner."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossdistill.instruments.grad_cam import class_activation, grad_cam
from crossdistill.models._build import build_network
from crossdistill.ops.network import Network

IMAGES = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def _built(name: str, side: int = 32, **settings) -> Network:
    torch.manual_seed(0)
    network = build_network(name, 5, (side, side), settings=settings).eval()
    with torch.no_grad():
        for weights in network.parameters():
            weights.add_(0.05 * torch.randn_like(weights))
    return network


def _picture(grid: Tensor, gradient: Tensor) -> np.ndarray:
    """Equations 1 and 2, channel by channel, each map over its largest value, enlarged."""
    cams = []
    for image in range(len(grid)):
        cam = torch.zeros(grid.shape[2:])
        for channel in range(grid.shape[1]):
            cam += gradient[image, channel].mean() * grid[image, channel]
        cams.append(cam.clamp(min=0) / cam.clamp(min=0).max().clamp(min=1e-30))
    return F.interpolate(torch.stack(cams)[:, None], (32, 32), mode="bilinear")[:, 0].detach().numpy()


def test_equals_a_literal_computation_on_a_tiny_network():
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(4, 6, 3, stride=2, padding=1), nn.ReLU())
    head = nn.Linear(6, 5)
    network = Network(nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head), 5, (32, 32), mean=(0, 0, 0), std=(1, 1, 1))
    classes = torch.tensor([4, 0, 2])
    grid = body(IMAGES)
    # The logit is linear in the map: its gradient at every position is the class's weight over the 64 positions.
    gradient = (head.weight[classes] / 64)[:, :, None, None].expand_as(grid)
    np.testing.assert_allclose(grad_cam(network, IMAGES, classes), _picture(grid, gradient), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("inplace", [False, True])
def test_a_resnet_is_read_on_its_last_map(inplace):
    network = _built("small/resnet8")
    for module in network.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = inplace
    grid = network.model.forward_features(network.normalised(IMAGES)).detach().requires_grad_()
    logits = network.model.forward_head(grid)
    (gradient,) = torch.autograd.grad(logits.max(dim=1).values.sum(), grid)
    np.testing.assert_allclose(grad_cam(network, IMAGES), _picture(grid, gradient), rtol=1e-3, atol=1e-4)


def test_a_vit_with_a_class_token_is_read_before_its_last_block():
    network = _built("small/vit", width=16, depth=6)
    model: nn.Module = network.model
    tokens = model._pos_embed(model.patch_embed(network.normalised(IMAGES)))
    for block in model.blocks[:5]:
        tokens = block(tokens)
    tokens = tokens.detach().requires_grad_()
    logits = model.forward_head(model.norm(model.blocks[5](tokens)))
    (gradient,) = torch.autograd.grad(logits[:, 3].sum(), tokens)
    as_grid = lambda values: values[:, 1:].transpose(1, 2).unflatten(-1, (8, 8))  # noqa: E731
    expected = _picture(as_grid(tokens), as_grid(gradient))
    np.testing.assert_allclose(grad_cam(network, IMAGES, torch.tensor([3, 3, 3])), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("pool", ["timm", "swin", "torchvision swin"])
def test_token_networks_that_average_patches_are_read_after_their_final_norm(pool):
    if pool == "timm":
        options = dict(embed_dim=24, num_heads=3, depth=4, patch_size=8, global_pool="avg", fc_norm=False)
        network = _built("timm/vit_tiny_patch16_224", options=options)
    elif pool == "swin":
        options = dict(embed_dim=16, depths=(1, 1, 1, 1), num_heads=(1, 2, 2, 4), patch_size=1)
        network = _built("timm/swin_tiny_patch4_window7_224", options=options)
    else:
        from torchvision.models.swin_transformer import SwinTransformer

        network = Network(SwinTransformer([2, 2], 8, [1, 1, 1, 1], [1, 1, 2, 2], [2, 2], num_classes=5), 5, (32, 32)).eval()
    with torch.no_grad():
        seen = network(IMAGES, ["last"])
    grid = seen.stages["last"].grid
    classifier = network.reader.classifiers(network.model)["class"]
    n_positions = grid.shape[2] * grid.shape[3]
    gradient = (classifier.weight[seen.logits.argmax(dim=1)] / n_positions)[:, :, None, None].expand_as(grid)
    np.testing.assert_allclose(grad_cam(network, IMAGES), _picture(grid, gradient), rtol=1e-3, atol=1e-4)


def test_a_network_whose_class_token_joins_late_is_read_on_a_map_of_patches_alone():
    network = build_network(
        "timm/cait_xxs24_224", 5, (32, 32), settings=dict(options=dict(embed_dim=24, depth=4, num_heads=2, patch_size=8))
    )
    with torch.no_grad():
        for weights in network.parameters():
            weights.add_(0.2 * torch.randn(weights.shape, generator=torch.Generator().manual_seed(0)))
    assert grad_cam(network, IMAGES).any()


def test_a_class_that_stands_in_one_corner_is_found_there():
    """A network that answers by brightness, shown a bright corner."""
    model = nn.Sequential(nn.Conv2d(3, 1, 4, stride=4, bias=False), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 2))
    network = Network(model, 2, (32, 32), mean=(0, 0, 0), std=(1, 1, 1))
    nn.init.ones_(model[0].weight)
    model[-1].weight.data = torch.tensor([[-1.0], [1.0]])
    image = torch.zeros(1, 3, 32, 32)
    image[..., :8, 24:] = 1
    found = grad_cam(network, image, torch.tensor([1]))[0]
    assert found.max() == 1
    assert found[:6, 26:].min() == 1
    assert found[12:].max() == found[:, :20].max() == 0
    assert grad_cam(network, image, torch.tensor([0])).max() == 0  # nothing speaks for the other class


def test_without_classes_or_labels_it_is_the_networks_own_answer():
    network = _built("small/resnet8")
    with torch.no_grad():
        answered = network(IMAGES).logits.argmax(dim=1)
    own = grad_cam(network, IMAGES)
    np.testing.assert_array_equal(own, grad_cam(network, IMAGES, answered))
    np.testing.assert_array_equal(own, grad_cam(network, IMAGES, torch.tensor([-1, -1, -1])))
    with pytest.raises(ValueError, match="below 5"):
        grad_cam(network, IMAGES, torch.tensor([0, 5, 1]))
    with pytest.raises(ValueError, match="one for each image"):
        grad_cam(network, IMAGES, torch.tensor([0]))


def test_the_map_by_hand():
    grid = torch.tensor([[[[1.0, 2.0]], [[3.0, -4.0]]]])
    gradient = torch.tensor([[[[1.0, 3.0]], [[0.0, 2.0]]]])  # weights 2 and 1: 2 + 3, 4 - 4
    assert class_activation(grid, gradient).tolist() == [[[5.0, 0.0]]]
    assert class_activation(grid, -gradient).tolist() == [[[0.0, 0.0]]]
