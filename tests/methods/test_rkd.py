"""Relational knowledge distillation."""

from typing import Any

import pytest
import torch

from crossdistill.core.types import Activations, Batch, Clock
from crossdistill.methods import rkd
from crossdistill.methods.rkd import angle_loss, distance_loss, rkd_loss


def vectors(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def gradient(loss: Any, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    student = student.detach().requires_grad_()
    return torch.autograd.grad(loss(student, teacher), student)[0]


@pytest.mark.parametrize(
    ("case", "settings"),
    [
        ("d25_a50", {}),
        ("d25_a50", {"distance_weight": 25.0, "angle_weight": 50.0}),
        ("distance_only", {"distance_weight": 1.0, "angle_weight": 0.0}),
        ("angle_only", {"distance_weight": 0.0, "angle_weight": 1.0}),
    ],
)
def test_loss_and_gradient_are_the_reference(golden: Any, case: str, settings: dict[str, float]) -> None:
    file = golden("rkd")
    student = file.input(f"{case}_f_s", grad=True)
    loss = rkd_loss(student, file.input(f"{case}_f_t"), **settings)
    loss.backward()
    file.check(f"{case}__loss", loss)
    file.check(f"{case}__grad_f_s", student.grad)


def test_rotation_translation_and_scale_of_either_side_do_not_count() -> None:
    student, teacher = vectors(7, 5), vectors(7, 9, seed=1)
    turn, _ = torch.linalg.qr(vectors(5, 5, seed=2))
    moved = 30 * student @ turn + vectors(5, seed=3)
    loss = rkd_loss(student, teacher)
    assert torch.allclose(rkd_loss(moved, teacher), loss, rtol=1e-10)  # float64 rounding
    assert torch.allclose(rkd_loss(teacher, moved), rkd_loss(teacher, student), rtol=1e-10)
    assert rkd_loss(moved, student) < 1e-20


def test_the_angle_is_taken_at_the_first_of_three() -> None:
    corner = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    line = torch.tensor([[0.0], [2.0], [-1.0]], dtype=torch.float64)
    # Cosines at the corner's images: 0, 2 / sqrt(5), 1 / sqrt(5); on the line: -1, 1, 1. Each stands twice among 27 entries.
    differences = torch.tensor([1.0, 1 - 2 / 5**0.5, 1 - 1 / 5**0.5], dtype=torch.float64)
    assert torch.allclose(angle_loss(line, corner), 2 * (differences.square() / 2).sum() / 27, rtol=1e-12)  # float64 rounding


@pytest.mark.parametrize("at_once", [1, 200, 500])
def test_chunks_change_neither_loss_nor_gradient(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    student, teacher = vectors(7, 5), vectors(7, 9, seed=1)
    whole = angle_loss(student, teacher), gradient(angle_loss, student, teacher)
    monkeypatch.setattr(rkd, "AT_ONCE", at_once)
    assert torch.allclose(angle_loss(student, teacher), whole[0], rtol=1e-12)  # order of summation
    assert torch.allclose(gradient(angle_loss, student, teacher), whole[1], rtol=1e-10)


def test_an_offset_of_all_features_costs_no_digits() -> None:
    student, teacher = vectors(8, 16, dtype=torch.float32), vectors(8, 16, seed=1, dtype=torch.float32)
    # Multiples of 1/64 near 1000 are exact in float32, so that both arguments hold the very same differences.
    student = (64 * student).round() / 64
    assert torch.allclose(distance_loss(student + 1000, teacher), distance_loss(student, teacher), rtol=1e-4)


def test_images_with_equal_features_pull_no_harder_than_others() -> None:
    student, teacher = vectors(6, 8, dtype=torch.float32), vectors(6, 8, seed=1, dtype=torch.float32)
    usual = gradient(rkd_loss, student, teacher).abs().max()
    student[3] = student[1]
    assert gradient(rkd_loss, student, teacher).abs().max() < 10 * usual  # divided by their distance it would be 1e9 and more


def test_distances_and_angles_are_terms_of_their_own() -> None:
    student, teacher = vectors(5, 6), vectors(5, 9, seed=1)
    images, labels = torch.zeros(5, 3, 4, 4), torch.zeros(5, dtype=torch.int64)
    batch = Batch(images, images, labels, torch.ones(5, 2) / 2, labels, torch.ones(5, dtype=torch.bool), Clock(0, 1, 0, 1))
    answers = [Activations(torch.zeros(5, 2), pooled=pooled) for pooled in (student, teacher)]
    terms = rkd.rkd(None, None, None, None)(batch, *answers)
    assert torch.equal(terms["distance"], distance_loss(student, teacher))
    assert torch.equal(terms["angle"], angle_loss(student, teacher))
    assert not torch.isclose(terms["distance"], terms["angle"], rtol=0.1)


@pytest.mark.parametrize("n_images", [1, 2])
def test_one_image_or_two_have_nothing_to_compare(n_images: int) -> None:
    assert rkd_loss(vectors(n_images, 6), vectors(n_images, 9, seed=1)) < 1e-20  # rounding, squared


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(ValueError, match="must not be negative, got distance_weight -1.0 and angle_weight 50.0"):
        rkd_loss(torch.zeros(2, 3), torch.zeros(2, 3), distance_weight=-1.0)
