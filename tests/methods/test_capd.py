"""CAPD: the paper's terms and the authors' release, its views, and training through the engine."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from crossdistill.core.errors import SettingError
from crossdistill.core.recipe import TrainingConfig
from crossdistill.core.registry import get
from crossdistill.core.types import Activations, Batch, Clock, FeatureMap, ImageSet
from crossdistill.methods._capd_modules import GroupedLinear
from crossdistill.methods._capd_terms import grouped_linear, release_attention, release_ramp
from crossdistill.methods._capd_views import CELLS, multi_view
from crossdistill.methods.capd import (
    capd_attention,
    capd_discriminator,
    capd_features,
    capd_generator,
    capd_release,
    capd_value,
)
from crossdistill.models._build import build_network
from crossdistill.ops.modes import frozen
from crossdistill.train.loop import Training
from crossdistill.train.objective import make_objective, published_weights
from crossdistill.train.optimizers import make_optimizer


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def projections(seed: int, **options: Any) -> list[torch.Tensor]:
    return [random(2, 3, 10, 4, seed=seed + k, **options) for k in range(3)]


def released(file: Any) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The released loss on the golden file's inputs, and those inputs of it that take a gradient."""
    inputs = {name: file.input(name, grad=True) for name in ("student_map", "logits_s", "token_s")}
    losses = capd_release(
        inputs["student_map"], inputs["logits_s"], file.input("logits_t"), inputs["token_s"], file.input("token_t"),
        file.input("feat_t"), file.input("teacher_q"), file.input("teacher_k"), file.input("teacher_v"), heads=file.setting("hp_heads"),
        qkv_weight=file.input("qkv_weight"), group_weight=file.input("gl_weight"), group_bias=file.input("gl_bias"),
    )  # fmt: skip
    return losses, inputs


def test_the_released_loss_and_its_gradients_are_the_reference(golden: Any) -> None:
    file = golden("capd_official")
    losses, inputs = released(file)
    file.check("pca_loss", losses["attention"])
    file.check("gl_loss", losses["features"])
    (losses["attention"] + losses["features"]).backward()
    for name, values in inputs.items():
        file.check(f"pca_plus_gl__grad_{name}", values.grad)


def test_the_group_wise_projection_is_the_reference(golden: Any) -> None:
    file = golden("capd_official")
    file.check("gl_out", grouped_linear(file.input("student_map"), file.input("gl_weight"), file.input("gl_bias")))
    groups = torch.eye(16, dtype=file.dtype)[:, :, None].expand(16, 16, 8)  # layer g answers only in channel g
    chosen = grouped_linear(torch.ones(1, 8, 14, 14, dtype=file.dtype), groups, torch.zeros(16, 16, dtype=file.dtype)).argmax(dim=2)
    assert torch.equal(chosen[0], file.input("gl_group_of_patch"))


def test_the_release_is_ramped_up_as_in_the_reference(golden: Any) -> None:
    file = golden("capd_official")
    ramp = [release_ramp(int(epoch)) for epoch in file.input("lambda_epochs")]
    assert ramp == pytest.approx(file.input("lambda_values").tolist())


def test_head_averaged_scores_are_those_of_a_loop_over_heads() -> None:
    student = [random(2, 10, 12, seed=k) for k in range(2)]
    teacher_q, teacher_k, _ = projections(5)
    by_head = [part.unflatten(-1, (2, 6)).transpose(1, 2) for part in student]
    scores = (by_head[0] @ by_head[1].mT / 6**0.5).mean(dim=1)
    expected = (scores - (teacher_q @ teacher_k.mT / 4**0.5).mean(dim=1)).square().mean()
    assert torch.allclose(release_attention(*student, teacher_q, teacher_k, heads=2), expected)


def test_the_attention_term_is_zero_where_all_is_the_teachers_and_follows_the_formula_where_nothing_is() -> None:
    student, teacher = projections(0), projections(7)
    everything = torch.ones(2, 3, 10, 4, dtype=torch.bool)
    assert capd_attention(*student, *teacher, replaced=(everything,) * 3) == 0
    written_out = [(q @ k.mT / 2).softmax(dim=-1) @ v for q, k, v in (student, teacher)]
    assert torch.allclose(capd_attention(*student, *teacher), (written_out[0] - written_out[1]).square().mean())
    nothing = ~everything
    assert torch.equal(capd_attention(*student, *teacher, replaced=(nothing,) * 3), capd_attention(*student, *teacher))


