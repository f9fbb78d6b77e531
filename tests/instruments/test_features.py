"""Features for CKA: what the taps give, in shapes that any two networks share."""

import numpy as np
import pytest
import torch

from crossdistill.core.errors import SettingError
from crossdistill.instruments.features import features
from crossdistill.metrics.cka import cka
from crossdistill.models._build import build_network

IMAGES = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
STAGES = ("stage1", "stage2", "stage3", "stage4")


def _built(name: str, **settings):
    torch.manual_seed(0)
    return build_network(name, 5, (32, 32), settings=settings).eval()


def test_a_cnn_gives_vectors_and_common_grids():
    network = _built("small/resnet8")
    found = features(network, IMAGES)
    assert set(found) == {"pooled", *STAGES, *(f"{stage}_grid" for stage in STAGES)}
    with torch.no_grad():
        seen = network(IMAGES, ["stage2", "pooled"])
    grid = seen.stages["stage2"].grid.numpy()
    np.testing.assert_allclose(found["stage2"], grid.mean(axis=(2, 3)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["stage2_grid"], grid.reshape(6, -1, 4, 8, 4, 8).mean(axis=(3, 5)), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found["pooled"], seen.pooled.numpy())


def test_a_vit_gives_its_class_token_apart():
    network = _built("small/vit", width=16, depth=4)
    network.add_token_head("distillation")
    found = features(network, IMAGES, side=2)
    with torch.no_grad():
        seen = network(IMAGES, ["stage3"]).stages["stage3"]
    np.testing.assert_array_equal(found["stage3_class_token"], seen.prefix[:, 0].numpy())
    np.testing.assert_allclose(found["stage3"], seen.grid.mean(dim=(2, 3)).numpy(), rtol=1e-5, atol=1e-6)
    assert found["stage3_grid"].shape == (6, 16, 2, 2)


def test_registers_are_no_class_token():
    network = build_network(
        "timm/vit_little_patch16_reg4_gap_256", 5, (64, 64), settings=dict(options=dict(embed_dim=24, num_heads=3, depth=4))
    )
    assert not [name for name in features(network, torch.rand(2, 3, 64, 64)) if name.endswith("class_token")]


def test_a_grid_of_one_position_is_repeated_which_cka_does_not_see():
    network = _built("timm/resnet10t")
    found = features(network, IMAGES)
    assert found["stage4_grid"].shape[2:] == (4, 4)
    np.testing.assert_array_equal(found["stage4_grid"][..., 0, 0], found["stage4"])
    other = np.random.default_rng(0).normal(size=(6, 3))
    assert cka(found["stage4_grid"], other).value == pytest.approx(cka(found["stage4"], other).value, abs=1e-6)


def test_a_network_is_most_like_itself_and_families_can_be_compared():
    resnet, vit = features(_built("small/resnet8"), IMAGES), features(_built("small/vit", width=16, depth=4), IMAGES)
    for place in ("stage2", "stage3_grid", "pooled"):
        assert cka(resnet[place], resnet[place]).value == pytest.approx(1)
        assert cka(resnet[place], vit[place]).value < 1


def test_refuses_a_grid_without_positions():
    with pytest.raises(SettingError, match="at least 1, got 0"):
        features(_built("small/resnet8"), IMAGES, side=0)
