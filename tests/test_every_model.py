"""What every network promises, of any source and family: one pass, four stages, the bare model's answers, gradients through each tap."""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import nn

from crossdistill.models._build import build_network
from crossdistill.ops.modes import evaluating
from crossdistill.ops.taps import STAGES, TAPS

N_CLASSES, BATCH = 7, 2

OWN_MODEL = """
from torch import nn

def conv_net(n_classes, size, *, width):
    channels = [3, width, 2 * width, 3 * width, 4 * width]
    stages = [nn.Sequential(nn.Conv2d(a, b, 3, stride=2, padding=1), nn.BatchNorm2d(b), nn.ReLU()) for a, b in zip(channels, channels[1:])]
    return nn.Sequential(*stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, n_classes))
"""

TINY_VIT = dict(
    model_type="vit", hidden_size=24, num_hidden_layers=6, num_attention_heads=2, intermediate_size=48, image_size=32, patch_size=8
)
TINY_SWIN = dict(embed_dim=16, depths=(1, 1, 2, 1), num_heads=(1, 2, 2, 4))


@dataclass(frozen=True)
class Case:
    """A model, the family it must be taken for, and whether its head is affine after average pooling."""

    model: str
    family: str
    affine: bool = False
    side: int = 64
    settings: dict[str, Any] = field(default_factory=dict)


CASES = [
    Case("small/resnet8", "cnn", affine=True, side=32),
    Case("small/resnet20", "cnn", affine=True, side=32),
    Case("small/wrn_16_2", "cnn", affine=True, side=32),
    Case("small/vgg", "cnn", affine=True, side=32, settings=dict(width=8)),
    Case("small/vit", "token", side=32, settings=dict(width=32, depth=4)),
    Case("timm/resnet10t", "cnn", affine=True),
    Case("timm/convnext_atto", "cnn"),
    Case("timm/regnetx_002", "cnn", affine=True),
    Case("timm/efficientnet_lite0", "cnn", affine=True),
    Case("timm/mobilenetv3_small_050", "cnn"),
    Case("timm/vgg11_bn", "cnn", settings=dict(options=dict(mlp_ratio=0.02))),
    Case("timm/vit_tiny_patch16_224", "token", settings=dict(options=dict(embed_dim=48))),
    # A class token in the row but the mean of the patches into the head: norm after the mean, so dense averages are not the logits.
    Case("timm/vit_tiny_patch16_224", "token", settings=dict(options=dict(embed_dim=48, global_pool="avg"))),
    Case("timm/deit_tiny_distilled_patch16_224", "token", settings=dict(options=dict(embed_dim=48))),
    Case("timm/swin_tiny_patch4_window7_224", "token", affine=True, settings=dict(options=TINY_SWIN)),
    Case("timm/coatnet_pico_rw_224", "cnn", affine=True),
    Case("timm/maxvit_rmlp_pico_rw_256", "cnn", affine=True),
    Case("timm/mixer_s32_224", "token", affine=True),
    Case("timm/resmlp_12_224", "token", affine=True),
    Case("torchvision/resnet18", "cnn", affine=True),
    Case("torchvision/mobilenet_v3_small", "cnn"),
    Case("huggingface/example/tiny-vit", "token", side=32, settings=dict(config=TINY_VIT)),
    Case("python:own_model_of_a_test:conv_net", "cnn", affine=True, settings=dict(options=dict(width=4))),
]


def _name(case: Case) -> str:
    return f"{case.model}-{case.settings['options']['global_pool']}" if "global_pool" in str(case.settings) else case.model


@pytest.fixture(scope="module", params=CASES, ids=_name)
def case(request) -> Case:
    if request.param.model.startswith("huggingface"):
        pytest.importorskip("transformers", reason="the extra `hf` is not installed")
    return request.param


@pytest.fixture(scope="module")
def network(case, tmp_path_factory):
    """The case's network in eval mode; a test that trains restores the mode."""
    folder = tmp_path_factory.mktemp("modules")
    (folder / "own_model_of_a_test.py").write_text(OWN_MODEL)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        torch.manual_seed(0)
        network = build_network(case.model, N_CLASSES, (case.side, case.side), settings=case.settings)
    for head in network.reader.classifiers(network.model).values():
        nn.init.normal_(head.weight, std=0.1)  # mixers start with a head of zeros, whose answers would all be equal
    # Norms that have seen data: with fresh ones activations shrink to nothing in deep untrained networks and any two answers are close.
    images = torch.rand(8, 3, case.side, case.side, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        network.train()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None
        network(images)
    return network.eval()


@pytest.fixture
def images(case) -> torch.Tensor:
    return torch.randint(0, 256, (BATCH, 3, case.side, case.side), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))


