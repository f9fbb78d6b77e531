"""What every instrument promises, of networks of every family: a row an image, and a network that it leaves as it was."""

import random
from typing import Any, get_type_hints

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.models.swin_transformer import SwinTransformer
from torchvision.models.vision_transformer import VisionTransformer

from crossdistill.core import registry
from crossdistill.core.errors import SettingError
from crossdistill.models._build import build_network
from crossdistill.ops.network import Network

OF_ATTENTION = {"attention_distance", "attention_rollout"}
TINY_SWIN = dict(options=dict(embed_dim=16, depths=(1, 1, 2, 1), num_heads=(1, 2, 2, 4)))
TINY_VIT = dict(options=dict(embed_dim=24, num_heads=3, depth=4))
CASES: dict[str, tuple[str, int, dict[str, Any]]] = {
    "small vit": ("small/vit", 32, dict(width=32, depth=3, heads=2)),
    "small resnet": ("small/resnet20", 32, {}),
    "small wrn": ("small/wrn_16_2", 32, {}),
    "vit 32": ("timm/vit_tiny_patch16_224", 32, dict(options=dict(**TINY_VIT["options"], patch_size=8))),
    "vit 224": ("timm/vit_tiny_patch16_224", 224, TINY_VIT),
    "vit by mean": ("timm/vit_tiny_patch16_224", 64, dict(options=dict(**TINY_VIT["options"], global_pool="avg"))),
    "deit with two tokens": ("timm/deit_tiny_distilled_patch16_224", 64, TINY_VIT),
    "vit with registers": ("timm/vit_little_patch16_reg4_gap_256", 64, TINY_VIT),
    "beit with position bias": ("timm/beit_base_patch16_224", 64, TINY_VIT),
    "swin 224": ("timm/swin_tiny_patch4_window7_224", 224, TINY_SWIN),
    "swin 32": ("timm/swin_tiny_patch4_window7_224", 32, TINY_SWIN),
    "mixer": ("timm/mixer_s32_224", 64, {}),
    "convnext": ("timm/convnext_atto", 64, {}),
    "torchvision resnet 32": ("torchvision/resnet18", 32, {}),
    "torchvision resnet 224": ("torchvision/resnet18", 224, {}),
    "torchvision vit": ("torchvision/vit_b_16", 32, {}),
    "torchvision swin": ("torchvision/swin_t", 64, {}),
}
OWN_SIZES = {  # smaller than any that torchvision names
    "torchvision vit": lambda: VisionTransformer(32, 8, num_layers=4, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=5),
    "torchvision swin": lambda: SwinTransformer([4, 4], 8, [1, 1, 1, 1], [1, 1, 2, 2], [2, 2], num_classes=5),
}
ATTENDS_OVER_ALL = {name for name in CASES if "vit" in name or "deit" in name or "beit" in name}


