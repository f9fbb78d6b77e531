"""Redundancy suppression distillation."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from crossdistill.core import registry
from crossdistill.core.recipe import TrainingConfig
from crossdistill.core.types import Activations, Batch, Clock, ImageSet
from crossdistill.methods.rsd import RedundancyObjective, rsd_loss
from crossdistill.models._build import build_network
from crossdistill.ops.modes import frozen
from crossdistill.train.loop import Training
from crossdistill.train.objective import make_objective


@pytest.mark.parametrize("kappa", [0.01, 0.1])
def test_loss_and_gradient_are_the_reference(golden: Any, kappa: float) -> None:
    file = golden("rsd")
    student = file.input("f_s", grad=True)
    loss = rsd_loss(student, file.input("f_t"), kappa=kappa)
    loss.backward()
    file.check(f"kappa{kappa}__loss", loss)
    file.check(f"kappa{kappa}__grad_f_s", student.grad)


def test_location_and_scale_of_a_channel_do_not_matter() -> None:
    random = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(20, 5, dtype=torch.float64, generator=random) for _ in range(2))
    scale, shift = torch.arange(2.0, 7.0).double(), torch.arange(5.0).double()
    expected = rsd_loss(student, teacher)
    assert rsd_loss(student * scale + shift, teacher).item() == pytest.approx(expected.item(), rel=1e-4)  # 1e-5 stands beside a deviation
    assert rsd_loss(student, teacher * scale + shift).item() == pytest.approx(expected.item(), rel=1e-4)
    assert rsd_loss(-student, teacher).item() > expected.item() + 0.1


def test_a_copy_of_one_channel_is_redundant() -> None:
    # Both student columns are the teacher's first of two uncorrelated ones: R = [[1, 1], [0, 0]], so 0 + 1 + kappa (1 + 0).
    teacher = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    student = teacher[:, [0, 0]]
    assert rsd_loss(student, teacher, kappa=0.5).item() == pytest.approx(1.5, abs=1e-4)  # 1e-5 beside a deviation of 1


@pytest.mark.parametrize("value", [0.0, 1e4])
def test_constant_columns_leave_loss_and_gradient_finite(value: float) -> None:
    student = torch.full((6, 4), value, requires_grad=True)
    loss = rsd_loss(student, torch.full((6, 4), value))
    loss.backward()
    assert loss.item() == 4  # no correlation at all: every diagonal entry misses by 1
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_half_precision_is_promoted() -> None:
    random = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(8, 4, generator=random).bfloat16() for _ in range(2))
    assert rsd_loss(student, teacher).dtype == torch.float32
    assert rsd_loss(student, teacher).item() == rsd_loss(student.float(), teacher.float()).item()


def test_unequal_widths_are_refused() -> None:
    with pytest.raises(ValueError, match=r"of one shape, got \(4, 3\) and \(4, 5\)"):
        rsd_loss(torch.zeros(4, 3), torch.zeros(4, 5))


def batch_of(n: int) -> Batch:
    images = torch.zeros(n, 3, 16, 16)
    return Batch(
        images, images, torch.zeros(n, dtype=torch.int64), torch.eye(3)[[0] * n], torch.arange(n), torch.ones(n, dtype=torch.bool),
        Clock(0, 10, 0, 1),
    )  # fmt: skip


def test_a_single_image_adds_nothing_and_leaves_the_projector_as_it_is() -> None:
    objective = RedundancyObjective(4, 6, 0.01).train()
    before = {name: value.clone() for name, value in objective.state_dict().items()}
    pooled = torch.randn(1, 4, requires_grad=True)
    answers = Activations(torch.zeros(1, 3), pooled=pooled)
    term = objective(batch_of(1), answers, Activations(torch.zeros(1, 3), pooled=torch.randn(1, 6)))["rsd"]
    term.backward()
    assert term.item() == 0
    assert pooled.grad is not None
    assert (pooled.grad == 0).all()
    assert all(torch.equal(value, before[name]) for name, value in objective.state_dict().items())


def test_the_projectors_hidden_layer_is_twice_as_wide_as_the_student() -> None:
    shapes = [tuple(parameter.shape) for parameter in RedundancyObjective(4, 6, 0.01).parameters() if parameter.ndim == 2]
    assert shapes == [(8, 4), (6, 8)]


def test_one_step_reaches_the_students_first_layer_and_moves_the_projector(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 3, 16, 16), dtype=np.uint8)
    data = ImageSet(pixels, np.arange(16, dtype=np.int64) % 3, np.arange(16).astype(str), tuple("abc"))
    torch.manual_seed(0)
    student = build_network("small/resnet8", 3, (16, 16))
    teacher = frozen(build_network("small/vit", 3, (16, 16), settings={"width": 24, "depth": 2, "heads": 2}))
    plugin = registry.get("method", "rsd")
    objective = make_objective(plugin, {}, plugin.facts["weights"], student=student, teacher=teacher, images=data, rng=torch.Generator())
    module = objective.module
    assert module is not None
    recipe = TrainingConfig(epochs=1, batch_size=8, precision="fp32", threads=1, learning_rate=1e-2)
    run = Training(student, data, data, recipe, who=(0, "student", 0), folder=tmp_path, objective=objective, teacher=teacher)
    batch = run.batch(torch.arange(8), 0)
    answers, taught = student(batch.images, taps=("pooled",)), teacher(batch.teacher_images, taps=("pooled",))
    (gradient,) = torch.autograd.grad(module(batch, answers, taught)["rsd"], next(student.parameters()))
    assert gradient.abs().sum() > 0
    before = {name: value.clone() for name, value in module.named_parameters()}
    run.step(torch.arange(8), 0)
    assert len(before) == 4  # two linear maps without bias, BatchNorm's weight and bias
    assert all(not torch.equal(value, before[name]) for name, value in module.named_parameters())
