"""Frequency alignment: two bands that add up to the squared error, and planted differences that land in the right one."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from crossdistill.core import registry
from crossdistill.core.errors import SettingError
from crossdistill.core.recipe import TrainingConfig
from crossdistill.core.types import ImageSet
from crossdistill.methods.frequency_alignment import band_errors, chosen_stage, frequency_alignment_losses, radii
from crossdistill.models._build import build_network
from crossdistill.ops.layouts import normalized_channels
from crossdistill.ops.modes import frozen
from crossdistill.train.loop import Training
from crossdistill.train.objective import make_objective, method_weights, published_weights

PLUGIN = registry.get("method", "frequency_alignment")


def values(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


SIZES = [(1, 1), (1, 6), (2, 2), (4, 4), (7, 7), (5, 8), (8, 5), (3, 3)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("cutoff", [0.2, 0.5, 1.0])
def test_low_and_high_add_up_to_the_squared_error(size: tuple[int, int], cutoff: float) -> None:
    student, teacher = values(3, 6, *size), values(3, 6, *size, seed=1)
    bands = frequency_alignment_losses(student, teacher, cutoff=cutoff)
    expected = (normalized_channels(student) - normalized_channels(teacher)).square().mean()
    assert torch.allclose(bands["low"] + bands["high"], expected, rtol=1e-12)  # Parseval, float64 rounding
    assert min(bands["low"], bands["high"]) >= 0


@pytest.mark.parametrize("size", SIZES)
def test_each_band_is_the_squared_error_of_the_filtered_signals(size: tuple[int, int]) -> None:
    difference = values(2, 3, *size)
    low_pass = torch.fft.ifft2(torch.fft.fft2(difference) * (radii(size) <= 0.5)).real
    bands = band_errors(difference, 0.5)
    assert torch.allclose(bands["low"], low_pass.square().mean(), rtol=1e-12)
    assert torch.allclose(bands["high"], (difference - low_pass).square().mean(), rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize(("waves", "band"), [(0, "low"), (1, "low"), (2, "low"), (3, "high"), (4, "high")])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_planted_wave_is_found_in_its_own_band_only(waves: int, band: str, axis: int) -> None:
    # k waves over 8 positions have the frequency k / 4 of Nyquist's: up to 2 they lie within the cutoff of 0.5, 2 included.
    wave = torch.cos(2 * torch.pi * waves * torch.arange(8, dtype=torch.float64) / 8)
    bands = band_errors(wave.view((8, 1) if axis == 0 else (1, 8)).expand(1, 1, 8, 8), 0.5)
    other = "high" if band == "low" else "low"
    assert bands[other] < 1e-30  # rounding, squared
    assert bands[band] == pytest.approx(wave.square().mean().item())


def test_gradient_of_one_band_changes_nothing_in_the_other() -> None:
    difference = values(1, 2, 7, 7).requires_grad_()
    (gradient,) = torch.autograd.grad(band_errors(difference, 0.5)["low"], difference)
    in_bands = band_errors(gradient, 0.5)
    assert in_bands["high"] < 1e-25 * in_bands["low"]  # rounding, squared


def test_opposite_maps_are_four_apart() -> None:
    student = values(2, 8, 4, 4)
    assert sum(frequency_alignment_losses(student, -student).values()) == pytest.approx(4, rel=1e-3)  # LayerNorm's 1e-5 beside a variance


def test_the_scale_and_offset_of_the_features_do_not_count() -> None:
    student, teacher = values(2, 16, 4, 4), values(2, 16, 4, 4, seed=1)
    plain, scaled = frequency_alignment_losses(student, teacher), frequency_alignment_losses(50 * student + 3, 0.5 * teacher)
    for band, value in plain.items():
        assert torch.allclose(scaled[band], value, rtol=1e-3)  # the normalisation's epsilon of 1e-5 beside a variance of 0.25


def test_the_larger_grid_is_averaged_down_to_the_smaller() -> None:
    student, teacher = values(2, 6, 14, 4), values(2, 6, 7, 8, seed=1)
    pooled = [torch.nn.functional.adaptive_avg_pool2d(m, (7, 4)) for m in (student, teacher)]
    for band, value in frequency_alignment_losses(*pooled).items():
        assert torch.equal(frequency_alignment_losses(student, teacher)[band], value)


@pytest.mark.parametrize("scale", [0.0, 1e-8, 1e4], ids=["dead", "faint", "saturated"])
@pytest.mark.parametrize("size", [(1, 1), (7, 5)])
def test_loss_and_gradient_are_finite(scale: float, size: tuple[int, int]) -> None:
    student = (scale * values(1, 6, *size, dtype=torch.float32)).requires_grad_()
    bands = frequency_alignment_losses(student, torch.ones(1, 6, *size))
    (gradient,) = torch.autograd.grad(bands["low"] + bands["high"], student)
    assert bands["low"].isfinite()
    assert bands["high"].isfinite()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_is_taken_as_float32_on_odd_grids_and_under_autocast(half: torch.dtype) -> None:
    student, teacher = values(2, 4, 7, 5).to(half), values(2, 4, 7, 5, seed=1).to(half)
    with torch.autocast("cpu", torch.bfloat16):
        bands = frequency_alignment_losses(student, teacher)
    for band, value in frequency_alignment_losses(student.float(), teacher.float()).items():
        assert bands[band].dtype == torch.float32
        assert torch.equal(bands[band], value)


def test_maps_of_other_widths_and_cutoffs_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="student's map has 2 channels, the teacher's 3: project it first"):
        frequency_alignment_losses(torch.zeros(1, 2, 4, 4), torch.zeros(1, 3, 4, 4))
    with pytest.raises(ValueError, match="cutoff must be positive, a fraction of the Nyquist frequency, got 0"):
        frequency_alignment_losses(torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4, 4), cutoff=0)


def shapes(*sides: int) -> dict[str, tuple[int, ...]]:
    return {f"stage{i + 1}": (8, side, side) for i, side in enumerate(sides)} | {"last": (8, sides[-1], sides[-1])}


def test_the_deepest_stage_with_two_bands_is_taken() -> None:
    vit = shapes(8, 8, 8, 8)
    assert chosen_stage("auto", 0.5, shapes(32, 16, 8, 4), vit) == "last"
    assert chosen_stage("auto", 0.5, shapes(8, 4, 2, 1), vit) == "stage2"  # 2 x 2: the low band would be the mean alone
    assert chosen_stage("auto", 0.5, shapes(3, 2, 1, 1), vit) is None
    assert chosen_stage("stage1", 0.5, shapes(32, 16, 8, 4), vit) == "stage1"


def refusal(settings: dict[str, Any], student: dict[str, Any], teacher: dict[str, Any]) -> str:
    return PLUGIN.facts["needs"](PLUGIN.complete(settings), student, teacher).refusal


def test_what_cannot_be_compared_is_refused_in_a_sentence() -> None:
    tiny, vit = shapes(2, 1, 1, 1), shapes(8, 8, 8, 8)
    assert "share a grid with both a low and a high band at no stage" in refusal({}, tiny, vit)
    assert "not at stage1" in refusal({"stage": "stage1"}, tiny, vit)
    assert "both 0" in refusal({"low_weight": 0, "high_weight": 0}, vit, vit)
    assert refusal({"high_weight": 0}, vit, vit) is None
    with pytest.raises(SettingError, match="setting 'low_weight'"):
        PLUGIN.parse({"low_weight": -1})


def images(n: int, seed: int) -> ImageSet:
    pixels = np.random.default_rng(seed).integers(0, 256, (n, 3, 16, 16), dtype=np.uint8)
    return ImageSet(pixels, np.arange(n) % 3, np.arange(n).astype(str), tuple("abc"))


@pytest.mark.parametrize("pair", ["vit to cnn", "cnn to vit"])
@pytest.mark.parametrize("settings", [{"high_weight": 0.0}, {"low_weight": 0.0, "stage": "stage2"}, {"stage": "last"}])
def test_either_band_alone_reaches_the_first_layer_and_trains_the_projection(pair: str, settings: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    made = {
        "cnn": build_network("small/resnet8", 3, (16, 16)),
        "vit": build_network("small/vit", 3, (16, 16), settings={"width": 16, "depth": 3, "heads": 2}),
    }
    teacher, student = (made[family] for family in pair.split(" to "))
    weights = method_weights(published_weights(PLUGIN, settings), weight=1.0, weights={"ce": 0.0})
    rng = torch.Generator().manual_seed(0)
    objective = make_objective(PLUGIN, settings, weights, student=student, teacher=frozen(teacher), images=images(20, 1), rng=rng)
    watched = [next(p for p in student.parameters() if p.ndim == 4), *objective.auxiliary_parameters()]
    before = [parameter.detach().clone() for parameter in watched]
    recipe = TrainingConfig(
        epochs=3, batch_size=8, accumulate=3, precision="fp32", threads=1, learning_rate=1e-2, weight_decay=0.0
    )  # micro-batches of 3, 3 and 2
    training = Training(
        student, images(20, 1), images(9, 2), recipe, who=(0, "student", 0), folder=tmp_path, objective=objective, teacher=teacher
    )
    history = training.run()
    for parameter, old in zip(watched, before, strict=True):
        assert not torch.equal(parameter, old)
    assert len(watched) == 3  # the first layer, and the projection's weight and bias
    assert history[-1].loss < history[0].loss
