"""Hints: the squared error of a regression of the student's map."""

from typing import Any

import numpy as np
import pytest
import torch

from crossdistill.core import registry
from crossdistill.core.errors import SettingError
from crossdistill.core.types import Activations, Batch, Clock, FeatureMap, ImageSet
from crossdistill.methods.fitnet import Hints, fitnet, fitnet_loss
from crossdistill.models._build import build_network
from crossdistill.ops.projectors import ConvRegressor
from crossdistill.train.objective import make_objective


def random_map(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def hint(objective: Any, student: dict[str, torch.Tensor], teacher: dict[str, torch.Tensor]) -> torch.Tensor:
    n_images = len(next(iter(student.values())))
    images, logits = torch.zeros(n_images, 3, 4, 4), torch.zeros(n_images, 2)
    labels = torch.zeros(n_images, dtype=torch.long)
    batch = Batch(images, images, labels, torch.ones(n_images, 2) / 2, labels, torch.ones(n_images, dtype=torch.bool), Clock(0, 1, 0, 1))
    answers = [Activations(logits, stages={name: FeatureMap(grid) for name, grid in maps.items()}) for maps in (student, teacher)]
    return objective(batch, *answers)["hint"]


def some_images() -> ImageSet:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 3, 16, 16), dtype=np.uint8)
    return ImageSet(pixels, np.zeros(20, dtype=np.int64), np.arange(20).astype(str), ("a", "b"))


def test_loss_and_gradient_are_the_reference(golden: Any) -> None:
    file = golden("fitnet")
    student = file.input("hint_f_s", grad=True)
    loss = fitnet_loss(student, file.input("hint_f_t"))
    loss.backward()
    file.check("hint__loss", loss)
    file.check("hint__grad_f_s", student.grad)


@pytest.mark.parametrize("case", ["convreg_down2", "convreg_up2", "convreg_valid", "convreg_same"])
def test_the_conv_regressor_is_the_reference(golden: Any, case: str) -> None:
    file = golden("fitnet")
    student, teacher = file.input(f"{case}_f_s", grad=True), file.input(f"{case}_f_t")
    regressor = ConvRegressor(tuple(student.shape[1:]), tuple(teacher.shape[1:])).to(file.dtype)
    prefix = f"{case}_state_"
    regressor.load_state_dict({name.removeprefix(prefix): file.input(name) for name in file.arrays if name.startswith(prefix)})
    answer = regressor(student)
    loss = fitnet_loss(answer, teacher)
    loss.backward()
    file.check(f"{case}__out", answer)
    file.check(f"{case}__loss", loss)
    file.check(f"{case}__grad_f_s", student.grad)
    file.check(f"{case}__grad_weight", regressor.conv.weight.grad)
    file.check(f"{case}__running_mean_after", regressor.bn.running_mean)


@pytest.mark.parametrize("name", ["fitnet", "attention_transfer"])
def test_a_stage_that_is_named_twice_is_refused(name: str) -> None:
    network = build_network("small/resnet8", 2, (16, 16))
    with pytest.raises(SettingError, match="`stages` names each stage once, got stage3, stage4, stage3"):
        make_objective(
            registry.get("method", name), {"stages": ("stage3", "stage4", "stage3")}, {}, student=network, teacher=network,
            images=some_images(), rng=torch.Generator(),
        )  # fmt: skip


def test_maps_of_two_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"one shape, got \(1, 2, 4, 4\) and \(1, 2, 1, 4\): regress"):
        fitnet_loss(torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 1, 4))


def test_averaging_before_the_1x1_convolution_is_averaging_after_it() -> None:
    convolution = torch.nn.Conv2d(3, 5, kernel_size=1).double()
    student, teacher = random_map(2, 3, 14, 6), random_map(2, 5, 4, 4, seed=1)
    pooled_after = torch.nn.functional.adaptive_avg_pool2d(convolution(student), 4)
    objective = Hints({"stage3": convolution}, keeps_size=True, normalize=False)
    expected = (pooled_after - teacher).square().mean()
    assert torch.allclose(hint(objective, {"stage3": student}, {"stage3": teacher}), expected, rtol=1e-12)  # float64 rounding


def test_a_larger_teacher_grid_is_averaged_to_the_students() -> None:
    objective = Hints({"stage3": torch.nn.Identity()}, keeps_size=True, normalize=False)
    student, teacher = torch.zeros(1, 1, 1, 1), torch.tensor([[[[1.0, 2.0], [3.0, 6.0]]]])
    assert hint(objective, {"stage3": student}, {"stage3": teacher}) == 9  # the mean, 3, squared


def test_hints_of_several_stages_are_summed() -> None:
    student = {"stage2": random_map(2, 3, 4, 4), "stage3": random_map(2, 3, 2, 2)}
    teacher = {"stage2": random_map(2, 3, 4, 4, seed=1), "stage3": random_map(2, 3, 2, 2, seed=1)}
    both = Hints({name: torch.nn.Identity() for name in student}, keeps_size=True, normalize=False)
    expected = sum(fitnet_loss(student[name], teacher[name]) for name in student)
    assert torch.allclose(hint(both, student, teacher), torch.as_tensor(expected), rtol=1e-12)  # float64 rounding


def test_normalised_maps_do_not_feel_the_norm_of_a_position() -> None:
    objective = Hints({"stage3": torch.nn.Identity()}, keeps_size=True, normalize=True)
    student, teacher = random_map(2, 6, 3, 3), random_map(2, 6, 3, 3, seed=1)
    louder = teacher.clone()
    louder[:, :, 1, 2] *= 1000
    before = hint(objective, {"stage3": student}, {"stage3": teacher})
    after = hint(objective, {"stage3": student}, {"stage3": louder})
    assert torch.allclose(before, after, rtol=1e-3)  # LayerNorm's 1e-5 beside variances of about 1
    assert before > 0.1


@pytest.mark.parametrize(("teacher", "rectified"), [("small/resnet8", True), ("small/vit", False)])
def test_convreg_ends_in_relu_only_where_the_teachers_map_does(teacher: str, rectified: bool) -> None:
    settings = {"width": 16, "depth": 2, "heads": 2} if teacher == "small/vit" else {}
    taught_by, network = build_network(teacher, 2, (16, 16), settings=settings), build_network("small/resnet8", 2, (16, 16))
    made = fitnet(network, taught_by, some_images(), None, regressor="convreg", stages=("stage3",))
    assert isinstance(made.regressors["stage3"].activation, torch.nn.ReLU) == rectified
    assert taught_by.training  # left in the mode that it was in


def test_convreg_refuses_grids_that_it_cannot_reach() -> None:
    network = build_network("small/vit", 2, (16, 16), settings={"width": 16, "depth": 4, "heads": 2})  # 4 x 4 patches
    teacher = build_network("small/resnet8", 2, (16, 16))  # stage2: 16 x 16
    with pytest.raises(SettingError, match=r"no ConvReg leads from the student's stage2 map \(16, 4, 4\).*set `regressor: conv1x1`"):
        make_objective(
            registry.get("method", "fitnet"), {"regressor": "convreg", "stages": ("stage2",)}, {"ce": 1.0, "hint": 1.0},
            student=network, teacher=teacher, images=some_images(), rng=torch.Generator(),
        )  # fmt: skip
