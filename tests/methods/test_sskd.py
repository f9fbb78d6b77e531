"""SSKD: the four terms, the selection, the teacher's head, and the objective in the real loop."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from crossdistill.core import registry
from crossdistill.core.errors import SettingError
from crossdistill.core.recipe import TrainingConfig
from crossdistill.core.types import ImageSet, Needs
from crossdistill.methods.sskd import kept_rows, rotations, self_supervised_loss, self_supervised_similarity, sskd_losses
from crossdistill.models._build import build_network
from crossdistill.ops.modes import frozen
from crossdistill.train.loop import Training
from crossdistill.train.objective import Objective, make_objective, published_weights
from crossdistill.train.optimizers import learning_rate

CASES = ["default", "tf0.5_ss0.5", "ss1.0_T"]
CLASSES = 4


def settings_of(file: Any, case: str) -> dict[str, tuple[float, ...]]:
    def setting(name: str) -> float:
        own = f"{case}__hp_{name}"
        return file.setting(own if own in file.arrays else f"hp_{name}")

    return {
        "weights": tuple(setting(f"{term}_weight") for term in ("ce", "kd", "tf", "ss")),
        "temperatures": tuple(setting(f"{term}_T") for term in ("kd", "tf", "ss")),
        "keep": (setting("ratio_tf"), setting("ratio_ss")),
    }


@pytest.mark.parametrize("case", CASES)
def test_terms_and_gradients_are_the_reference(golden: Any, case: str) -> None:
    file = golden("sskd")
    logits, embedding = file.input("logits_s", grad=True), file.input("ss_s", grad=True)
    terms = sskd_losses(logits, file.input("logits_t"), embedding, file.input("ss_t"), file.input("target"), **settings_of(file, case))
    terms["total"].backward()
    for name in ("ce", "kd", "tf", "ss", "total"):
        file.check(f"{case}__{name}", terms[name])
    file.check(f"{case}__grad_logits_s", logits.grad)
    file.check(f"{case}__grad_ss_s", embedding.grad)


@pytest.mark.parametrize("case", CASES)
def test_the_rows_kept_are_the_references(golden: Any, case: str) -> None:
    file = golden("sskd")
    keep_tf, keep_ss = settings_of(file, case)["keep"]
    rotated = torch.arange(32) % 4 != 0
    kept_tf = kept_rows(file.input("logits_t")[rotated], file.input("target").repeat_interleave(3), keep_tf)
    kept_ss = kept_rows(self_supervised_similarity(file.input("ss_t")), torch.arange(8).repeat_interleave(3), keep_ss)
    assert kept_tf.nonzero()[:, 0].tolist() == file.arrays[f"{case}__keep_tf"].tolist()
    assert kept_ss.nonzero()[:, 0].tolist() == file.arrays[f"{case}__keep_ss"].tolist()


def test_similarities_and_the_loss_of_the_teachers_head_are_the_reference(golden: Any) -> None:
    file = golden("sskd")
    embedding = file.input("ss_t", grad=True)
    file.check("t_simi", self_supervised_similarity(embedding))
    file.check("s_simi", self_supervised_similarity(file.input("ss_s")))
    loss = self_supervised_loss(embedding)
    loss.backward()
    file.check("teacher_stage__loss", loss)
    file.check("teacher_stage__grad_ss_t", embedding.grad)


def rows(seed: int, batch: int = 6, width: int = 5) -> Tensor:
    return torch.randn(4 * batch, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_a_share_of_zero_keeps_only_correct_rows() -> None:
    scores, answers = rows(0), torch.arange(24) % 5
    correct = scores.argmax(dim=1) == answers
    assert 0 < correct.sum() < 24
    assert torch.equal(kept_rows(scores, answers, 0.0), correct)
    assert kept_rows(scores, answers, 1.0).all()


def test_a_share_keeps_the_wrong_rows_of_smallest_rank_and_of_equal_ones_the_earlier() -> None:
    scores = torch.tensor([[3.0, 2.0, 1.0]]).repeat(6, 1)
    answers = torch.tensor([2, 1, 1, 0, 1, -1])  # ranks 2, 1, 1, 0, 1, none
    assert kept_rows(scores, answers, 0.5).tolist() == [False, True, True, True, False, False]  # floor(0.5 * 5) = 2 wrong rows
    assert kept_rows(scores, answers, 0.99).tolist() == [True, True, True, True, True, False]  # without an answer: last


def test_equal_scores_rank_equal_so_that_constant_answers_all_count_as_correct() -> None:
    assert kept_rows(torch.zeros(3, 4), torch.tensor([0, 1, 3]), 0.0).all()


def test_the_same_embeddings_on_both_sides_give_no_self_supervised_loss() -> None:
    logits, embedding = rows(1), rows(2)
    terms = sskd_losses(rows(3), logits, embedding, embedding, torch.arange(6) % 5)
    assert terms["ss"].abs() < 1e-14  # float64 rounding
    assert terms["tf"] > 0.1


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_the_order_of_the_images_changes_nothing(share: float) -> None:
    values, labels = [rows(seed) for seed in range(4)], torch.arange(6) % 5
    order = torch.randperm(6, generator=torch.Generator().manual_seed(5))
    shuffled = [value.unflatten(0, (6, 4))[order].flatten(0, 1) for value in values]
    # Shares between 0 and 1 would cut among wrong rows of equal rank, of which the earlier is kept.
    before, after = (
        sskd_losses(*given, images, keep=(share, share)) for given, images in ((values, labels), (shuffled, labels[order]))
    )  # fmt: skip
    for name, value in before.items():
        assert torch.allclose(value, after[name], rtol=1e-12), name  # order of summation in float64


def test_an_empty_selection_gives_zero_with_a_graph() -> None:
    student, teacher = rows(0).requires_grad_(), rows(1)
    labels = teacher[::4].argmin(dim=1)
    teacher[torch.arange(24), labels.repeat_interleave(4)] = -100.0  # the teacher is wrong on every row
    embedding = rows(2).requires_grad_()
    wrong_images = torch.eye(6, dtype=torch.float64).repeat_interleave(4, dim=0)
    wrong_images[torch.arange(24) % 4 != 0] = wrong_images[::4].roll(1, 0).repeat_interleave(3, dim=0)  # each is taken for its neighbour
    terms = sskd_losses(student, teacher, embedding, wrong_images, labels, keep=(0.0, 0.0))
    (terms["tf"] + terms["ss"]).backward()
    assert (float(terms["tf"].detach()), float(terms["ss"].detach())) == (0.0, 0.0)
    assert student.grad is not None
    assert not student.grad.any()
    assert terms["kd"] > 0.1


def test_images_without_a_label_teach_all_but_the_cross_entropy() -> None:
    values, labels = [rows(seed) for seed in range(4)], torch.arange(6) % 5
    unlabelled = torch.where(torch.arange(6) < 3, labels, -1)
    all_labels, some, none = (sskd_losses(*values, given) for given in (labels, unlabelled, torch.full((6,), -1)))
    assert torch.allclose(some["ce"], nn.functional.cross_entropy(values[0][::4][:3], labels[:3]))
    assert none["ce"] == 0
    for name in ("kd", "tf", "ss"):
        assert torch.equal(none[name], all_labels[name])


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("scale", [0.0, 1e4])
def test_saturated_and_constant_answers_have_finite_losses_and_gradients(batch: int, scale: float) -> None:
    student, embedding = (rows(seed, batch).float().mul(scale).requires_grad_() for seed in (0, 1))
    terms = sskd_losses(student, -student.detach(), embedding, -embedding.detach(), torch.zeros(batch, dtype=torch.int64))
    terms["total"].backward()
    for value in (*terms.values(), student.grad, embedding.grad):
        assert value is not None
        assert value.isfinite().all()


def test_bfloat16_is_compared_in_float32_and_the_teacher_gets_no_gradient() -> None:
    values = [rows(seed).bfloat16() for seed in range(4)]
    logits, embedding = values[1].clone().requires_grad_(), values[3].clone().requires_grad_()
    terms = sskd_losses(values[0].requires_grad_(), logits, values[2].requires_grad_(), embedding, torch.arange(6) % 5)
    assert torch.equal(terms["total"], sskd_losses(*(value.float() for value in values), torch.arange(6) % 5)["total"])
    terms["total"].backward()
    assert logits.grad is None
    assert embedding.grad is None


def test_wrong_values_are_refused() -> None:
    values, labels = [rows(seed) for seed in range(4)], torch.arange(6) % 5
    with pytest.raises(ValueError, match="5 labels need 20 rows .* got 24"):
        sskd_losses(*values, labels[:5])
    with pytest.raises(ValueError, match="temperatures must be positive, got .4.0, 0.0, 0.5."):
        sskd_losses(*values, labels, temperatures=(4.0, 0.0, 0.5))
    with pytest.raises(ValueError, match="keep holds shares from 0 to 1, got .1.0, 1.5."):
        sskd_losses(*values, labels, keep=(1.0, 1.5))


def test_views_are_each_image_and_its_three_rotations_for_both_networks() -> None:
    images = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    student_rows, teacher_rows, shared = rotations(images, torch.arange(2))
    assert torch.equal(student_rows, teacher_rows)
    assert shared.tolist() == [True] * 8
    for sample in range(2):
        for view in range(4):
            expected = np.rot90(images[sample].permute(1, 2, 0).numpy(), view)  # as the authors' code rotates, [height, width, channels]
            assert np.array_equal(student_rows[4 * sample + view].permute(1, 2, 0).numpy(), expected)


def small_images(n: int, size: tuple[int, int] = (16, 16)) -> ImageSet:
    random = np.random.default_rng(7)
    labels = np.arange(n) % CLASSES
    images = random.integers(0, 200, (n, 3, *size), dtype=np.uint8)
    images[:, :, : size[0] // 2] += 50  # brighter above: which way is up can be seen
    return ImageSet(images, labels.astype(np.int64), np.arange(n).astype(str), tuple("abcd"))


def small_network(name: str, seed: int, size: tuple[int, int] = (16, 16)) -> Any:
    torch.manual_seed(seed)
    return build_network(name, CLASSES, size, settings={"width": 16, "depth": 2, "heads": 2} if name == "small/vit" else {})


def recipe(**settings: Any) -> TrainingConfig:
    return TrainingConfig(**{"epochs": 1, "batch_size": 5, "precision": "fp32", "threads": 1, "warmup_epochs": 0.0} | settings)


def test_images_that_are_not_square_are_refused_in_one_sentence() -> None:
    plugin, images = registry.get("method", "sskd"), small_images(4, (16, 8))
    student, teacher = (small_network("small/resnet8", seed, (16, 8)) for seed in (0, 1))
    with pytest.raises(SettingError, match="rotates images by 90 degrees, which must be square for it, and these are 16 x 8 pixels"):
        make_objective(plugin, {}, {}, student=student, teacher=teacher, images=images, rng=torch.Generator())


def test_the_teachers_head_learns_to_find_the_image_while_the_teacher_stays_bit_identical(tmp_path: Path) -> None:
    warm_up, images, teacher = registry.get("method", "sskd").facts["warm_up"], small_images(16), small_network("small/resnet8", 1)
    frozen(teacher)
    torch.manual_seed(2)
    head = warm_up.make(teacher, {"warm_up_epochs": 8})
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    objective = Objective(head, {"ss": 1.0}, Needs(student_taps=warm_up.taps), warm_up.views)
    published = recipe(threads=1, views="none", **{**warm_up.recipe({"warm_up_epochs": 8}), "warmup_epochs": 0.0, "batch_size": 8})
    training = Training(teacher, images, images, published, who=(0, "warm_up", 0), folder=tmp_path, objective=objective)
    history = training.run()
    assert [row.epoch for row in history] == list(range(1, 9))
    assert history[-1].terms["ss"] < history[0].terms["ss"]
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert len(training.main) == len(list(head.parameters())) == 4


def test_the_published_warm_up_is_a_recipe_that_a_training_takes() -> None:
    plugin = registry.get("method", "sskd")
    config = TrainingConfig(**plugin.facts["warm_up"].recipe(plugin.complete({})))
    assert (config.epochs, config.optimizer, config.learning_rate, config.momentum, config.weight_decay) == (60, "sgd", 0.05, 0.9, 5e-4)
    after = [learning_rate(config, step, 60) for step in (0, 29, 30, 44, 45, 59)]  # a step an epoch: a tenth at 30 and at 45
    assert after == pytest.approx([0.05, 0.05, 0.005, 0.005, 0.0005, 0.0005])


def test_the_warm_up_takes_neither_mixing_nor_colours_nor_erasing_nor_the_schedule_from_its_teacher() -> None:
    plugin = registry.get("method", "sskd")
    published = plugin.facts["warm_up"].recipe(plugin.complete({}))
    strong = {
        "mixup": 0.4, "cutmix": 1.0, "color": "rand_augment", "random_erasing": 0.3, "label_smoothing": 0.1, "schedule": "constant",
        "milestones": (0.1,), "warmup_epochs": 5.0, "clip_norm": 3.0, "accumulate": 2,
    }  # fmt: skip
    assert TrainingConfig(**{**strong, **published}) == TrainingConfig(**published)
    assert set(plugin.facts["warm_up"].settings) <= set(plugin.complete({}))


@pytest.mark.parametrize(("student_name", "teacher_name"), [("small/resnet8", "small/vit"), ("small/vit", "small/resnet8")])
def test_training_moves_the_first_layer_and_the_students_head_and_leaves_the_teachers_head(
    student_name: str, teacher_name: str, tmp_path: Path
) -> None:
    plugin, images = registry.get("method", "sskd"), small_images(10)
    student, teacher = small_network(student_name, 0), frozen(small_network(teacher_name, 1))
    warm = frozen(plugin.facts["warm_up"].make(teacher, plugin.complete({})))
    weights = published_weights(plugin, {})
    objective = make_objective(
        plugin, {}, weights, student=student, teacher=teacher, images=images, rng=torch.Generator(), warm=warm
    )  # fmt: skip
    # Weight decay would move parameters that no gradient reaches.
    training = Training(
        student, images, images, recipe(weight_decay=0.0), who=(0, "student", 0), folder=tmp_path, objective=objective, teacher=teacher
    )  # fmt: skip
    head = {name: value.clone() for name, value in objective.module.head.named_parameters()}
    warmed = {name: value.clone() for name, value in warm.state_dict().items()}
    first = next(student.parameters()).clone()
    history = training.run()
    assert weights == {"ce": 0.1, "kd": 0.9, "tf": 2.7, "ss": 10.0}
    assert set(history[0].terms) == set(weights)
    assert not torch.equal(first, next(student.parameters()))
    assert [name for name, value in objective.module.head.named_parameters() if torch.equal(value, head[name])] == []
    assert all(torch.equal(value, warmed[name]) for name, value in warm.state_dict().items())


@pytest.mark.parametrize("term", ["kd", "tf", "ss"])
def test_each_term_alone_gives_the_first_layer_a_gradient(term: str, tmp_path: Path) -> None:
    plugin, images = registry.get("method", "sskd"), small_images(4)
    student, teacher = small_network("small/resnet8", 0), frozen(small_network("small/vit", 1))
    warm = frozen(plugin.facts["warm_up"].make(teacher, plugin.complete({})))
    objective = make_objective(
        plugin, {}, published_weights(plugin, {}), student=student, teacher=teacher, images=images, rng=torch.Generator(), warm=warm
    )
    training = Training(
        student, images, images, recipe(batch_size=4), who=(0, "student", 0), folder=tmp_path, objective=objective, teacher=teacher
    )  # fmt: skip
    batch = training.batch(torch.arange(4), 0)
    seen, taught = student(batch.images, taps=("pooled",)), training.answers(batch)
    objective.function(batch, seen, taught)[term].backward()
    assert next(student.parameters()).grad.abs().sum() > 0
