"""Similarity-preserving distillation."""

from typing import Any

import torch

from crossdistill.core import registry
from crossdistill.core.types import Activations, Batch, Clock, FeatureMap
from crossdistill.methods.similarity import similarity, similarity_loss
from crossdistill.ops.layouts import tokens_from_grid


def features(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_loss_and_gradient_are_the_reference(golden: Any) -> None:
    file = golden("sp")
    student = file.input("map_f_s", grad=True)
    loss = similarity_loss(student, file.input("map_f_t"))
    loss.backward()
    file.check("map__loss", loss)
    file.check("map__grad_f_s", student.grad)


def test_the_last_maps_are_compared_and_not_the_pooled_vectors() -> None:
    images, labels, answers = torch.zeros(4, 3, 4, 4), torch.tensor([0, 1, 0, 1]), torch.zeros(4, 2)
    batch = Batch(images, images, labels, torch.eye(2)[labels], labels, torch.ones(4, dtype=torch.bool), Clock(0, 1, 0, 1))
    maps = [features(4, 6, 3, 3), features(4, 5, 2, 2, seed=1)]
    seen = [Activations(answers, pooled=grid.mean(dim=(2, 3)), stages={"last": FeatureMap(grid)}) for grid in maps]
    term = similarity(None, None, None, None)(batch, *seen)["similarity"]
    assert torch.equal(term, similarity_loss(*maps))
    assert not torch.isclose(term, similarity_loss(*(answer.pooled for answer in seen)), rtol=1e-2)  # type: ignore[arg-type]
    needs = registry.get("method", "similarity").facts["needs"]({}, {}, {})
    assert (needs.student_taps, needs.teacher_taps) == (("last",), ("last",))


def test_scale_and_an_orthogonal_transform_of_either_side_do_not_count() -> None:
    student, teacher = features(6, 12), features(6, 20, seed=1)
    turn, _ = torch.linalg.qr(features(12, 12, seed=2))
    loss = similarity_loss(student, teacher)
    assert torch.allclose(similarity_loss(0.01 * student @ turn, 100 * teacher), loss, rtol=1e-10)  # float64 rounding
    assert similarity_loss(0.01 * student @ turn, student) < 1e-20


def test_tokens_and_the_grid_of_the_same_features_are_alike() -> None:
    student, teacher = features(4, 3, 2, 5), features(4, 7, 3, 3, seed=1)
    loss = similarity_loss(student, teacher)
    assert torch.allclose(similarity_loss(tokens_from_grid(student), tokens_from_grid(teacher)), loss, rtol=1e-12)  # order of summation


def test_the_order_of_the_images_does_not_count_as_long_as_it_is_one() -> None:
    student, teacher, order = features(5, 8), features(5, 9, seed=1), torch.tensor([3, 0, 4, 1, 2])
    loss = similarity_loss(student, teacher)
    assert torch.allclose(similarity_loss(student[order], teacher[order]), loss, rtol=1e-12)  # order of summation
    assert not torch.allclose(similarity_loss(student[order], teacher), loss, rtol=1e-3)
