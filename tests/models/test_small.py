import pytest
import torch

from crossdistill.core.errors import SettingError, UnknownNameError
from crossdistill.models._build import build_network


def test_resnet20_has_the_papers_size():
    # He et al. 2016, table 6: 0.27 M. Ours for 10 classes: 3 * 16 * 9 + 32 (stem) + 3 stages + 650 (head), with two projections.
    assert build_network("small/resnet20", 10, (32, 32)).n_parameters == 272_474


def test_wrn_16_2_has_the_papers_size():
    # Zagoruyko & Komodakis 2016, table 4: WRN-16-2 is not listed, WRN-16-1 has 0.2 M; RepDistiller and others give 0.69-0.70 M.
    assert build_network("small/wrn_16_2", 10, (32, 32)).n_parameters == pytest.approx(0.69e6, rel=0.01)


def test_the_cifar_resnets_have_stem_and_three_stages_as_taps():
    shapes = build_network("small/resnet8", 10, (64, 48)).shapes()
    assert [shapes[name] for name in ("stage1", "stage2", "stage3", "stage4")] == [(16, 64, 48), (16, 64, 48), (32, 32, 24), (64, 16, 12)]


def test_the_vit_follows_its_settings():
    network = build_network("small/vit", 10, (16, 32), settings=dict(width=48, depth=5, heads=3, patch=8, drop_path=0.1))
    assert network.shapes()["last"] == (48, 2, 4)
    assert len(network.model.blocks) == 5
    assert network.model.blocks[0].attn.num_heads == 3
    assert network.model.blocks[-1].drop_path1.drop_prob == pytest.approx(0.1)


def test_equal_seeds_give_equal_weights_and_other_seeds_other_weights():
    def weights(seed):
        torch.manual_seed(seed)
        return torch.cat([p.detach().flatten() for p in build_network("small/resnet8", 10, (32, 32)).parameters()])

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


@pytest.mark.parametrize(
    ("name", "settings", "kind", "text"),
    [
        ("resnet21", {}, UnknownNameError, "Did you mean 'resnet20'"),
        ("resnet20", dict(width=64), UnknownNameError, "small/resnet20 has no setting 'width'"),
        ("vit", dict(widht=64), UnknownNameError, "Did you mean 'width'"),
        ("vit", dict(width="wide"), SettingError, "setting 'width' of model 'small': .* got 'wide'"),
        ("vit", dict(width=100, heads=3), SettingError, "100 channels are not a multiple of 3 heads"),
        ("vit", dict(depth=0), SettingError, "setting 'depth' of small/vit is at least 1, got 0"),
        ("vit", dict(patch=5), SettingError, r"patches of 5 pixels, and a side of 32 .* Nearest that work: 30 and 35"),
        ("vit", dict(input_size=0), SettingError, "input_size is a side of at least 1 pixel"),
        ("resnet20", dict(pretrained=True), SettingError, "no published weights"),
    ],
)
def test_what_does_not_fit_is_refused(name, settings, kind, text):
    with pytest.raises(kind, match=text):
        build_network(f"small/{name}", 10, (32, 32), settings=settings)
