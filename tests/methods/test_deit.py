"""DeiT's distillation token."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from crossdistill.core import registry
from crossdistill.core.errors import SettingError
from crossdistill.core.recipe import TrainingConfig
from crossdistill.core.types import ImageSet
from crossdistill.methods.deit import deit_loss
from crossdistill.models._build import build_network
from crossdistill.ops.modes import frozen
from crossdistill.train.loop import Training
from crossdistill.train.objective import make_objective, published_weights

VIT = {"width": 16, "depth": 2, "heads": 2}


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("kind", "alpha", "temperature"), [("hard", 0.5, 1), ("soft", 0.5, 1), ("soft", 0.1, 3)])
def test_loss_and_gradients_are_the_reference(golden: Any, kind: Any, alpha: float, temperature: int) -> None:
    file, case = golden("deit"), f"{kind}_alpha{alpha}_tau{temperature}"
    classes, distilled = file.input("logits_cls", grad=True), file.input("logits_s", grad=True)
    loss = deit_loss(classes, distilled, file.input("logits_t"), file.input("target"), kind=kind, alpha=alpha, temperature=temperature)
    loss.backward()
    file.check(f"{case}__loss", loss)
    file.check(f"{case}__grad_logits_cls", classes.grad)
    file.check(f"{case}__grad_logits_dist", distilled.grad)


def test_the_class_heads_gradient_is_that_of_half_the_cross_entropy() -> None:
    logits, labels = drawn(6, 4).requires_grad_(), torch.arange(6) % 4
    deit_loss(logits, drawn(6, 4, seed=1), drawn(6, 4, seed=2), labels).backward()
    alone = drawn(6, 4).requires_grad_()
    torch.nn.functional.cross_entropy(alone, labels).backward()
    torch.testing.assert_close(logits.grad, alone.grad / 2)


def test_the_hard_loss_sees_only_the_teachers_decision() -> None:
    student, teacher, labels = drawn(6, 4), drawn(6, 4, seed=1), torch.zeros(6, dtype=torch.int64)
    sharper = deit_loss(student, student, 7 * teacher + 3, labels)
    assert torch.equal(deit_loss(student, student, teacher, labels), sharper)


def test_the_soft_loss_is_a_mean_over_classes_as_well() -> None:
    student, teacher, labels = drawn(6, 4), drawn(6, 4, seed=1), torch.zeros(6, dtype=torch.int64)
    divergence = (teacher.softmax(1) * (teacher.log_softmax(1) - student.log_softmax(1))).sum() / 6
    torch.testing.assert_close(deit_loss(student, student, teacher, labels, kind="soft", alpha=1.0), divergence / 4)


def test_unlabelled_rows_still_learn_from_the_teacher() -> None:
    student, teacher, labels = drawn(2, 4).requires_grad_(), drawn(2, 4, seed=1), torch.tensor([-1, -1])
    distilled = drawn(2, 4, seed=2).requires_grad_()
    deit_loss(student, distilled, teacher, labels).backward()
    assert student.grad is not None
    assert not student.grad.any()
    assert distilled.grad is not None
    assert distilled.grad.abs().sum() > 0
    labelled = deit_loss(student[:1], distilled, teacher, torch.tensor([2])) - deit_loss(student[:1], distilled, teacher, labels[:1])
    torch.testing.assert_close(
        deit_loss(student, distilled, teacher, torch.tensor([2, -1])), labelled + deit_loss(student, distilled, teacher, labels)
    )


@pytest.mark.parametrize("kind", ["hard", "soft"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_saturated_and_constant_logits_give_finite_numbers(kind: Any, dtype: torch.dtype) -> None:
    for values in (torch.tensor([[1e4, -1e4, 0.0]]), torch.ones(1, 3)):
        logits = values.to(dtype).requires_grad_()
        loss = deit_loss(logits, logits, values.flip(1).to(dtype), torch.tensor([1]), kind=kind)
        loss.backward()
        assert loss.dtype == torch.float32
        assert loss.isfinite()
        assert logits.grad is not None
        assert logits.grad.isfinite().all()


def test_wrong_settings_are_refused() -> None:
    logits, labels = torch.zeros(1, 2), torch.tensor([0])
    with pytest.raises(ValueError, match="kind is 'hard' or 'soft', got 'harsh'"):
        deit_loss(logits, logits, logits, labels, kind="harsh")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="temperature must be positive, got 0"):
        deit_loss(logits, logits, logits, labels, temperature=0)
    with pytest.raises(ValueError, match="alpha is a share from 0 to 1, got 2"):
        deit_loss(logits, logits, logits, labels, alpha=2)


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_shapes_that_would_be_broadcast_are_refused(kind: Any) -> None:
    logits, labels = drawn(6, 4), torch.zeros(6, dtype=torch.int64)
    with pytest.raises(ValueError, match="labels must be 6 integer classes, one for each image"):
        deit_loss(logits, logits, logits, labels[:1], kind=kind)
    with pytest.raises(ValueError, match=r"of one shape, got \(6, 4\) and \(6, 5\)"):
        deit_loss(logits, logits, drawn(6, 5), labels, kind=kind)
    with pytest.raises(ValueError, match=r"of one shape, got \(6, 4\) and \(1, 4\)"):
        deit_loss(logits, logits, logits[:1], labels, kind=kind)


@pytest.mark.parametrize(
    ("settings", "refused"), [({"temperature": 3.0}, True), ({"kind": "soft", "temperature": 3.0}, False), ({"temperature": 1.0}, False)]
)
def test_a_temperature_is_refused_where_nothing_is_softened(settings: dict[str, Any], refused: bool) -> None:
    plugin = registry.get("method", "deit")
    answer = plugin.facts["needs"](plugin.complete(settings), {}, {}).refusal
    assert (answer is not None) == refused
    assert not refused or answer.startswith("`temperature` belongs to soft distillation")


def problem(n: int, seed: int) -> ImageSet:
    images = np.random.default_rng(seed).integers(0, 256, (n, 3, 16, 16), dtype=np.uint8)
    return ImageSet(images, np.arange(n, dtype=np.int64) % 3, np.arange(n).astype(str), tuple("abc"))


def trained(student: Any, folder: Path, settings: dict[str, Any]) -> tuple[dict[str, torch.Tensor], Any]:
    """Two steps through the engine, the second of an incomplete batch; the parameters before, and the history."""
    plugin = registry.get("method", "deit")
    torch.manual_seed(0)
    plugin.facts["prepare_student"](student, plugin.complete(settings))
    teacher, images = frozen(build_network("small/resnet8", 3, (16, 16))), problem(12, 1)
    made = make_objective(
        plugin, settings, published_weights(plugin, settings), student=student, teacher=teacher, images=images, rng=torch.Generator()
    )
    before = {name: value.clone() for name, value in student.named_parameters()}
    recipe = TrainingConfig(epochs=1, batch_size=8, precision="fp32", threads=1, learning_rate=1e-2, weight_decay=0.0)
    return before, Training(student, images, problem(3, 2), recipe, who=(0,), folder=folder, objective=made, teacher=teacher).run()


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_training_moves_the_first_layer_the_token_and_both_heads(tmp_path: Path, kind: str) -> None:
    student = build_network("small/vit", 3, (16, 16), settings=VIT)
    before, history = trained(student, tmp_path, {"kind": kind})
    after = dict(student.named_parameters())
    for name in ("model.patch_embed.proj.weight", "model.reg_token", "model.head.weight", "extra_heads.distillation.weight"):
        assert not torch.equal(before[name], after[name]), name
    assert set(history[0].terms) == {"ce", "deit"}
    assert not student.notes


def test_the_students_prediction_is_the_mean_of_both_heads(tmp_path: Path) -> None:
    student = build_network("small/vit", 3, (16, 16), settings=VIT)
    trained(student, tmp_path, {})
    with torch.no_grad():
        seen = student.eval()(torch.from_numpy(problem(3, 2).images))
    torch.testing.assert_close(seen.logits, (seen.heads["class"] + seen.heads["distillation"]) / 2)


def test_a_convolutional_student_learns_with_a_second_head_and_says_so(tmp_path: Path) -> None:
    student = build_network("small/resnet8", 3, (16, 16))
    before, _ = trained(student, tmp_path, {})
    assert not torch.equal(before["extra_heads.distillation.weight"], student.extra_heads["distillation"].weight)
    assert student.notes == ["distillation head on the pooled vector: small/resnet8 takes no further token"]


def test_the_weights_are_the_shares_of_the_two_heads() -> None:
    plugin = registry.get("method", "deit")
    assert published_weights(plugin, {}) == {"ce": 0.5, "deit": 0.5}
    assert published_weights(plugin, {"kind": "soft", "alpha": 0.25}) == {"ce": 0.75, "deit": 0.25}


def test_a_student_that_was_not_prepared_is_refused() -> None:
    student = build_network("small/vit", 3, (16, 16), settings=VIT)
    with pytest.raises(SettingError, match="method 'deit' trains a distillation head, the student has class: call"):
        registry.get("method", "deit").function(student, None, None, None)