def test_all_taps_have_the_shapes_that_are_told(network, images):
    shapes = network.shapes()
    with torch.no_grad():
        seen = network(images, TAPS)
    assert network.taps[: len(TAPS)] == TAPS  # a ViT offers its attention as well
    assert tuple(seen.stages) == (*STAGES, "last")
    for name, value in seen.stages.items():
        assert value.grid.shape == (BATCH, *shapes[name])
    assert seen.pooled is not None
    assert seen.pooled.shape == (BATCH, *shapes["pooled"])
    assert seen.logits.shape == (BATCH, N_CLASSES) == (BATCH, *shapes["logits"])
    for value in seen.dense.values():
        assert value.shape == (BATCH, *shapes["dense"]) == (BATCH, N_CLASSES, *shapes["last"][1:])
    assert tuple(seen.heads) == tuple(seen.dense) == network.heads


def test_stages_go_deeper_at_no_higher_resolution(network, images):
    shapes = network.shapes()
    areas = [shapes[name][1] * shapes[name][2] for name in STAGES]
    assert areas == sorted(areas, reverse=True)
    with torch.no_grad():
        seen = network(images, STAGES)
    grids = [seen.stages[name].grid for name in STAGES]
    assert all(a.shape != b.shape or not torch.equal(a, b) for a, b in pairwise(grids)), "a stage is repeated"


def test_answers_in_eval_mode_are_those_of_the_bare_model(network, images):
    with torch.no_grad():
        bare = network.model(network.normalised(images))
        bare = getattr(bare, "logits", bare)
        for taps in ((), TAPS):
            # 1e-6: the same operations in the same order, up to one addition in another order for a mean of two heads.
            torch.testing.assert_close(network(images, taps).logits, bare, rtol=0, atol=1e-6)


def test_one_forward_pass_serves_all_taps(network, images):
    stem = next(module for module in network.model.modules() if isinstance(module, nn.Conv2d))
    n_calls = []
    handle = stem.register_forward_hook(lambda *_: n_calls.append(1))
    try:
        with torch.no_grad():
            network(images, TAPS)
    finally:
        handle.remove()
    assert len(n_calls) == 1


def test_only_what_was_asked_for_is_kept(network, images):
    with torch.no_grad():
        seen = network(images, ["stage2"])
    assert set(seen.stages) == {"stage2"}
    assert seen.pooled is None
    assert not seen.dense
    assert "class" in seen.heads


def test_gradient_reaches_the_first_parameter_through_every_tap(network, images):
    first = next(network.model.parameters())
    seen = network(images, TAPS)
    values = {name: value.grid for name, value in seen.stages.items()}
    values |= {"pooled": seen.pooled, "dense": seen.dense["class"], "logits": seen.logits}
    for name, value in values.items():
        # A random direction: the plain sum of a layer-normed vector is constant.
        direction = torch.randn(value.shape, generator=torch.Generator().manual_seed(3))
        (gradient,) = torch.autograd.grad((value * direction).sum(), first, retain_graph=True)
        assert gradient.abs().max() > 0, name


def test_pooled_is_the_vector_that_enters_the_class_head(network, images):
    head = network.reader.classifiers(network.model)["class"]
    with torch.no_grad():
        seen = network(images, ["pooled"])
        torch.testing.assert_close(head(seen.pooled), seen.heads["class"], rtol=0, atol=1e-6)


def test_dense_logits_average_to_the_logits_where_the_head_is_affine_after_average_pooling(case, network, images):
    with torch.no_grad():
        seen = network(images, ["dense"])
    average = seen.dense["class"].mean(dim=(2, 3))
    # 1e-5 of the largest logit: the average and the product are taken in another order in float32.
    close = torch.allclose(average, seen.heads["class"], rtol=0, atol=1e-5 * float(seen.logits.abs().max().clamp(min=1)))
    assert close == case.affine


def test_shapes_and_evaluating_leave_mode_buffers_and_random_generator_alone(network):
    network.train()
    try:
        before = {name: value.clone() for name, value in network.named_buffers()}
        generator = torch.get_rng_state()
        network.shapes()
        assert torch.equal(torch.get_rng_state(), generator)
        assert all(module.training for module in network.modules())
        assert all(torch.equal(value, before[name]) for name, value in network.named_buffers())
    finally:
        network.eval()


def test_a_training_step_updates_batch_statistics_once(network, images):
    counters = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    if not counters:
        pytest.skip("no batch norm in this family")
    before = [int(module.num_batches_tracked) for module in counters]
    with evaluating(network), torch.no_grad():
        network.train()
        network(images, ("stage1", "stage4", "last", "pooled"))
    assert [int(module.num_batches_tracked) for module in counters] == [n + 1 for n in before]


def test_family_is_told_from_how_positions_are_mixed(case, network):
    assert network.family == case.family


def test_images_of_another_size_are_resized(network, case):
    images = torch.rand(BATCH, 3, case.side + 8, case.side + 16)
    with torch.no_grad():
        assert network(images).logits.shape == (BATCH, N_CLASSES)
