"""Logit standardisation: a switch of the methods that compare logits."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from crossdistill.core import registry
from crossdistill.core.recipe import TrainingConfig
from crossdistill.core.types import Activations, Batch, Clock, ImageSet
from crossdistill.methods._logits import softened, standardize_logits, tempered_kl
from crossdistill.methods.dkd import dkd_loss
from crossdistill.methods.kd import kd_loss
from crossdistill.models._build import build_network
from crossdistill.ops.losses import cross_entropy
from crossdistill.ops.modes import frozen
from crossdistill.train.loop import Training
from crossdistill.train.objective import make_objective, method_weights, published_weights

METHODS = ("kd", "dkd", "dist")


def logits(*shape: int, seed: int = 0) -> torch.Tensor:
    return 3 * torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def batch_of(labels: list[int], n_classes: int) -> Batch:
    y = torch.tensor(labels)
    targets = torch.nn.functional.one_hot(y.clamp(min=0), n_classes).double() * (y >= 0)[:, None]
    images = torch.zeros(len(y), 3, 4, 4)
    return Batch(images, images, y, targets, torch.arange(len(y)), torch.ones(len(y), dtype=torch.bool), Clock(0, 1, 0, 1))


def terms_of(name: str, student: torch.Tensor, teacher: torch.Tensor, labels: list[int], **settings: Any) -> dict[str, torch.Tensor]:
    objective = registry.get("method", name).function(None, None, None, None, **settings)
    return objective(batch_of(labels, student.shape[1]), Activations(student), Activations(teacher))


def test_standardised_logits_are_the_reference(golden: Any) -> None:
    file = golden("logit_std")
    file.check("normalized_s", standardize_logits(file.input("logits_s")))


@pytest.mark.parametrize(("case", "temperature", "standardize"), [("kd_T2", 2, True), ("kd_T3", 3, True), ("kd_T2_off", 2, False)])
def test_kd_on_standardised_logits_is_the_reference(golden: Any, case: str, temperature: int, standardize: bool) -> None:
    file = golden("logit_std")
    student, prepare = file.input("logits_s", grad=True), standardize_logits if standardize else torch.clone
    loss = kd_loss(prepare(student), prepare(file.input("logits_t")), temperature=temperature)
    loss.backward()
    file.check(f"{case}__loss", loss)
    file.check(f"{case}__grad_logits_s", student.grad)


def test_dkd_on_standardised_logits_is_the_reference(golden: Any) -> None:
    file = golden("logit_std")
    student, teacher = file.input("logits_s", grad=True), file.input("logits_t")
    standardised = standardize_logits(student), standardize_logits(teacher)
    loss = dkd_loss(*standardised, file.input("target"), alpha=9.0, beta=72.0, temperature=2.0)
    loss.backward()
    file.check("dkd_a9_b72_T2__loss", loss)
    file.check("dkd_a9_b72_T2__grad_logits_s", student.grad)


def test_scale_and_offset_of_each_image_do_not_count() -> None:
    values = logits(5, 7)
    scale, offset = torch.tensor([0.2, 1, 3, 10, 0.5]).double()[:, None], torch.arange(5.0).double()[:, None]
    # 1e-7 beside standard deviations of 0.6 and more changes the result by as much.
    assert torch.allclose(standardize_logits(scale * values + offset), standardize_logits(values), rtol=0, atol=1e-6)


def test_each_image_has_mean_zero_and_the_sample_deviation_one() -> None:
    standardised = standardize_logits(logits(5, 7))
    assert torch.allclose(standardised.mean(dim=1), torch.zeros(5).double(), rtol=0, atol=1e-12)  # float64 rounding
    assert torch.allclose(standardised.square().sum(dim=1) / 6, torch.ones(5).double(), rtol=0, atol=1e-6)  # the 1e-7 in the denominator


def test_classes_that_both_sides_mask_count_as_if_they_were_not_there() -> None:
    student, teacher = logits(5, 7), logits(5, 7, seed=1)
    masked = [torch.cat([side, torch.full((5, 2), -torch.inf).double()], dim=1).requires_grad_() for side in (student, teacher)]
    labels, targets = torch.tensor([0, 6, 3, 3, -1]), torch.full((5, 7), 1 / 7).double()
    for loss_of, more in ((kd_loss, ()), (dkd_loss, (labels,))):
        loss = loss_of(*masked, *more)
        (gradient,) = torch.autograd.grad(loss, masked[0])
        assert torch.allclose(loss, loss_of(student, teacher, *more), rtol=1e-12, atol=0)  # float64 rounding
        assert gradient.isfinite().all()
    padded = torch.nn.functional.pad(targets, (0, 2))
    assert torch.allclose(cross_entropy(masked[0], padded), cross_entropy(student, targets), rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", METHODS)
def test_the_switch_standardises_both_sides_and_leaves_the_cross_entropy_alone(name: str) -> None:
    student, teacher, labels = logits(4, 5), logits(4, 5, seed=1), [0, 1, 2, 3]
    plain, switched = (terms_of(name, student, teacher, labels, standardize=on) for on in (False, True))
    by_hand = terms_of(name, standardize_logits(student), standardize_logits(teacher), labels)
    rescaled = terms_of(name, 7 * student + 1, 0.3 * teacher - 2, labels, standardize=True)
    assert torch.equal(switched["ce"], plain["ce"])
    assert torch.equal(switched["ce"], cross_entropy(student, batch_of(labels, 5).targets))
    for term in switched.keys() - {"ce"}:
        assert torch.equal(switched[term], by_hand[term])
        assert torch.allclose(switched[term], rescaled[term], rtol=0, atol=1e-5)  # 1e-7 beside the deviations, times T^2 of up to 16
        assert abs(switched[term] - plain[term]) > 1e-3


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_constant_and_saturated_logits_give_finite_terms_and_gradients(name: str, standardize: bool, dtype: torch.dtype) -> None:
    extreme = torch.tensor(
        [[0.0, 0, 0, 0], [1e4, -1e4, -1e4, -1e4], [-1e4, -1e4, 1e4, -1e4], [1e4, 1e4, 1e4, 1e4], [1, 2, 3, 4]], dtype=dtype
    )
    for order in (torch.arange(5), torch.arange(5).roll(1), torch.arange(5).flip(0)):
        for n_images in (1, 5):
            student = extreme[:n_images].clone().requires_grad_()
            terms = terms_of(name, student, extreme[order][:n_images], [2, 2, 0, 1, -1][:n_images], standardize=standardize)
            torch.stack(list(terms.values())).sum().backward()
            assert all(term.isfinite() and term.dtype is not torch.bfloat16 for term in terms.values())
            assert student.grad is not None
            assert student.grad.isfinite().all()


def test_constant_logits_become_zeros() -> None:
    assert torch.equal(standardize_logits(torch.full((2, 3), 4.0)), torch.zeros(2, 3))


@pytest.mark.parametrize("shape", [(3, 1), (3,), (2, 3, 4)])
def test_what_is_no_matrix_of_classes_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="two classes or more to be standardised, got"):
        standardize_logits(torch.zeros(shape))


def test_logits_that_would_be_broadcast_and_impossible_temperatures_are_refused() -> None:
    with pytest.raises(ValueError, match=r"of one shape, got \(4, 3\) and \(1, 3\)"):
        softened(torch.zeros(4, 3), torch.zeros(1, 3), 1.0)
    for temperature in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match=f"temperature must be positive, got {temperature}"):
            softened(torch.zeros(4, 3), torch.zeros(4, 3), temperature)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("standardize", [False, True])
def test_in_the_engine_the_terms_without_labels_reach_the_students_first_layer(name: str, standardize: bool, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (20, 3, 16, 16), dtype=np.uint8)
    train = ImageSet(images, np.arange(20) % 3, np.arange(20).astype(str), tuple("abc"))
    torch.manual_seed(0)
    student = build_network("small/vit", 3, (16, 16), settings={"width": 16, "depth": 2, "heads": 2})
    teacher = frozen(build_network("small/resnet8", 3, (16, 16)))
    plugin, settings = registry.get("method", name), {"standardize": standardize}
    weights = method_weights(published_weights(plugin, settings), weight=1.0, weights={"ce": 0.0})
    made = make_objective(plugin, settings, weights, student=student, teacher=teacher, images=train, rng=torch.Generator())
    recipe = TrainingConfig(epochs=1, batch_size=8, precision="fp32", threads=1, weight_decay=0.0)
    training = Training(student, train, train, recipe, who=(0, "student", 0), folder=tmp_path, objective=made, teacher=teacher)
    first = next(parameter for parameter in student.parameters() if parameter.ndim == 4)  # the patch embedding
    before = first.detach().clone()
    history = training.run()
    assert set(history[0].terms) == set(weights)
    assert (first != before).any()  # there is no weight decay: only a gradient moves it


def test_the_tempered_divergence_of_each_row_by_hand() -> None:
    # At T = 2 the logits 2 log p become log p: KL of (3/4, 1/4) from (1/2, 1/2) is 3/4 log 3/2 + 1/4 log 1/2; a row's with itself is 0.
    p = torch.tensor([[0.75, 0.25], [0.5, 0.5]], dtype=torch.float64)
    divergences = tempered_kl(torch.full((2, 2), 0.5).double(), 2 * p.log(), 2.0)
    expected = torch.tensor([0.75 * np.log(1.5) + 0.25 * np.log(0.5), 0.0], dtype=torch.float64)
    torch.testing.assert_close(divergences, expected)
    with pytest.raises(ValueError, match="of one shape"):
        tempered_kl(p, p[:1], 1.0)