def test_replaced_elements_of_the_student_get_no_gradient() -> None:
    student = [values.requires_grad_() for values in projections(0)]
    masks = tuple(random(2, 3, 10, 4, seed=20 + k) > 0 for k in range(3))
    capd_attention(*student, *projections(7), replaced=masks).backward()
    for values, mask in zip(student, masks, strict=True):
        assert (values.grad[mask] == 0).all()
        assert (values.grad[~mask] != 0).all()


def test_the_value_term_follows_the_formula_head_by_head() -> None:
    student, teacher = random(2, 3, 10, 4, seed=1), random(2, 3, 10, 4, seed=2)
    grams = [torch.stack([v[b, h] @ v[b, h].T / 2 for b in range(2) for h in range(3)]) for v in (student, teacher)]
    assert torch.allclose(capd_value(student, teacher), (grams[0] - grams[1]).square().mean())
    assert capd_value(teacher, teacher) == 0


def test_discriminator_and_generator_are_binary_cross_entropies_and_survive_certainty() -> None:
    real, fake = random(3, 5, 1, seed=1), random(3, 5, 1, seed=2)
    loss = torch.nn.functional.binary_cross_entropy_with_logits
    expected = loss(real, torch.ones_like(real)) + loss(fake, torch.zeros_like(fake))
    assert torch.allclose(capd_discriminator(real, fake), expected)
    assert torch.allclose(capd_generator(fake), loss(fake, torch.ones_like(fake)))
    assert torch.allclose(capd_generator(fake, generator="saturating"), (1 - fake.sigmoid()).log().mean())
    sure = torch.full((2, 1), -1e4, requires_grad=True)
    capd_generator(sure).backward()
    assert torch.isfinite(sure.grad).all()
    assert (sure.grad != 0).all()  # where the saturating loss would teach nothing


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened(dtype: torch.dtype) -> None:
    student, teacher = projections(0, dtype=torch.float32), projections(7, dtype=torch.float32)
    narrow = [[values.to(dtype) for values in side] for side in (student, teacher)]
    assert capd_attention(*narrow[0], *narrow[1]).dtype == torch.float32
    assert torch.equal(capd_value(narrow[0][2], narrow[1][2]), capd_value(narrow[0][2].float(), narrow[1][2].float()))


def test_wrong_values_are_refused() -> None:
    q, k, v = projections(0)
    with pytest.raises(ValueError, match=r"one shape, got \(2, 3, 10, 4\) and \(2, 3, 9, 4\)"):
        capd_attention(q, k, v, q[:, :, 1:], k[:, :, 1:], v[:, :, 1:])
    with pytest.raises(ValueError, match="one shape"):
        capd_features(torch.zeros(1, 4, 2), torch.zeros(1, 1, 2))
    with pytest.raises(ValueError, match="non_saturating or saturating, got 'hinge'"):
        capd_generator(torch.zeros(1), generator="hinge")
    with pytest.raises(ValueError, match="8 x 6 grid has 2 x 2 neighbourhoods of 4 x 4, got 3 layers"):
        grouped_linear(torch.zeros(1, 2, 8, 6), torch.zeros(3, 5, 2), torch.zeros(3, 5))


