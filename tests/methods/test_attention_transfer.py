"""Attention transfer: energy maps."""

from typing import Any

import pytest
import torch

from crossdistill.core.types import Activations, Batch, Clock, FeatureMap
from crossdistill.methods.attention_transfer import attention_transfer, attention_transfer_loss


def random_map(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("case", ["same", "s_larger", "t_larger", "s_larger_nondiv"])
def test_loss_and_gradient_are_the_reference(golden: Any, case: str) -> None:
    file = golden("at")
    student = file.input(f"{case}_f_s", grad=True)
    loss = attention_transfer_loss(student, file.input(f"{case}_f_t"))
    loss.backward()
    file.check(f"{case}__loss", loss)
    file.check(f"{case}__grad_f_s", student.grad)


def test_a_positive_scale_of_each_image_does_not_count() -> None:
    student, teacher = random_map(3, 4, 5, 5), random_map(3, 6, 5, 5, seed=1)
    scale = torch.tensor([0.1, 3.0, 50.0]).double()[:, None, None, None]
    loss = attention_transfer_loss(student, teacher)
    assert torch.allclose(attention_transfer_loss(scale * student, teacher), loss, rtol=1e-10)  # float64 rounding
    assert torch.allclose(attention_transfer_loss(student, scale * teacher), loss, rtol=1e-10)
    assert attention_transfer_loss(scale * teacher, teacher) < 1e-20


def test_grids_need_not_be_square_nor_one_larger_on_both_axes() -> None:
    wide, tall = random_map(2, 3, 3, 8), random_map(2, 3, 6, 4, seed=1)
    on_3_by_4 = wide.view(2, 3, 3, 4, 2).mean(dim=4), tall.view(2, 3, 3, 2, 4).mean(dim=3)
    assert torch.allclose(attention_transfer_loss(wide, tall), attention_transfer_loss(*on_3_by_4), rtol=1e-12)  # float64 rounding


def test_the_larger_map_is_averaged_before_it_is_squared() -> None:
    waves = torch.tensor([[[[1.0, -1.0, 1.0, 1.0]]]])  # averages to 0 and 1; its squares would average to 1 and 1
    assert attention_transfer_loss(waves, torch.tensor([[[[0.0, 2.0]]]])) == 0


def test_the_loss_shrinks_with_the_number_of_positions() -> None:
    near, far = torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)
    near[..., 0, 0], far[..., 1, 1] = 1.0, 1.0
    assert attention_transfer_loss(near, far) == 2 / 4  # two positions differ by 1
    padded = [torch.nn.functional.pad(grid, (0, 6, 0, 6)) for grid in (near, far)]
    assert attention_transfer_loss(*padded) == 2 / 64


def test_the_stages_are_summed() -> None:
    names = ("stage2", "stage3")
    student = {name: FeatureMap(random_map(2, 3, 4, 4, seed=row)) for row, name in enumerate(names)}
    teacher = {name: FeatureMap(random_map(2, 5, 2, 2, seed=9 + row)) for row, name in enumerate(names)}
    images, labels, logits = torch.zeros(2, 3, 4, 4), torch.tensor([0, 1]), torch.zeros(2, 2)
    batch = Batch(images, images, labels, torch.eye(2), labels, torch.ones(2, dtype=torch.bool), Clock(0, 1, 0, 1))
    objective = attention_transfer(None, None, None, None, stages=names)
    terms = objective(batch, Activations(logits, stages=student), Activations(logits, stages=teacher))
    expected = sum(attention_transfer_loss(student[name].grid, teacher[name].grid) for name in names)
    assert torch.allclose(terms["attention"], torch.as_tensor(expected), rtol=1e-12)  # float64 rounding
