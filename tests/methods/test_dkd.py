"""Decoupled knowledge distillation."""

from typing import Any

import pytest
import torch

from crossdistill.core.types import Activations, Batch, Clock
from crossdistill.methods.dkd import dkd, dkd_loss, dkd_losses
from crossdistill.methods.kd import kd_loss

LABELS = torch.tensor([0, 6, 3, 3, 1])


def logits(seed: int, n_classes: int = 7) -> torch.Tensor:
    return 2 * torch.randn(5, n_classes, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("case", "settings"),
    [
        ("mdistiller_a1_b8_T4", {"alpha": 1.0, "beta": 8.0, "temperature": 4.0}),
        ("mdistiller_a1_b8_T4", {}),  # the defaults
        ("mdistiller_a1_b0_T4", {"alpha": 1.0, "beta": 0.0, "temperature": 4.0}),
        ("mdistiller_a0_b1_T4", {"alpha": 0.0, "beta": 1.0, "temperature": 4.0}),
        ("mdistiller_a1_b2_T1", {"alpha": 1.0, "beta": 2.0, "temperature": 1.0}),
        ("ofakd_a1_b2_T1", {"alpha": 1.0, "beta": 2.0, "temperature": 1.0}),
    ],
)
def test_loss_and_gradient_are_the_reference(golden: Any, case: str, settings: dict[str, float]) -> None:
    file = golden("dkd")
    student = file.input("logits_s", grad=True)
    loss = dkd_loss(student, file.input("logits_t"), file.input("target"), **settings)
    loss.backward()
    file.check(f"{case}__loss", loss)
    file.check(f"{case}__grad_logits_s", student.grad)


def test_it_is_finite_where_the_reference_is_infinite(golden: Any) -> None:
    file = golden("dkd")
    assert file.arrays["saturated_loss_reference__f32"] == float("inf")
    student = file.input("saturated_logits_s", grad=True)
    loss = dkd_loss(student, file.input("saturated_logits_t"), file.input("saturated_target"), temperature=1.0)
    loss.backward()
    assert loss.isfinite()
    assert student.grad is not None
    assert student.grad.isfinite().all()
    # The first image: the student gives the target, class 1, odds of e^-400, the teacher a probability p.
    p = file.input("saturated_logits_t").softmax(dim=1)[0, 1]
    first = dkd_losses(student[:1], file.input("saturated_logits_t")[:1], torch.tensor([1]), temperature=1.0)["tckd"]
    assert torch.allclose(first, p * (p.log() + 400) + (1 - p) * (1 - p).log(), rtol=1e-5, atol=0)  # float32 rounding


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_with_the_teachers_doubt_as_the_second_weight_it_is_plain_kd(temperature: float) -> None:
    student, teacher = logits(0), logits(1)
    doubt = 1 - (teacher / temperature).softmax(dim=1).gather(1, LABELS[:, None])[:, 0]
    for row, label in enumerate(LABELS):
        rows = slice(row, row + 1)
        loss = dkd_loss(student[rows], teacher[rows], label[None], alpha=1.0, beta=float(doubt[row]), temperature=temperature)
        assert torch.allclose(loss, kd_loss(student[rows], teacher[rows], temperature=temperature), rtol=1e-12, atol=0)  # float64 rounding


def test_the_mean_of_target_part_and_doubt_times_the_other_part_is_plain_kd() -> None:
    student, teacher = logits(0), logits(1)
    doubt = 1 - teacher.softmax(dim=1).gather(1, LABELS[:, None])[:, 0]
    one_by_one = [dkd_losses(s[None], t[None], y[None], temperature=1.0) for s, t, y in zip(student, teacher, LABELS, strict=True)]
    rebuilt = sum(part["tckd"] + share * part["nckd"] for part, share in zip(one_by_one, doubt, strict=True)) / 5
    assert torch.allclose(torch.as_tensor(rebuilt), kd_loss(student, teacher, temperature=1.0), rtol=1e-12, atol=0)  # float64 rounding


def test_with_two_classes_only_the_target_part_is_left() -> None:
    student, teacher, labels = logits(0, 2), logits(1, 2), torch.tensor([0, 1, 1, 0, 1])
    parts = dkd_losses(student, teacher, labels, temperature=2.0)
    assert parts["nckd"] == 0
    assert torch.allclose(parts["tckd"], kd_loss(student, teacher, temperature=2.0), rtol=1e-12, atol=0)  # float64 rounding


def test_the_non_target_part_does_not_see_the_targets_logit() -> None:
    student, teacher = logits(0), logits(1)
    shifted = student.scatter_add(1, LABELS[:, None], torch.full((5, 1), 3.0, dtype=torch.float64))
    before, after = (dkd_losses(z, teacher, LABELS) for z in (student, shifted))
    assert torch.equal(before["nckd"], after["nckd"])
    assert abs(before["tckd"] - after["tckd"]) > 1e-3


def test_unlabelled_images_do_not_count() -> None:
    student, teacher = logits(0).requires_grad_(), logits(1)
    some = dkd_loss(student, teacher, torch.tensor([-1, 6, -1, 3, -1]))
    assert torch.allclose(some, dkd_loss(student[[1, 3]], teacher[[1, 3]], torch.tensor([6, 3])), rtol=1e-12, atol=0)  # float64 rounding
    none = dkd_loss(student, teacher, torch.full((5,), -1))
    none.backward()
    assert none == 0
    assert student.grad is not None
    assert (student.grad == 0).all()


def test_under_mixup_the_dominant_class_is_the_target() -> None:
    student, teacher = logits(0, 3), logits(1, 3)
    labels, targets = torch.tensor([0, 1, 2, 2, 0]), torch.tensor([[0.6, 0.4, 0.0]]).double().repeat(5, 1)
    images = torch.zeros(5, 3, 4, 4)
    batch = Batch(images, images, labels, targets, torch.arange(5), torch.ones(5, dtype=torch.bool), Clock(0, 1, 0, 1))
    terms = dkd(None, None, None, None)(batch, Activations(student), Activations(teacher))
    assert terms.keys() == {"ce", "tckd", "nckd"}
    assert torch.equal(terms["tckd"] + 8 * terms["nckd"], dkd_loss(student, teacher, labels))
    assert torch.allclose(terms["ce"], torch.nn.functional.cross_entropy(student, targets), rtol=1e-12, atol=0)  # float64 rounding


def test_wrong_inputs_are_refused() -> None:
    with pytest.raises(ValueError, match=r"two classes or more, got logits \(5, 1\)"):
        dkd_loss(torch.zeros(5, 1), torch.zeros(5, 1), LABELS)
    with pytest.raises(ValueError, match=r"labels must be 5 integer classes, one for each image, got torch.int64 \(5, 1\)"):
        dkd_loss(logits(0), logits(1), LABELS[:, None])
    with pytest.raises(ValueError, match="got torch.float32"):
        dkd_loss(logits(0), logits(1), LABELS.float())
    with pytest.raises(ValueError, match="labels must be below 7, the number of classes, got 7"):
        dkd_loss(logits(0), logits(1), LABELS + 1)
    with pytest.raises(ValueError, match="temperature must be positive, got 0"):
        dkd_loss(logits(0), logits(1), LABELS, temperature=0)