def released_inputs() -> dict[str, Any]:
    """Two images, 6 channels and 4 x 4 positions of the student; 8 channels, 2 heads of 4 and a class token of the teacher."""
    q, k, v = (random(2, 2, 17, 4, seed=seed) for seed in range(3))
    return dict(
        student_map=random(2, 6, 4, 4), student_logits=random(2, 3), teacher_logits=random(2, 3, seed=1), student_token=random(2, 8),
        teacher_token=random(2, 8, seed=1), teacher_features=random(2, 16, 8), teacher_q=q, teacher_k=k, teacher_v=v, heads=3,
        qkv_weight=random(18, 6), group_weight=random(1, 8, 6), group_bias=random(1, 8),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (dict(heads=4), "heads must divide the student's 6 channels, got 4"),
        (dict(heads=0), "heads must divide the student's 6 channels, got 0"),
        (dict(teacher_token=random(2, 1)), r"one shape, got \(2, 8\) and \(2, 1\)"),
        (dict(teacher_logits=random(1, 3)), r"one shape, got \(2, 3\) and \(1, 3\)"),
        (dict(qkv_weight=random(36, 6)), r"qkv_weight must be \[3C, C\] of the student's 6 channels, got \(36, 6\)"),
        (dict(group_bias=random(1, 1)), r"needs bias \[groups, D\], got \(1, 8, 6\) and \(1, 1\)"),
        (dict(teacher_v=random(1, 2, 17, 4)), r"one shape, got \(2, 16, 16\) and \(1, 16, 16\)"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_the_released_loss_refuses_shapes_that_would_be_broadcast(wrong: dict[str, Any], match: str) -> None:
    assert all(loss.isfinite() for loss in capd_release(**released_inputs()).values())
    with pytest.raises(ValueError, match=match):
        capd_release(**{**released_inputs(), **wrong})


def test_the_optimiser_decays_the_grouped_layers_but_not_their_bias() -> None:
    layer = GroupedLinear(3, 5, (6, 9), dropout=0.0)
    groups = make_optimizer(list(layer.parameters()), TrainingConfig(weight_decay=0.05), modules=[layer]).param_groups
    decay = {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}
    assert (decay[id(layer.weight)], decay[id(layer.bias)]) == (0.05, 0.0)


def test_each_position_is_projected_by_the_layer_of_its_neighbourhood_on_a_grid_that_does_not_divide() -> None:
    torch.manual_seed(0)
    layer = GroupedLinear(3, 5, (6, 9), dropout=0.0)
    grid = random(2, 3, 6, 9, dtype=torch.float32)
    got = layer(grid).unflatten(1, (6, 9))
    for row, column in [(0, 0), (3, 4), (5, 8)]:
        group = (row // 4) * 3 + column // 4
        expected = grid[:, :, row, column] @ layer.weight[group].T + layer.bias.view(6, 5)[group]
        assert torch.allclose(got[:, row, column], expected, atol=1e-6)  # float32 sums of three


def noise_images(n: int = 64, size: tuple[int, int] = (20, 24)) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


KEYS = torch.arange(64) * 7919


@pytest.mark.parametrize("kind", ["bytes", "floats", "channels last"])
def test_views_keep_type_range_and_layout_and_positions_correspond(kind: str) -> None:
    images = noise_images()
    images = images.float() / 255 if kind == "floats" else images
    images = images.contiguous(memory_format=torch.channels_last) if kind == "channels last" else images
    before = images.clone()
    shown, taught, shared = multi_view(1.0)(images, KEYS)
    assert torch.equal(images, before)
    for rows in (shown, taught):
        assert rows.dtype == images.dtype
        assert rows.shape == images.shape
        assert rows.stride() == images.stride()
        assert 0 <= rows.min() <= rows.max() <= (1 if kind == "floats" else 255)
    assert shared.all()


def test_about_the_asked_share_is_transformed_and_each_image_by_its_key_alone() -> None:
    images = noise_images()
    shown, taught, _ = multi_view(0.5)(images, KEYS)
    changed = (shown != images).flatten(1).any(dim=1)
    assert 16 <= changed.sum() <= 48  # 32 expected, four standard deviations of a coin thrown 64 times
    again = multi_view(0.5)(images[40:50], KEYS[40:50])
    assert torch.equal(again[0], shown[40:50])
    assert torch.equal(again[1], taught[40:50])
    assert all(rows is images for rows in multi_view(0.0)(images, KEYS)[:2])


def test_the_teacher_sees_the_original_of_jittered_and_masked_images_and_the_student_what_it_sees_of_moved_ones() -> None:
    images = noise_images()
    shown, taught, _ = multi_view(1.0)(images, KEYS)
    moved = (taught != images).flatten(1).any(dim=1)
    assert torch.equal(shown[moved], taught[moved])
    assert torch.equal(taught[~moved], images[~moved])
    assert (shown[~moved] != taught[~moved]).flatten(1).any(dim=1).all()
    assert 16 <= moved.sum() <= 48  # two of four kinds


def test_a_masked_image_loses_whole_cells_and_keeps_the_others() -> None:
    images = torch.full((64, 3, 2 * CELLS, 2 * CELLS), 7, dtype=torch.uint8)
    shown, taught, _ = multi_view(1.0)(images, KEYS)
    masked = (shown == 128).flatten(1).any(dim=1) & (taught == images).flatten(1).all(dim=1)
    cells = (shown[masked] == 128).unfold(2, 2, 2).unfold(3, 2, 2).flatten(4)
    assert masked.sum() >= 4
    assert torch.equal(cells.any(dim=-1), cells.all(dim=-1))
    assert (shown[masked][shown[masked] != 128] == 7).all()
    assert 0.15 < cells.all(dim=-1).float().mean() < 0.35  # a quarter of at least 256 cells


def test_a_rotation_keeps_the_middle_of_an_image_that_is_not_square() -> None:
    images = torch.zeros(64, 3, 21, 33)
    images[:, :, 8:13, 14:19] = 1  # a square in the middle: rotated, still about as many bright pixels
    _, taught, _ = multi_view(1.0)(images, KEYS)
    moved = (taught != images).flatten(1).any(dim=1)
    bright = taught[moved].mean(dim=1).sum(dim=(1, 2))
    rotated = (bright - 25).abs() < 3  # a crop enlarges by up to 1 / 0.6^2 = 2.8
    assert rotated.sum() >= 4
    assert (taught[moved][rotated][:, :, 10, 16] > 0.9).all()


CLASSES = 3


def image_set(n: int) -> ImageSet:
    images = np.random.default_rng(0).integers(0, 256, (n, 3, 16, 16), dtype=np.uint8)
    return ImageSet(images, np.arange(n) % CLASSES, np.arange(n).astype(str), tuple("abc"))


def network(kind: str, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    settings = {"width": 16, "depth": 3, "heads": 2} if kind == "small/vit" else {}
    return build_network(kind, CLASSES, (16, 16), settings=settings)


def objective(student: Any, teacher: Any, images: ImageSet, **settings: Any) -> Any:
    plugin = get("method", "capd")
    weights = published_weights(plugin, settings)
    return make_objective(plugin, settings, weights, student=student, teacher=teacher, images=images, rng=torch.Generator())


def a_batch(n: int = 4, step: int = 5) -> Batch:
    images = torch.rand(n, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(n) % CLASSES
    targets = torch.nn.functional.one_hot(labels, CLASSES).float()
    return Batch(images, images, labels, targets, torch.arange(n), torch.ones(n, dtype=torch.bool), Clock(step, 10, 0, 1))


def answers(made: Any, student: Any, teacher: Any, batch: Batch) -> tuple[Activations, Activations]:
    with torch.no_grad():
        taught = teacher(batch.teacher_images, made.needs.teacher_taps)
    return student(batch.images, made.needs.student_taps), taught


@pytest.mark.parametrize("variant", ["paper", "release"])
@pytest.mark.parametrize("student_kind", ["small/resnet8", "small/vit"])
def test_training_moves_the_first_layer_every_projector_and_the_discriminator(tmp_path: Path, student_kind: str, variant: str) -> None:
    images = image_set(24)
    student, teacher = network(student_kind), frozen(network("small/vit", seed=9))
    made = objective(student, teacher, images, variant=variant)
    before = {name: value.clone() for name, value in made.module.named_parameters()}
    recipe = TrainingConfig(epochs=1, batch_size=8, precision="fp32", threads=1, learning_rate=1e-2, weight_decay=0.0)
    training = Training(student, images, image_set(6), recipe, who=(0, "student", 0), folder=tmp_path, objective=made, teacher=teacher)
    first = next(student.parameters()).clone()
    history = training.run()
    assert not torch.equal(first, next(student.parameters()))
    for name, value in made.module.named_parameters():
        assert not torch.equal(before[name], value), f"{name} did not move"
    assert set(history[0].terms) == set(made.weights) | ({"discriminate"} if variant == "paper" else set())


def test_the_terms_without_labels_reach_the_students_first_layer() -> None:
    student, teacher = network("small/resnet8"), frozen(network("small/vit", seed=9))
    made = objective(student, teacher, image_set(6))
    batch = a_batch()
    terms = made.function(batch, *answers(made, student, teacher, batch))
    first = next(student.parameters())
    for name, term in terms.items():
        (gradient,) = torch.autograd.grad(term, [first], retain_graph=True)
        assert gradient.abs().sum() > 0, name


def test_the_discriminators_step_leaves_the_student_alone_and_the_students_step_the_discriminator() -> None:
    student, teacher = network("small/resnet8"), frozen(network("small/vit", seed=9))
    made = objective(student, teacher, image_set(6))
    module, batch = made.module, a_batch()
    seen = answers(made, student, teacher, batch)
    module(batch, *seen)
    sum(module.adversary(batch, *seen).values()).backward()
    others = [*student.parameters(), *made.auxiliary_parameters()]
    assert all(p.grad is None for p in others)
    assert all(p.grad.abs().sum() > 0 for p in made.adversary_parameters())
    module.zero_grad(set_to_none=True)
    made.weighted(module(batch, *seen), batch.clock).backward(inputs=others)  # as the engine does
    assert all(p.grad is None for p in made.adversary_parameters())
    assert all(p.grad.abs().sum() > 0 for p in made.auxiliary_parameters())


def test_replacing_and_dropout_are_drawn_afresh_in_training_and_absent_outside_it() -> None:
    student, teacher = network("small/resnet8").eval(), frozen(network("small/vit", seed=9))
    made = objective(student, teacher, image_set(6))
    batch = a_batch()
    seen = answers(made, student, teacher, batch)
    term = lambda name: float(made.function(batch, *seen)[name].detach())  # noqa: E731
    made.module.train()
    assert term("attention") != term("attention")
    assert term("features") != term("features")
    assert term("value") == term("value")  # of the student's own values
    made.module.eval()
    assert term("attention") == term("attention")
    assert term("features") == term("features")


def test_the_discriminator_judges_a_few_positions_in_training_and_all_outside_it() -> None:
    module = objective(network("small/resnet8"), frozen(network("small/vit", seed=9)), image_set(6)).module
    features = torch.arange(40.0).view(1, 40, 1).expand(2, 40, 3)
    drawn = [module.train().judged(features)[0, :, 0] for _ in range(2)]
    assert all(len(set(positions.tolist())) == 8 for positions in drawn)
    assert set(drawn[0].tolist()) != set(drawn[1].tolist())
    assert module.eval().judged(features) is features


@pytest.mark.parametrize("fill", [0.0, 1e4, -1e4])
@pytest.mark.parametrize("n", [1, 3])
def test_extreme_and_constant_features_give_finite_losses_and_gradients(fill: float, n: int) -> None:
    student, teacher = network("small/resnet8"), frozen(network("small/vit", seed=9))
    made = objective(student, teacher, image_set(6))
    made.module.train()
    batch = a_batch(n)
    batch.labels[0], batch.targets[0] = -1, 0
    _, taught = answers(made, student, teacher, batch)
    (stage,) = made.needs.student_taps
    grid = torch.full((n, *student.shapes()[stage]), fill, requires_grad=True)
    logits = torch.full((n, CLASSES), fill, requires_grad=True)
    seen = Activations(logits, stages={stage: FeatureMap(grid)})
    total = made.weighted(made.function(batch, seen, taught), batch.clock)
    total.backward()
    assert torch.isfinite(total)
    assert torch.isfinite(grid.grad).all()
    assert torch.isfinite(sum(made.module.adversary(batch, seen, taught).values()))


def test_prefix_tokens_of_the_teacher_do_not_count() -> None:
    student, teacher = network("small/resnet8").eval(), frozen(network("small/vit", seed=9))
    made = objective(student, teacher, image_set(6))
    made.module.eval()
    batch = a_batch()
    seen, taught = answers(made, student, teacher, batch)
    other = Activations(
        taught.logits,
        stages=taught.stages,
        attention={name: torch.cat([values[:, :, :1] + 5, values[:, :, 1:]], dim=2) for name, values in taught.attention.items()},
    )
    terms = [made.function(batch, seen, answer) for answer in (taught, other)]
    assert all(torch.equal(terms[0][name], terms[1][name]) for name in terms[0])


def test_the_stage_nearest_to_the_teachers_grid_is_read_and_brought_to_it() -> None:
    student, teacher = network("small/resnet8"), frozen(network("small/vit", seed=9))
    teacher_grid = teacher.shapes()["last"][1:]
    made = objective(student, teacher, image_set(6))
    assert made.needs.student_taps == ("stage4",)
    assert student.shapes()["stage4"][1:] == teacher_grid == (4, 4)
    torch.manual_seed(0)
    finer = frozen(build_network("small/vit", CLASSES, (16, 16), settings={"width": 16, "depth": 3, "heads": 2, "input_size": 24}))
    made = objective(student, finer, image_set(6))  # 6 x 6 between the student's 4 x 4 and 8 x 8
    batch = a_batch()
    seen, taught = answers(made, student, finer, batch)
    assert made.module.pair.student_map(seen).shape[2:] == (6, 6)
    assert all(torch.isfinite(term) for term in made.function(batch, seen, taught).values())


def test_a_teacher_without_attention_over_its_patches_is_refused() -> None:
    with pytest.raises(
        SettingError, match=r"attends over all its patches \(a ViT\), by attention that .* alone determine \(no windows, masks or"
    ):
        objective(network("small/vit"), frozen(network("small/resnet8")), image_set(6))


def test_the_release_has_its_own_weights_no_views_and_no_adversary() -> None:
    student, teacher = network("small/resnet8"), frozen(network("small/vit", seed=9))
    made = objective(student, teacher, image_set(6), variant="release")
    assert made.views is None
    assert made.adversary is None
    assert made.weights == {"ce": 1.0, "attention": 0.2, "value": 0.05, "features": 0.05, "logits": 1.0, "token": 1.0}
    early, late = a_batch(step=0), a_batch(step=5)
    seen = answers(made, student, teacher, early)
    terms = [made.function(batch, *seen) for batch in (early, late)]
    assert all(value == 0 for name, value in terms[0].items() if name != "ce")
    assert all(value > 0 for value in terms[1].values())


@pytest.mark.parametrize("setting", [{"generator": "saturating"}, {"view_probability": 0.2}])
def test_what_only_the_paper_reads_is_refused_in_the_release(setting: dict[str, Any]) -> None:
    student, teacher = network("small/resnet8"), frozen(network("small/vit", seed=9))
    with pytest.raises(SettingError, match=f"`{next(iter(setting))}` belongs to variant paper"):
        objective(student, teacher, image_set(6), variant="release", **setting)
    objective(student, teacher, image_set(6), **setting)


def test_the_release_objective_is_the_released_function_on_the_networks_answers() -> None:
    student, teacher = network("small/resnet8").eval(), frozen(network("small/vit", seed=9))
    made = objective(student, teacher, image_set(6), variant="release")
    module, batch = made.module.eval(), a_batch(step=9)
    seen, taught = answers(made, student, teacher, batch)
    token = taught.stages["last"].prefix[:, 0]
    expected = capd_release(
        seen.stages["stage4"].grid, seen.logits, taught.logits, module.token(seen.pooled), token,
        taught.stages["last"].grid.flatten(2).mT, *taught.attention.values(), heads=module.heads, qkv_weight=module.qkv.weight,
        group_weight=module.group_linear.weight, group_bias=module.group_linear.bias.view(1, -1),
    )  # fmt: skip
    terms = module(batch, seen, taught)
    got = sum(made.weights[name] * term for name, term in terms.items() if name != "ce")
    torch.testing.assert_close(got, release_ramp(108) * sum(expected.values()), rtol=1e-5, atol=0)  # float32 sums in another order
