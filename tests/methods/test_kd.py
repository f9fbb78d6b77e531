"""Knowledge distillation by softened logits."""

from typing import Any

import pytest
import torch

from crossdistill.methods.kd import kd_loss


@pytest.mark.parametrize("temperature", [1, 3, 4])
def test_loss_and_gradient_are_the_reference(golden: Any, temperature: int) -> None:
    file = golden("kd")
    student = file.input("logits_s", grad=True)
    loss = kd_loss(student, file.input("logits_t"), temperature=temperature)
    loss.backward()
    file.check(f"T{temperature}__loss", loss)
    file.check(f"T{temperature}__grad_logits_s", student.grad)


def test_it_is_zero_where_the_logits_differ_by_a_constant_of_each_image() -> None:
    teacher = torch.randn(5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert kd_loss(teacher + torch.arange(5.0)[:, None], teacher).abs() < 1e-12  # float64 rounding
    assert kd_loss(teacher + torch.arange(7.0), teacher) > 0.1
