"""DIST: correlations between student and teacher, of the classes of an image and of the images of a class."""

from typing import Any

import numpy as np
import pytest
import torch

from crossdistill.methods.dist import dist_loss, dist_losses


def logits(seed: int, n_images: int = 6) -> torch.Tensor:
    return 2 * torch.randn(n_images, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("case", "settings"),
    [
        ("b1_g1_T1", {}),  # the defaults
        ("b1_g0_T1", {"beta": 1.0, "gamma": 0.0}),
        ("b0_g1_T1", {"beta": 0.0, "gamma": 1.0}),
        ("b2_g2_T1", {"beta": 2.0, "gamma": 2.0}),
        ("b1_g1_T4", {"temperature": 4.0}),
    ],
)
def test_loss_and_gradient_are_the_reference(golden: Any, case: str, settings: dict[str, float]) -> None:
    file = golden("dist")
    student = file.input("logits_s", grad=True)
    loss = dist_loss(student, file.input("logits_t"), **settings)
    loss.backward()
    file.check(f"{case}__loss", loss)
    file.check(f"{case}__grad_logits_s", student.grad)


def test_it_is_one_minus_numpys_correlation_of_rows_and_of_columns() -> None:
    student, teacher = logits(0), logits(1)
    p, q = student.softmax(dim=1).numpy(), teacher.softmax(dim=1).numpy()
    parts = dist_losses(student, teacher)
    rows = [np.corrcoef(a, b)[0, 1] for a, b in zip(p, q, strict=True)]
    columns = [np.corrcoef(a, b)[0, 1] for a, b in zip(p.T, q.T, strict=True)]
    # numpy has no 1e-8 beside the product of the norms, which are above 0.01 here.
    assert float(parts["inter"]) == pytest.approx(1 - np.mean(rows), abs=1e-6)
    assert float(parts["intra"]) == pytest.approx(1 - np.mean(columns), abs=1e-6)


def test_it_is_zero_where_the_student_is_the_teacher_mixed_with_ignorance() -> None:
    teacher = logits(1)
    student = (0.3 * teacher.softmax(dim=1) + 0.7 / 5).log()  # one positive affine map for all rows and columns
    parts = dist_losses(student, teacher)
    assert parts["inter"].abs() < 1e-6  # the 1e-8 beside products of norms above 0.01
    assert parts["intra"].abs() < 1e-6


def test_each_image_may_be_mixed_with_ignorance_by_its_own_share_without_changing_the_inter_term() -> None:
    student, teacher = logits(0), logits(1)
    share = torch.linspace(0.2, 1, 6).double()[:, None]
    mixed = (share * student.softmax(dim=1) + (1 - share) / 5).log()
    before, after = dist_losses(student, teacher), dist_losses(mixed, teacher)
    assert torch.allclose(before["inter"], after["inter"], rtol=0, atol=1e-6)  # the 1e-8 beside products of norms above 0.01
    assert abs(before["intra"] - after["intra"]) > 1e-3


def test_neither_the_order_of_images_nor_that_of_classes_matters() -> None:
    student, teacher = logits(0), logits(1)
    expected = dist_loss(student, teacher)
    assert torch.allclose(dist_loss(student.flip(0), teacher.flip(0)), expected, rtol=1e-12, atol=0)  # float64 rounding
    assert torch.allclose(dist_loss(student.flip(1), teacher.flip(1)), expected, rtol=1e-12, atol=0)


def test_a_single_image_says_nothing_about_relations_between_images() -> None:
    student = logits(0, n_images=1).requires_grad_()
    parts = dist_losses(student, logits(1, n_images=1), temperature=2.0)
    assert float(parts["intra"].detach()) == 4.0  # T^2 (1 - 0)
    gradient = torch.autograd.grad(parts["intra"], student, retain_graph=True)[0]
    assert (gradient == 0).all()
    assert torch.autograd.grad(parts["inter"], student)[0].abs().max() > 1e-3


def test_the_constant_is_added_to_the_product_of_the_norms() -> None:
    # Two classes, probabilities 1/2 +- e: both norms are e sqrt(2), so the correlation is 2 e^2 / (2 e^2 + 1e-8).
    tiny = 1e-4
    z = torch.tensor([[2 * tiny, -2 * tiny]], dtype=torch.float64)  # sigmoid(4e-4) = 1/2 + 1e-4, up to 1e-11
    assert float(dist_losses(z, z)["inter"]) == pytest.approx(1 - 2 / 3, abs=1e-6)


def test_wrong_inputs_are_refused() -> None:
    with pytest.raises(ValueError, match="temperature must be positive, got -1"):
        dist_loss(logits(0), logits(1), temperature=-1)
    with pytest.raises(ValueError, match=r"of one shape, got \(6, 5\) and \(1, 5\)"):
        dist_loss(logits(0), logits(1, n_images=1))
