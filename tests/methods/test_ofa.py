"""OFA-KD: the loss, the branches, and the objective in the real loop."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from crossdistill.core import registry
from crossdistill.core.errors import SettingError
from crossdistill.core.recipe import TrainingConfig
from crossdistill.core.types import Activations, Batch, Clock, FeatureMap, ImageSet
from crossdistill.methods._ofa_branches import CnnBranch, TokenBranch, make_branch
from crossdistill.methods.ofa import _needs, ofa_loss
from crossdistill.models._build import build_network
from crossdistill.ops.layouts import grid_from_tokens
from crossdistill.ops.modes import frozen
from crossdistill.ops.network import Network
from crossdistill.train.loop import Training
from crossdistill.train.objective import make_objective, published_weights

CLASSES = 5


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("temperature", [1, 2])
@pytest.mark.parametrize("eps", [1, 1.2, 1.5])
def test_loss_and_gradient_are_the_reference(golden: Any, eps: float, temperature: int) -> None:
    file = golden("ofa")
    student = file.input("logits_s", grad=True)
    loss = ofa_loss(student, file.input("logits_t"), file.input("target"), eps=eps, temperature=temperature)
    loss.backward()
    file.check(f"eps{eps}_T{temperature}__loss", loss)
    file.check(f"eps{eps}_T{temperature}__grad_logits_s", student.grad)


def cnn_stage3() -> torch.nn.Module:
    return CnnBranch(3, (8, 4, 4), width=16, n_classes=CLASSES)


def cnn_stage4() -> torch.nn.Module:
    return CnnBranch(4, (16, 2, 2), width=16, n_classes=CLASSES)


def vit_stage4() -> torch.nn.Module:
    return TokenBranch(4, (8, 14, 14), width=8, n_classes=CLASSES, n_prefix=1, has_class_token=True)


@pytest.mark.parametrize("make", [cnn_stage3, cnn_stage4, vit_stage4])
def test_a_branch_with_the_references_weights_answers_as_the_reference(golden: Any, make: Any) -> None:
    file, case = golden("ofa_projector"), make.__name__
    branch = make()
    states = [file.input(name) for name in file.arrays if name.startswith(f"{case}__state__")]
    branch.load_state_dict(dict(zip(branch.state_dict(), states, strict=True)))  # equal order, other names
    branch.to(file.dtype).train()
    features = file.input(f"{case}__x", grad=True)
    answer = branch(grid_from_tokens(features, (14, 14), n_prefix=1) if case == "vit_stage4" else FeatureMap(features))
    answer.square().sum().backward()
    file.check(f"{case}__y", answer)
    file.check(f"{case}__grad_x_of_sum_y2", features.grad)


def test_eps_of_one_is_the_soft_cross_entropy_whatever_the_label() -> None:
    student, teacher = torch.randn(2, 4, 6, dtype=torch.float64, generator=generator())
    expected = torch.nn.functional.cross_entropy(student, teacher.softmax(dim=1))
    for labels in (torch.arange(4), torch.full((4,), -1)):
        # float64 rounding of (p + 1) - 1, and the order of a sum of 24
        assert torch.allclose(ofa_loss(student, teacher, labels), expected, rtol=1e-14)


def test_an_unlabelled_image_has_no_class_enhanced() -> None:
    student, teacher = torch.randn(2, 1, 4, dtype=torch.float64, generator=generator())
    p, log_p = teacher.softmax(dim=1), student.log_softmax(dim=1)
    assert torch.allclose(ofa_loss(student, teacher, torch.tensor([-1]), eps=2.0), -(p**2 * log_p).sum())
    # By hand, label 1: (p_1 + 1)^2 - 1 = p_1^2 + 2 p_1, so 2 p_1 more than without a label.
    assert torch.allclose(ofa_loss(student, teacher, torch.tensor([1]), eps=2.0), -(p**2 * log_p).sum() - 2 * (p * log_p)[0, 1])


def test_a_student_saturated_on_the_wrong_class_has_a_finite_loss_and_gradient() -> None:
    student = torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
    loss = ofa_loss(student, -student.detach(), torch.tensor([1]), eps=1.5)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(2e4 * (2**1.5 - 1), rel=1e-6)  # float32; log softmax would be -inf as log(softmax)
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_bfloat16_logits_are_compared_in_float32_and_teachers_get_no_gradient() -> None:
    student, teacher = torch.randn(2, 3, 4, generator=generator()).bfloat16()
    taught = teacher.clone().requires_grad_()
    loss = ofa_loss(student.requires_grad_(), taught, torch.tensor([0, 1, 2]), eps=1.5)
    assert torch.equal(loss, ofa_loss(student.float(), teacher.float(), torch.tensor([0, 1, 2]), eps=1.5))
    loss.backward()
    assert taught.grad is None


def test_wrong_values_are_refused() -> None:
    logits, labels = torch.zeros(2, 3), torch.tensor([0, 1])
    with pytest.raises(ValueError, match="temperature must be positive, got 0"):
        ofa_loss(logits, logits, labels, temperature=0.0)
    with pytest.raises(ValueError, match="eps must be positive, got 0"):
        ofa_loss(logits, logits, labels, eps=0.0)


@pytest.mark.parametrize(
    "labels",
    [torch.tensor([[0], [1]]), torch.eye(3, dtype=torch.int64)[:2], torch.tensor([0]), torch.tensor([0, 3]), torch.tensor([0.0, 1.0])],
    ids=["a column", "one-hot", "too few", "no such class", "no integers"],
)
def test_labels_that_do_not_fit_are_refused(labels: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="labels must be"):
        ofa_loss(torch.zeros(2, 3), torch.zeros(2, 3), labels)


def test_a_class_that_both_sides_mask_counts_as_if_it_were_not_there() -> None:
    student, teacher = torch.randn(2, 3, 4, dtype=torch.float64, generator=generator())
    hidden = torch.full((3, 1), -torch.inf, dtype=torch.float64)
    masked = torch.cat([student, hidden], dim=1).requires_grad_()
    loss = ofa_loss(masked, torch.cat([teacher, hidden], dim=1), torch.tensor([0, 1, -1]), eps=1.5)
    (gradient,) = torch.autograd.grad(loss, masked)
    assert torch.allclose(loss, ofa_loss(student, teacher, torch.tensor([0, 1, -1]), eps=1.5), rtol=1e-12)  # float64 rounding
    assert gradient.isfinite().all()


def answered(branch: torch.nn.Module, shape: tuple[int, ...], *, batch: int = 2, n_prefix: int = 0) -> Any:
    prefix = torch.randn(batch, n_prefix, shape[0], generator=generator()) if n_prefix else None
    return branch(FeatureMap(torch.randn(batch, *shape, generator=generator()), prefix))


@pytest.mark.parametrize(("stage", "shape", "n_halvings"), [(1, (4, 32, 32), 3), (1, (4, 3, 5), 3), (1, (4, 2, 2), 1), (2, (4, 1, 1), 0)])
def test_a_cnn_branch_halves_the_grid_only_as_far_as_it_goes(stage: int, shape: tuple[int, ...], n_halvings: int) -> None:
    branch = CnnBranch(stage, shape, width=12, n_classes=CLASSES)
    strided = [module for module in branch.modules() if isinstance(module, torch.nn.Conv2d) and module.stride == (2, 2)]
    assert len(strided) == n_halvings
    assert [module.in_channels for module in strided] == [4, 8, 16][:n_halvings]
    assert answered(branch, shape).shape == (2, CLASSES)


def test_one_image_on_one_position_passes_batch_normalisation_in_train_mode_and_leaves_its_statistics() -> None:
    branch = CnnBranch(3, (4, 2, 2), width=6, n_classes=CLASSES).train()  # halved to one position
    before = {name: value.clone() for name, value in branch.named_buffers()}
    assert answered(branch, (4, 2, 2), batch=1).isfinite().all()
    assert all(torch.equal(value, before[name]) for name, value in branch.named_buffers())
    answered(branch, (4, 2, 2), batch=2)
    assert not all(torch.equal(value, before[name]) for name, value in branch.named_buffers())


def test_batch_normalisation_of_more_than_one_value_is_torchs_own() -> None:
    branch = make_branch(
        "cnn", 3, (4, 4, 4), student_width=6, teacher_width=5, n_classes=CLASSES, n_prefix=0, has_class_token=False
    ).train()
    features = torch.randn(2, 4, 4, 4, generator=generator())
    after_first_norm = branch[0][:3](features)  # type: ignore[index]
    assert torch.allclose(after_first_norm.mean(dim=(0, 2, 3)), torch.zeros(4), atol=1e-6)  # float32 mean of 8 values


@pytest.mark.parametrize(
    ("side", "merges", "n_tokens"), [(56, 3, 49), (14, 1, 49), (16, 2, 16), (8, 1, 16), (7, 0, 49), (2, 0, 4), (37, 0, 49), (18, 1, 49)]
)
def test_a_token_branch_ends_on_at_most_seven_positions_a_side(side: int, merges: int, n_tokens: int) -> None:
    branch = TokenBranch(3, (8, side, side), width=8, n_classes=CLASSES, n_prefix=1, has_class_token=True)
    seen: list[int] = []
    branch.blocks.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape[1]))
    assert answered(branch, (8, side, side), n_prefix=1).shape == (2, CLASSES)
    assert (len(branch.merge), seen) == (merges, [n_tokens + 1])


def test_a_grid_that_is_not_square_is_merged_while_both_sides_are_even_and_then_averaged() -> None:
    branch = TokenBranch(4, (8, 4, 30), width=8, n_classes=CLASSES, n_prefix=0, has_class_token=False)
    seen: list[int] = []
    branch.blocks.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape[1]))
    answered(branch, (8, 4, 30))
    assert (len(branch.merge), seen) == (1, [2 * 7])  # 4 x 30, merged to 2 x 15, averaged to 2 x 7


@pytest.mark.parametrize(("n_prefix", "side"), [(0, 8), (0, 4), (2, 8), (2, 4)])
def test_a_stage_of_another_width_than_the_pooled_vector_is_widened_with_its_prefix(n_prefix: int, side: int) -> None:
    branch = TokenBranch(
        4, (6, side, side), width=10, n_classes=CLASSES, n_prefix=n_prefix, has_class_token=n_prefix > 0
    )  # 10: two heads, 4 do not divide it
    answered(branch, (6, side, side), n_prefix=n_prefix).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in branch.parameters())


@pytest.mark.parametrize(("stage", "n_blocks"), [(1, 3), (2, 2), (3, 1), (4, 1)])
def test_an_earlier_stage_of_tokens_goes_through_more_blocks_of_the_students_width(stage: int, n_blocks: int) -> None:
    branch = make_branch("token", stage, (8, 7, 7), student_width=12, teacher_width=40, n_classes=CLASSES, n_prefix=1, has_class_token=True)
    assert len(branch.blocks) == n_blocks  # type: ignore[arg-type]
    assert branch.head.in_features == 12  # type: ignore[union-attr]
    assert {block.attn.num_heads for block in branch.blocks} == {4}  # type: ignore[union-attr]
    assert all(block.attn.qkv.bias is None for block in branch.blocks)  # type: ignore[union-attr]


@pytest.mark.parametrize("stage", [1, 2, 3, 4])
@pytest.mark.parametrize(("student", "teacher"), [(12, 40), (40, 12)])
def test_a_branch_of_maps_ends_on_the_wider_of_the_two_pooled_vectors(stage: int, student: int, teacher: int) -> None:
    branch = make_branch(
        "cnn", stage, (4, 16, 16), student_width=student, teacher_width=teacher, n_classes=CLASSES, n_prefix=0, has_class_token=False
    )
    assert isinstance(branch[-1], torch.nn.Linear)  # type: ignore[index]
    assert branch[-1].in_features == 40  # type: ignore[index]


def test_the_last_of_several_merges_has_no_activation() -> None:
    one, three = (TokenBranch(4, (8, side, side), width=8, n_classes=CLASSES, n_prefix=0, has_class_token=False) for side in (14, 56))
    kinds = [[type(merge.activation).__name__ for merge in branch.merge] for branch in (one, three)]  # type: ignore[union-attr]
    assert kinds == [["GELU"], ["GELU", "GELU", "Identity"]]


def test_the_head_reads_the_class_token_alone_where_there_is_one() -> None:
    branch = TokenBranch(4, (8, 2, 2), width=8, n_classes=CLASSES, n_prefix=2, has_class_token=True)
    tokens = torch.zeros(1, 6, 8)
    with torch.no_grad():
        for parameter in branch.blocks.parameters():
            parameter.zero_()  # residual blocks of zeros: the tokens come out as they went in
        tokens[0, 0] = torch.arange(8.0)
        tokens[0, 1:] = 100.0
        assert torch.allclose(branch(grid_from_tokens(tokens, (2, 2), n_prefix=2)), branch.head(torch.arange(8.0)[None]))


def test_the_head_reads_the_mean_of_the_patches_where_the_prefix_is_of_registers_alone() -> None:
    branch = TokenBranch(4, (8, 2, 2), width=8, n_classes=CLASSES, n_prefix=1, has_class_token=False)
    tokens = torch.cat([torch.full((1, 1, 8), 100.0), torch.arange(8.0).expand(1, 4, 8)], dim=1)
    with torch.no_grad():
        for parameter in branch.blocks.parameters():
            parameter.zero_()  # residual blocks of zeros: the tokens come out as they went in
        assert torch.equal(branch(grid_from_tokens(tokens, (2, 2), n_prefix=1)), branch.head(torch.arange(8.0)[None]))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, True),
        ({"reg_tokens": 1}, True),
        ({"class_token": False, "reg_tokens": 1, "global_pool": "avg"}, False),
        ({"class_token": False, "global_pool": "avg"}, False),
    ],
    ids=["class", "class and register", "register", "none"],
)
def test_a_register_token_is_no_class_token(options: dict[str, Any], expected: bool) -> None:
    from timm.models.vision_transformer import VisionTransformer

    model = VisionTransformer(img_size=16, patch_size=4, num_classes=CLASSES, embed_dim=8, depth=4, num_heads=2, **options)
    student = Network(model, CLASSES, (16, 16))
    objective = made_for(student, frozen(small_network("small/resnet8", 1)), small_images(4), stages=(4,))
    assert objective.module.branches["stage4"].has_class_token == expected


def test_stages_that_repeat_and_an_eps_that_does_not_fit_them_are_refused() -> None:
    plugin = registry.get("method", "ofa")
    shapes = {"logits": (CLASSES,), "pooled": (8,), "images": (3, 16, 16)}
    assert _needs(plugin.complete({"stages": [2, 4], "eps": [1, 1.5, 2]}), shapes, shapes).student_taps == ("stage2", "stage4")
    refusal = _needs(plugin.complete({"eps": [1.0, 1.5]}), shapes, shapes).refusal
    assert refusal == "`eps` is one number, or one for each of the 4 stages and a last one for the logits, got 2."
    assert _needs(plugin.complete({"stages": [4, 4]}), shapes, shapes).refusal == "`stages` names each stage once, got 4, 4."
    with pytest.raises(SettingError, match="stages"):
        plugin.complete({"stages": [5]})


def small_images(n: int) -> ImageSet:
    random = np.random.default_rng(3)
    labels = np.arange(n) % CLASSES
    images = random.integers(0, 256, (n, 3, 16, 16), dtype=np.uint8)
    return ImageSet(images, labels.astype(np.int64), np.arange(n).astype(str), tuple("abcde"))


def small_network(name: str, seed: int) -> Any:
    torch.manual_seed(seed)
    settings = {"width": 16, "depth": 4, "heads": 2, "patch": 2} if name == "small/vit" else {}
    return build_network(name, CLASSES, (16, 16), settings=settings)


def batch_of(images: ImageSet, labels: torch.Tensor) -> Batch:
    pixels, n = torch.from_numpy(images.images), len(labels)
    targets = torch.nn.functional.one_hot(labels.clamp(min=0), CLASSES).float()
    return Batch(pixels, pixels, labels, targets, torch.arange(n), torch.ones(n, dtype=torch.bool), Clock(0, 1, 0, 1))


def made_for(student: Any, teacher: Any, images: ImageSet, **settings: Any) -> Any:
    plugin = registry.get("method", "ofa")
    weights = published_weights(plugin, settings)
    return make_objective(plugin, settings, weights, student=student, teacher=teacher, images=images, rng=torch.Generator())


def test_eps_of_each_stage_and_of_the_logits_reaches_its_own_term() -> None:
    images, student, teacher = small_images(4), small_network("small/resnet8", 0), frozen(small_network("small/vit", 1))
    objective = made_for(student, teacher, images, stages=(3, 4), eps=(1.5, 1.0, 2.0)).module
    taught = Activations(torch.randn(4, CLASSES, generator=generator()))
    logits, answers = torch.randn(4, CLASSES), [torch.randn(4, CLASSES), torch.randn(4, CLASSES)]
    for name, answer in zip(objective.branches, answers, strict=True):
        objective.branches[name].forward = lambda feature_map, answer=answer: answer
    labels = torch.arange(4)
    stages = {name: FeatureMap(torch.zeros(0)) for name in ("stage3", "stage4")}
    terms = objective(batch_of(images, labels), Activations(logits, stages=stages), taught)
    assert torch.equal(terms["kd"], ofa_loss(logits, taught.logits, labels, eps=2.0))
    expected = ofa_loss(answers[0], taught.logits, labels, eps=1.5) + ofa_loss(answers[1], taught.logits, labels, eps=1.0)
    assert torch.equal(terms["ofa"], expected)


@pytest.mark.parametrize(("student_name", "teacher_name"), [("small/resnet8", "small/vit"), ("small/vit", "small/resnet8")])
def test_a_step_in_the_loop_reaches_the_first_layer_and_moves_every_branch(student_name: str, teacher_name: str, tmp_path: Path) -> None:
    images, student, teacher = small_images(10), small_network(student_name, 0), frozen(small_network(teacher_name, 1))
    objective = made_for(student, teacher, images)
    recipe = TrainingConfig(epochs=1, batch_size=5, precision="fp32", threads=1, weight_decay=0.0, warmup_epochs=0.0)
    training = Training(student, images, images, recipe, who=(0, "student", 0), folder=tmp_path, objective=objective, teacher=teacher)
    before = {name: value.clone() for name, value in objective.module.named_parameters()}
    first = next(parameter for parameter in student.parameters() if parameter.requires_grad).clone()
    history = training.run()
    assert set(history[0].terms) == {"ce", "kd", "ofa"}
    assert not torch.equal(first, next(parameter for parameter in student.parameters() if parameter.requires_grad))
    assert [name for name, value in objective.module.named_parameters() if torch.equal(value, before[name])] == []


def test_the_last_stages_branch_alone_gives_the_first_layer_a_gradient() -> None:
    images, student, teacher = small_images(2), small_network("small/vit", 0), frozen(small_network("small/resnet8", 1))
    objective = made_for(student, teacher, images, stages=(4,)).module
    seen, taught = student(torch.from_numpy(images.images), taps=("stage4",)), teacher(torch.from_numpy(images.images))
    objective(batch_of(images, torch.tensor([0, -1])), seen, taught)["ofa"].backward()
    assert student.model.patch_embed.proj.weight.grad.abs().sum() > 0
