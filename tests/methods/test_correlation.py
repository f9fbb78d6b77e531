"""Correlation congruence in RepDistiller's form."""

from typing import Any

import pytest
import torch

from crossdistill.core.types import Activations, Batch, Clock
from crossdistill.methods.correlation import Correlation, correlation_loss


def test_loss_and_gradients_through_both_embeddings_are_the_reference(golden: Any) -> None:
    file = golden("cc")
    objective = Correlation(12, 20, 8).to(file.dtype)
    for side, embedding in (("s", objective.student_embedding), ("t", objective.teacher_embedding)):
        embedding.load_state_dict({name: file.input(f"embed_{side}_linear.{name}") for name in ("weight", "bias")})
    student, logits, labels = file.input("f_s", grad=True), torch.zeros(6, 2), torch.zeros(6, dtype=torch.long)
    images = torch.zeros(6, 3, 4, 4)
    batch = Batch(images, images, labels, torch.ones(6, 2) / 2, labels, torch.ones(6, dtype=torch.bool), Clock(0, 1, 0, 1))
    loss = objective(batch, Activations(logits, pooled=student), Activations(logits, pooled=file.input("f_t")))["correlation"]
    loss.backward()
    file.check("loss", loss)
    file.check("grad_f_s", student.grad)
    file.check("grad_embed_s_weight", objective.student_embedding.weight.grad)
    file.check("grad_embed_t_weight", objective.teacher_embedding.weight.grad)


def test_neighbours_are_consecutive_images_and_the_last_has_none() -> None:
    errors = torch.tensor([[1.0], [10.0], [100.0]])
    assert correlation_loss(errors, torch.zeros(3, 1)) == (1 * 10 + 10 * 100) / 2
    assert correlation_loss(-errors[[1, 0, 2]], torch.zeros(3, 1)) == (10 * 1 + 1 * 100) / 2  # the order counts, the sign does not


def test_one_image_has_no_neighbour_and_gives_zero_with_a_gradient_of_zero() -> None:
    student = torch.ones(1, 4, requires_grad=True)
    loss = correlation_loss(student, torch.zeros(1, 4))
    loss.backward()
    assert loss == 0
    assert torch.equal(student.grad, torch.zeros(1, 4))


def test_vectors_that_were_not_embedded_alike_are_refused() -> None:
    with pytest.raises(ValueError, match=r"one shape, got \(2, 3\) and \(2, 4\): embed both sides first"):
        correlation_loss(torch.zeros(2, 3), torch.zeros(2, 4))
