"""Schedules against values worked out by hand, and which parameters are decayed, for networks of every source."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from crossdistill.core.errors import SettingError
from crossdistill.core.recipe import TrainingConfig
from crossdistill.models._build import build_network
from crossdistill.train import optimizers
from crossdistill.train.optimizers import learning_rate, make_optimizer, settled


def rates(steps: int = 8, **recipe: Any) -> list[float]:
    """The learning rates of a training of 4 epochs with a peak of 1."""
    made = TrainingConfig(**{"epochs": 4, "learning_rate": 1.0, "warmup_epochs": 0.0} | recipe)
    return [learning_rate(made, step, steps) for step in range(steps)]


def test_a_cosine_falls_from_the_peak_towards_zero() -> None:
    half = math.sqrt(0.5)  # cos(pi / 4)
    assert rates(4) == pytest.approx([1, 0.5 * (1 + half), 0.5, 0.5 * (1 - half)])


def test_after_each_milestone_the_rate_is_a_tenth() -> None:
    assert rates(schedule="step", milestones=(0.5, 0.75)) == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01])
    assert rates(10, schedule="step", milestones=(0.7,)) == pytest.approx([1] * 7 + [0.1] * 3)  # 0.7 * 10 is not quite 7 in a computer


def test_a_constant_rate_stays_after_the_warm_up() -> None:
    # Two of eight steps are an epoch: 1/3 and 2/3 of the peak, which the step after them has.
    assert rates(schedule="constant", warmup_epochs=1.0) == pytest.approx([1 / 3, 2 / 3, 1, 1, 1, 1, 1, 1])


def test_a_cosine_begins_after_the_warm_up_and_milestones_count_from_the_start() -> None:
    assert rates(warmup_epochs=2.0)[4:] == pytest.approx(rates(4))
    assert rates(schedule="step", warmup_epochs=1.0)[2:] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_a_warm_up_takes_at_most_half_the_training() -> None:
    assert rates(warmup_epochs=9.0) == rates(warmup_epochs=2.0)


@pytest.mark.parametrize(
    ("family", "epochs", "warm_up"), [("cnn", 5, 1), ("cnn", 300, 1), ("token", 5, 1), ("token", 30, 3), ("token", 300, 10)]
)
def test_networks_of_tokens_warm_up_longer_unless_told_otherwise(family: str, epochs: int, warm_up: float) -> None:
    assert settled(TrainingConfig(epochs=epochs), family).warmup_epochs == warm_up
    assert settled(TrainingConfig(epochs=epochs, warmup_epochs=0.0), family).warmup_epochs == 0


def test_a_rate_is_asked_for_only_once_the_warm_up_is_known() -> None:
    with pytest.raises(ValueError, match="give the recipe that `settled` returns"):
        learning_rate(TrainingConfig(), 0, 10)


@pytest.mark.parametrize("milestones", [(0.5, 0.5), (0.7, 0.3), (0.0, 0.5), (1.0,)])
def test_milestones_out_of_order_are_refused(milestones: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="each between 0 and 1 and above the one before"):
        TrainingConfig(schedule="step", milestones=milestones)


def decay_of(*modules: nn.Module, **recipe: Any) -> dict[str, float]:
    """{parameter: its weight decay} of modules that are trained together."""
    parameters = [parameter for module in modules for parameter in module.parameters()]
    made = make_optimizer(parameters, TrainingConfig(**recipe), modules=modules)
    by_id = {id(p): group["weight_decay"] for group in made.param_groups for p in group["params"]}
    return {name: by_id[id(p)] for module in modules for name, p in module.named_parameters()}


TIMM: dict[str, dict[str, Any]] = {
    "vit_tiny_patch16_224": {"img_size": 32},
    "swin_tiny_patch4_window7_224": {"img_size": 56},
    "convnext_atto": {},
    "beit_base_patch16_224": {"depth": 2, "embed_dim": 48, "num_heads": 3},
}
LAYERS = (nn.Linear, nn.Conv2d)


@pytest.mark.parametrize("name", TIMM)
def test_of_timms_models_only_linear_layers_and_convolutions_are_decayed(name: str) -> None:
    import timm

    model = timm.create_model(name, num_classes=3, **TIMM[name])
    expected = {f"{path}.weight" for path, part in model.named_modules() if isinstance(part, LAYERS)}
    decayed = {parameter for parameter, decay in decay_of(model).items() if decay}
    assert decayed == expected
    special = ("cls_token", "pos_embed", "gamma", "relative_position_bias_table", "q_bias")
    assert {word for word in special if any(word in parameter for parameter in decay_of(model))}, "there is something to leave out"


def test_torchvisions_attention_is_decayed_and_its_tokens_are_not() -> None:
    from torchvision.models import VisionTransformer

    decays = decay_of(VisionTransformer(16, 8, 1, 2, 8, 16, num_classes=3), weight_decay=0.3)
    attention = "encoder.layers.encoder_layer_0.self_attention"
    assert decays[f"{attention}.in_proj_weight"] == decays["conv_proj.weight"] == decays["heads.head.weight"] == 0.3
    others = ("class_token", "encoder.pos_embedding", f"{attention}.in_proj_bias", "encoder.ln.weight")
    assert [decays[name] for name in others] == [0, 0, 0, 0]


def test_tokens_and_heads_that_a_method_adds_are_told_apart_too() -> None:
    network = build_network("small/vit", 3, (16, 16), settings={"width": 16, "depth": 1, "heads": 2})
    network.add_token_head("distillation")
    decays = decay_of(network)
    assert [decays[name] for name in ("model.reg_token", "model.cls_token", "model.pos_embed")] == [0, 0, 0]
    assert [decays[name] for name in ("extra_heads.distillation.weight", "model.head.weight", "model.patch_embed.proj.weight")] == [
        0.05
    ] * 3


def test_tables_of_positions_and_norms_of_several_dimensions_are_not_decayed() -> None:
    table, norm, layer = nn.Embedding(4, 8), nn.LayerNorm([3, 4]), nn.Linear(2, 2)
    assert list(decay_of(nn.ModuleList([table, norm])).values()) == [0, 0, 0]
    assert decay_of(nn.ModuleList([layer])) == {"0.weight": 0.05, "0.bias": 0}


class Lonely(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale, self.proxies = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2, 3))


def test_a_methods_own_modules_are_decayed_by_the_same_rule() -> None:
    student = build_network("small/resnet8", 3, (16, 16))
    assert decay_of(student, nn.Sequential(nn.Linear(2, 2), Lonely()), optimizer="sgd") | {"0.weight": 1} == {
        **decay_of(student), "0.weight": 1, "0.bias": 0, "1.scale": 0, "1.proxies": 0,
    }  # fmt: skip


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_steps_are_fused_and_the_same_where_they_cannot_be(optimizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    after = []
    for fused in (("cpu",), ()):
        monkeypatch.setattr(optimizers, "FUSED", fused)
        torch.manual_seed(0)
        layer = nn.Linear(4, 4)
        made = make_optimizer(list(layer.parameters()), TrainingConfig(optimizer=optimizer, learning_rate=0.1), modules=[layer])
        assert bool(made.defaults["fused"]) == bool(fused)
        assert bool(made.defaults["foreach"]) != bool(fused)
        for _ in range(3):
            layer(torch.ones(2, 4)).square().sum().backward()
            made.step()
            made.zero_grad()
        after.append(layer.weight.detach().clone())
    assert torch.allclose(*after, rtol=1e-5)  # float32, the same sums in another order


def test_sgd_has_nesterovs_momentum() -> None:
    layer = nn.Linear(1, 1, bias=False)
    nn.init.ones_(layer.weight)
    recipe = TrainingConfig(optimizer="sgd", learning_rate=0.1, momentum=0.5, weight_decay=0.0)
    made = make_optimizer(list(layer.parameters()), recipe, modules=[layer])
    values = []
    for _ in range(2):
        layer(torch.ones(1, 1)).sum().backward()  # a gradient of 1
        made.step()
        made.zero_grad()
        values.append(layer.weight.item())
    # Nesterov: step = rate * (gradient + momentum * velocity); velocities 1 and 1.5.
    assert values == pytest.approx([1 - 0.1 * 1.5, 1 - 0.1 * 1.5 - 0.1 * 1.75])


STUDY = """\
images: {{source: trifeature}}
networks: {{vit: {{model: small/vit}}, cnn: {{model: small/resnet8, training: {own}}}}}
teachers: {teachers}
pairs: [{{teacher: vit, student: cnn, methods: [kd]}}]
training: {training}
"""


def study(training: str, own: str = "{}", teachers: str = "{}") -> Any:
    from crossdistill.core.study_file import parse_study

    return parse_study(STUDY.format(training=training, own=own, teachers=teachers))


def test_a_setting_that_no_training_uses_is_refused() -> None:
    with pytest.raises(SettingError, match=r"line 5.*`momentum` belongs to `optimizer: sgd`, which no training here has"):
        study("{momentum: 0.8}")
    with pytest.raises(SettingError, match="`milestones` belongs to `schedule: step`"):
        study("{milestones: [0.3]}")


def test_settings_that_do_not_fit_together_are_refused_with_their_network() -> None:
    with pytest.raises(SettingError, match=r"line 2: networks.cnn.training: .*`views: none` shows images as they are"):
        study("{views: none}", own="{color: trivial_augment}")


def test_a_setting_that_some_training_uses_or_that_is_the_default_is_taken() -> None:
    assert study("{momentum: 0.8}", own="{optimizer: sgd}").recipe("cnn").momentum == 0.8
    assert study("{milestones: [0.3]}", teachers="{schedule: step}").recipe("vit", teacher=True).milestones == (0.3,)
    assert study("{momentum: 0.9, milestones: [0.5, 0.75]}").recipe("cnn").momentum == 0.9  # as a resolved study file says
