"""Probabilistic knowledge transfer."""

from typing import Any

import torch

from crossdistill.methods.pkt import pkt_loss


def vectors(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_loss_and_gradient_are_the_reference(golden: Any) -> None:
    file = golden("pkt")
    student = file.input("pkt_f_s", grad=True)
    loss = pkt_loss(student, file.input("pkt_f_t"))
    loss.backward()
    file.check("pkt__loss", loss)
    file.check("pkt__grad_f_s", student.grad)


def test_the_length_of_a_vector_and_a_rotation_of_all_do_not_count() -> None:
    student, teacher = vectors(6, 12), vectors(6, 20, seed=1)
    turn, _ = torch.linalg.qr(vectors(12, 12, seed=2))
    lengths = torch.arange(1.0, 7.0).double()[:, None]
    loss = pkt_loss(student, teacher)
    assert torch.allclose(pkt_loss(lengths * student @ turn, teacher), loss, rtol=1e-4)  # the 1e-7 added to norms and probabilities
    assert pkt_loss(lengths * teacher, teacher).abs() < 1e-9


def test_it_is_positive_between_different_neighbourhoods() -> None:
    assert all(pkt_loss(vectors(6, 4, seed=seed), vectors(6, 4, seed=seed + 100)) > 1e-4 for seed in range(20))


def test_opposite_vectors_and_a_vector_of_zeros_have_finite_gradients() -> None:
    vector = torch.rand(64, generator=torch.Generator().manual_seed(0))
    student = torch.stack([vector, -vector, torch.zeros(64), -3 * vector]).requires_grad_()
    loss = pkt_loss(student, torch.rand(4, 8, generator=torch.Generator().manual_seed(1)))
    loss.backward()
    assert loss.isfinite()
    assert student.grad is not None
    assert student.grad.isfinite().all()