def _network(case: str) -> tuple[Network, Tensor]:
    name, side, settings = CASES[case]
    torch.manual_seed(0)
    if case in OWN_SIZES:
        network = Network(OWN_SIZES[case](), 5, (side, side), model_name=name)
    else:
        network = build_network(name, 5, (side, side), settings=settings)
    with torch.no_grad():  # some heads start at zero, and norms at values that hide a mistake
        for weights in network.parameters():
            weights.add_(0.02 * torch.randn_like(weights))
    images = torch.randint(0, 256, (3, 3, side, side), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    return network, images


def _arrays(instrument: registry.Plugin, network: Network, images: Tensor) -> dict[str, np.ndarray]:
    result = instrument.function(network, images)
    return result if isinstance(result, dict) else {instrument.name: result}


def _measures(instrument: registry.Plugin, case: str) -> bool:
    return instrument.name not in OF_ATTENTION or case in ATTENDS_OVER_ALL


@pytest.fixture(params=registry.names("instrument"))
def instrument(request):
    return registry.get("instrument", request.param)


def test_it_says_what_it_is_where_it_comes_from_and_in_which_unit(instrument):
    assert instrument.kind == "instrument"
    assert len(instrument.summary) > 20
    assert instrument.facts["source"]
    assert instrument.facts["unit"]
    assert instrument.inputs[:2] == ["network", "images"]
    assert instrument.inputs[2:] in ([], ["classes"])  # all that a study can supply
    assert get_type_hints(instrument.function)["return"] in (np.ndarray, dict[str, np.ndarray])


@pytest.mark.parametrize("case", CASES)
def test_it_gives_a_finite_row_an_image_or_the_reason_why_not(instrument, case):
    network, images = _network(case)
    if not _measures(instrument, case):
        with pytest.raises(SettingError, match=f"{network.model_name}.*(within windows|no patches|no self-attention|steps of its own)"):
            instrument.function(network, images)
        return
    arrays = _arrays(instrument, network, images)
    for values in arrays.values():
        assert values.dtype == np.float32
        assert len(values) == len(images)
        assert np.isfinite(values).all()
        assert values.any()
    alone = _arrays(instrument, network, images[1:2])
    for name, values in alone.items():  # 1e-3 of the largest: a batch of one sums in another order, which the gradients amplify
        np.testing.assert_allclose(values[0], arrays[name][1], rtol=1e-3, atol=1e-3 * np.abs(arrays[name][1]).max())


@pytest.mark.parametrize("case", CASES)
def test_it_leaves_the_network_and_all_randomness_as_they_were(instrument, case):
    network, images = _network(case)
    network.train()
    next(network.model.children()).eval()  # a part that its owner keeps frozen
    next(network.parameters()).requires_grad_(False)
    last = list(network.parameters())[-1]
    last.grad = torch.ones_like(last)
    before = _state(network, images)
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    dice = _dice()
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    if _measures(instrument, case):
        instrument.function(network, images)
    else:
        with pytest.raises(SettingError):
            instrument.function(network, images)
    assert _dice() == dice
    assert str(_state(network, images)) == str(before)
    assert all(torch.equal(value, before["values"][name]) for name, value in network.state_dict().items())
    assert torch.is_grad_enabled()


def _state(network: Network, images: Tensor) -> dict[str, Any]:
    modules = list(network.modules())
    return {
        "values": {name: value.clone() for name, value in network.state_dict().items()},
        "modes": [module.training for module in modules],
        "fused": [getattr(module, "fused_attn", None) for module in modules],
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in modules],
        "asks": [parameter.requires_grad for parameter in network.parameters()],
        "gradients": [None if p.grad is None else p.grad.tolist() for p in network.parameters()],
        "images": int(images.sum()),
    }


def _dice() -> tuple[float, float, float]:
    return random.random(), float(np.random.random()), float(torch.rand(()))


def test_it_measures_inside_no_grad_a_frozen_network_and_floats(instrument):
    network, images = _network("small vit")
    expected = _arrays(instrument, network, images)
    network.requires_grad_(False)
    with torch.no_grad():
        found = _arrays(instrument, network, images.float() / 255)
    for name, values in found.items():  # uint8 images are normalised in another order
        np.testing.assert_allclose(values, expected[name], rtol=1e-3, atol=1e-3 * np.abs(expected[name]).max())


def test_images_of_another_size_than_the_networks_are_measured_too(instrument):
    network, _ = _network("small vit")
    images = torch.rand(2, 3, 48, 40)
    assert all(len(values) == 2 for values in _arrays(instrument, network, images).values())


def test_no_images_are_refused(instrument):
    network, images = _network("small vit")
    with pytest.raises(ValueError, match="at least one image"):
        instrument.function(network, images[:0])


def test_a_hook_of_the_networks_owner_stays_and_one_that_fails_leaves_nothing_behind(instrument):
    network, images = _network("small vit")
    handle = network.model.norm.register_forward_hook(_failing)
    before = _state(network.train(), images)
    with pytest.raises(RuntimeError, match="deliberate"):
        instrument.function(network, images)
    handle.remove()
    assert [module.training for module in network.modules()] == before["modes"]
    assert sum(_state(network, images)["hooks"]) == sum(before["hooks"]) - 1


def _failing(module: nn.Module, inputs: Any, output: Any) -> None:
    raise RuntimeError("a deliberate fault")
