"""Knowledge distillation by softened logits."""

from typing import Any

import pytest
import torch

from crossdistill.methods.kd import kd_loss


def logits(seed: int) -> torch.Tensor:
    return torch.randn(5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("temperature", [1, 3, 4])
def test_loss_and_gradient_are_the_reference(golden: Any, temperature: int) -> None:
    file = golden("kd")
    student = file.input("logits_s", grad=True)
    loss = kd_loss(student, file.input("logits_t"), temperature=temperature)
    loss.backward()
    file.check(f"T{temperature}__loss", loss)
    file.check(f"T{temperature}__grad_logits_s", student.grad)


def test_it_is_zero_where_the_logits_differ_by_a_constant_of_each_image() -> None:
    teacher = logits(0)
    assert kd_loss(teacher + torch.arange(5.0)[:, None], teacher).abs() < 1e-12  # float64 rounding
    assert kd_loss(teacher + torch.arange(7.0), teacher) > 0.1


def test_a_constant_added_to_an_images_logits_changes_nothing() -> None:
    student, teacher, offset = logits(0), logits(1), 10 * torch.arange(5.0).double()[:, None]
    expected = kd_loss(student, teacher)
    assert expected > 0.1
    assert torch.allclose(kd_loss(student + offset, teacher), expected, rtol=1e-12, atol=0)  # float64 rounding
    assert torch.allclose(kd_loss(student, teacher - offset), expected, rtol=1e-12, atol=0)


def test_the_gradient_is_that_of_the_cross_entropy_with_the_teachers_answer() -> None:
    teacher, gradients = logits(1).softmax(dim=1), []
    for loss in (lambda z: kd_loss(z, logits(1), temperature=1.0), lambda z: torch.nn.functional.cross_entropy(z, teacher)):
        student = logits(0).requires_grad_()
        loss(student).backward()
        gradients.append(student.grad)
    assert torch.allclose(*gradients, rtol=1e-12, atol=0)  # the two differ by the teacher's entropy, a constant
