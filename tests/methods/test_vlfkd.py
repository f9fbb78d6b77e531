"""VLFKD: C2VKD's terms against the authors' code, the seed notebook's against its own, and what was put in place of what is missing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from crossdistill.core import registry
from crossdistill.core.errors import SettingError
from crossdistill.core.recipe import TrainingConfig
from crossdistill.core.types import Activations, Batch, Clock, FeatureMap, ImageSet
from crossdistill.methods._vlfkd_seed import Seed, vlfkd_seed_losses
from crossdistill.methods._vlfkd_terms import AttentionPool, gram_distance, gram_rows, target_and_rest, target_kl, token_kl, unit_rows
from crossdistill.methods.vlfkd import C2VKD, c2vkd_losses, patch_loss
from crossdistill.models._build import build_network
from crossdistill.ops.losses import cross_entropy
from crossdistill.ops.modes import frozen
from crossdistill.train.loop import Training
from crossdistill.train.objective import make_objective, method_weights, published_weights

VLFKD = registry.get("method", "vlfkd")
FEATURES = ("global", "patch", "linguistic")


def values(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def seed_losses(
    student_map: Tensor, teacher_map: Tensor, student_logits: Tensor, teacher_logits: Tensor, labels: Tensor
) -> dict[str, Tensor]:
    n_student, n_teacher = student_map.shape[1], teacher_map.shape[1]
    projections = [values(n_student, n_teacher, seed=s, dtype=torch.float32) for s in (10, 11)]
    aligns = [(values(5, n, seed=n, dtype=torch.float32), torch.zeros(5)) for n in (n_teacher, n_student)]
    return vlfkd_seed_losses(
        student_map, teacher_map, student_logits, teacher_logits, labels,
        global_projection=projections[0], patch_projection=projections[1], teacher_align=aligns[0], student_align=aligns[1],
    )  # fmt: skip


def batch_of(labels: Tensor, n_classes: int) -> Batch:
    images = torch.zeros(len(labels), 3, 4, 4)
    targets = F.one_hot(labels.clamp(min=0), n_classes) * (labels >= 0)[:, None]
    shared = torch.ones(len(labels), dtype=torch.bool)
    return Batch(images, images, labels, targets.float(), torch.arange(len(labels)), shared, Clock(0, 1, 0, 1))


@pytest.mark.parametrize(
    ("term", "stored", "weight"), [("global", "gb_loss", 0.1), ("patch", "loss_graph", 0.1), ("linguistic", "language", 0.5)]
)
def test_c2vkds_terms_are_the_authors_with_their_weights(golden: Any, term: str, stored: str, weight: float) -> None:
    file = golden("c2vkd_official")
    student = file.input("f_s", grad=True)
    assert VLFKD.facts["weights"]({"mode": "c2vkd"})[term] == weight
    loss = weight * c2vkd_losses(student, file.input("f_t"), pool_weight=file.input("linguistic_weight"))[term]
    loss.backward()
    file.check(stored, loss)
    file.check(f"{stored}__grad_f_s", student.grad)


def test_the_seeds_terms_and_gradients_are_the_notebooks(golden: Any) -> None:
    file = golden("vlfkd_seed")
    student_map, student_logits = file.input("f_s", grad=True), file.input("logits_s", grad=True)
    losses = vlfkd_seed_losses(
        student_map, file.input("f_t"), student_logits, file.input("logits_t"), file.input("target"),
        global_projection=file.input("proj_global"), patch_projection=file.input("proj_patch"),
        teacher_align=(file.input("align_t_weight"), file.input("align_t_bias")),
        student_align=(file.input("align_s_weight"), file.input("align_s_bias")),
    )  # fmt: skip
    losses["total"].backward()
    for term, loss in losses.items():
        file.check("global_" if term == "global" else term, loss)
    file.check("total__grad_f_s", student_map.grad)
    file.check("total__grad_logits_s", student_logits.grad)
    published = VLFKD.facts["weights"]({"mode": "seed"})
    assert losses["total"].item() == pytest.approx(sum(published[term] * losses[term].item() for term in losses if term != "total"))


def test_equal_maps_have_no_feature_loss() -> None:
    feature_map = values(3, 6, 4, 4)
    for loss in c2vkd_losses(feature_map, feature_map, pool_weight=values(5, 6, seed=1)).values():
        assert loss.abs() < 1e-15  # float64 rounding


@pytest.mark.parametrize(("n_positions", "n_channels"), [(5, 9), (9, 5), (6, 6), (1, 4), (4, 1)])
def test_the_gram_distance_is_that_of_the_two_matrices_on_either_route(n_positions: int, n_channels: int) -> None:
    student, teacher = values(2, n_positions, n_channels), values(2, n_positions, n_channels, seed=1)
    matrices = [rows @ rows.mT / max(n_channels - 1, 1) for rows in (student, teacher)]
    assert torch.allclose(gram_distance(student, teacher), (matrices[0] - matrices[1]).square().mean(), rtol=1e-12)


def test_the_gram_distance_keeps_its_digits_as_the_student_comes_near() -> None:
    teacher = values(400, 8)
    student = teacher + 1e-4 * values(400, 8, seed=1)
    exact = gram_distance(student, teacher)
    single = gram_distance(student.float(), teacher.float())
    # The inputs' own rounding is 1e-3 of their difference; by |S'S|^2 - 2|S'T|^2 + |T'T|^2 not one digit would be left.
    assert float(abs(single - exact) / exact) < 1e-2


def test_patches_are_compared_within_images_by_default_and_across_them_as_published() -> None:
    student, teacher = values(3, 7, 2, 3), values(3, 7, 2, 3, seed=1)
    one_by_one = [patch_loss(student[i : i + 1], teacher[i : i + 1], gram="batch") for i in range(3)]
    assert torch.allclose(patch_loss(student, teacher, gram="image"), torch.stack(one_by_one).mean(), rtol=1e-12)
    assert not torch.allclose(patch_loss(student, teacher, gram="batch"), patch_loss(student, teacher, gram="image"), rtol=1e-2)


def test_the_gram_matrix_is_one_of_unit_rows_less_their_mean() -> None:
    row = gram_rows(torch.tensor([3.0, 4.0]).view(1, 2, 1, 1))[0, 0]
    assert torch.allclose(row, torch.tensor([-0.1, 0.1]))  # [0.6, 0.8] less 0.7


def test_half_teacher_half_label_is_the_kl_to_their_mixture() -> None:
    student, teacher, labels = values(4, 5).requires_grad_(), values(4, 5, seed=1), torch.tensor([0, 1, 2, 3])
    ours = 0.5 * target_kl(student, teacher, labels) + 0.5 * cross_entropy(student, F.one_hot(labels, 5).double())
    mixture = 0.5 * target_and_rest(teacher, labels).exp() + 0.5 * torch.tensor([1.0, 0.0])
    (expected,) = torch.autograd.grad(-(mixture * target_and_rest(student, labels)).sum(dim=1).mean(), student)
    assert torch.allclose(torch.autograd.grad(ours, student)[0], expected, atol=1e-12)


def test_the_decoupled_loss_by_hand() -> None:
    # p(target) = 1/2 for the student, 3/4 for the teacher: 3/4 log 3/2 + 1/4 log 1/2.
    student, teacher = torch.tensor([[2.0, 1.0, 1.0]]).log(), torch.tensor([[6.0, 1.0, 1.0]]).log()
    expected = 0.75 * np.log(1.5) + 0.25 * np.log(0.5)
    assert target_kl(student, teacher, torch.tensor([0])).item() == pytest.approx(expected, rel=1e-6)
    with pytest.raises(ValueError, match="at least 2 classes, got 1"):
        target_kl(student[:, :1], teacher[:, :1], torch.tensor([0]))


def test_unlabelled_images_do_not_count_in_the_decoupled_losses() -> None:
    student, teacher, labels = values(4, 5), values(4, 5, seed=1), torch.tensor([3, -1, 0, -1])
    some = labels >= 0
    assert torch.allclose(target_kl(student, teacher, labels), target_kl(student[some], teacher[some], labels[some]))
    assert target_kl(student, teacher, torch.full((4,), -1)) == 0
    maps = (values(4, 3, 2, 2, dtype=torch.float32), values(4, 4, 2, 2, dtype=torch.float32))
    student, teacher = student.float(), teacher.float()
    seen = seed_losses(*(m[some] for m in maps), student[some], teacher[some], labels[some])["decoupled"]
    assert torch.allclose(seed_losses(*maps, student, teacher, labels)["decoupled"], seen)


def test_identical_positions_are_pooled_to_themselves_and_the_pool_reads_all_of_them() -> None:
    pool = AttentionPool(6, 4, torch.Generator().manual_seed(0)).double()
    position = values(2, 6)
    flat = position[:, :, None, None].expand(2, 6, 3, 2)
    expected = F.layer_norm(position, (6,)) @ pool.weight.T
    assert torch.allclose(pool(flat), expected, atol=1e-12)
    feature_map = values(1, 6, 3, 2, seed=1).requires_grad_()
    pool(feature_map).square().sum().backward()
    assert feature_map.grad is not None
    assert (feature_map.grad.abs().sum(dim=1) > 0).all()


def test_the_pool_is_frozen_drawn_from_the_generator_and_of_unit_scale() -> None:
    pools = [AttentionPool(64, 512, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4)]
    assert list(pools[0].parameters()) == []
    assert torch.equal(pools[0].weight, pools[1].weight)
    assert not torch.equal(pools[0].weight, pools[2].weight)
    embedding = pools[0](1000 * values(4, 64, 1, 1, dtype=torch.float32))
    assert 0.8 < embedding.std() < 1.2  # one position, so nothing averages out: unit scale whatever the network's; 2048 draws
    assert "never released" in pools[0].provenance


def test_a_temperature_below_one_is_what_makes_the_comparison_of_unit_vectors_act() -> None:
    student, teacher = values(50, 512).requires_grad_(), values(50, 512, seed=1)
    gradients = [torch.autograd.grad(token_kl(student, teacher, temperature=t), student)[0].norm() for t in (1.0, 0.07)]
    assert token_kl(student, teacher).item() == pytest.approx(1 / 512, rel=0.1)
    assert gradients[1] > 50 * gradients[0]  # about 1 / 0.07^2, as the softmax is nearly linear


def test_taken_by_position_the_terms_are_the_usual_kl_and_a_gram_matrix_of_cosines() -> None:
    torch.manual_seed(0)
    made = C2VKD(4, 6, torch.Generator(), gram="image", reduction="positions", dim=8, temperature=1.0).double()
    grids = [values(2, 4, 3, 3), values(2, 6, 3, 3, seed=1)]
    student, teacher = (Activations(values(2, 5), stages={"last": FeatureMap(grid)}) for grid in grids)
    terms = made(batch_of(torch.tensor([2, 0]), 5), student, teacher)
    projected = made.projection(grids[0])
    p, q = (m.permute(0, 2, 3, 1).reshape(18, 6).softmax(dim=1) for m in (grids[1], projected))
    assert torch.allclose(terms["global"], (p * (p / q).log()).sum(dim=1).mean(), rtol=1e-9)
    gram = [rows @ rows.mT for rows in (gram_rows(projected), gram_rows(grids[1]))]
    assert torch.allclose(terms["patch"], (gram[0] - gram[1]).square().mean(), rtol=1e-9)
    p, q = made.pool(grids[1]).softmax(dim=1), made.pool(projected).softmax(dim=1)
    assert torch.allclose(terms["linguistic"], (p * (p / q).log()).sum(dim=1).mean(), rtol=1e-9)


@pytest.mark.parametrize("scale", [0.0, 1e-8, 1e4], ids=["dead", "faint", "saturated"])
@pytest.mark.parametrize("n_images", [1, 3])
@pytest.mark.parametrize("mode", ["c2vkd", "seed"])
def test_loss_and_gradient_are_finite(mode: str, scale: float, n_images: int) -> None:
    torch.manual_seed(0)
    # Batch of 1, other grids and widths on both sides, logits of +-1e4, and rows without a label.
    made = {
        "c2vkd": lambda: C2VKD(4, 6, torch.Generator(), gram="batch", reduction="positions", dim=8, temperature=0.1),
        "seed": lambda: Seed(4, 6, dim=8, temperature=0.1),
    }
    grids = [(scale * values(n_images, 4, 3, 5, dtype=torch.float32)).requires_grad_(), values(n_images, 6, 7, 2, dtype=torch.float32)]
    logits = [(scale * values(n_images, 5, seed=1, dtype=torch.float32)).requires_grad_(), -1e4 * torch.eye(5)[:n_images]]
    student, teacher = (Activations(z, stages={"last": FeatureMap(grid)}) for z, grid in zip(logits, grids, strict=True))
    terms = made[mode]()(batch_of(torch.tensor([2, -1, 0])[:n_images], 5), student, teacher)
    for loss in terms.values():
        assert loss.isfinite()
    for gradient in torch.autograd.grad(torch.stack(list(terms.values())).sum(), [grids[0], logits[0]]):
        assert gradient.isfinite().all()
        assert gradient.abs().max() < 1e8  # a dead position must not throw the student away


def test_a_dead_position_has_a_bounded_gradient() -> None:
    row = torch.zeros(1, 3, requires_grad=True)
    unit_rows(row).sum().backward()
    assert row.grad is not None
    assert row.grad.abs().max() <= 1


@pytest.mark.parametrize("scale", [1.0, 1e-8, 1e-11])
def test_rows_are_normalised_as_the_authors_do_however_short(scale: float) -> None:
    rows = scale * values(4, 6)
    assert torch.allclose(unit_rows(rows), F.normalize(rows, dim=-1), rtol=1e-12)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_is_taken_as_float32(half: torch.dtype) -> None:
    student, teacher, weight = (values(*shape, seed=s).to(half) for s, shape in enumerate([(2, 4, 3, 3), (2, 4, 3, 3), (5, 4)]))
    logits, labels = values(2, 5, seed=4).to(half), torch.tensor([1, 2])
    for losses in (
        lambda cast: c2vkd_losses(cast(student), cast(teacher), pool_weight=cast(weight)),
        lambda cast: seed_losses(cast(student), cast(teacher), cast(logits), cast(logits.flip(0)), labels),
    ):
        answers: dict[str, Tensor] = losses(lambda tensor: tensor)
        references = losses(Tensor.float)
        for term, value in answers.items():
            assert value.dtype == torch.float32
            assert torch.equal(value, references[term])


def test_maps_of_two_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"share channels and grid: student \(1, 2, 4, 4\), teacher \(1, 2, 2, 4\)"):
        c2vkd_losses(torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 2, 4), pool_weight=torch.zeros(3, 2))


def test_labels_maps_and_projections_that_would_be_broadcast_are_refused() -> None:
    maps = [values(6, 3, 2, 2).float(), values(6, 4, 2, 2).float()]
    logits, labels = [values(6, 5), values(6, 5, seed=1)], torch.zeros(6, dtype=torch.int64)
    with pytest.raises(ValueError, match="labels must be 6 integer classes, one for each image"):
        seed_losses(*maps, *logits, labels[:1])
    with pytest.raises(ValueError, match="labels must be 6 integer classes, one for each image"):
        target_kl(*logits, labels[:3])
    with pytest.raises(ValueError, match=r"of one shape, got \(6, 5\) and \(6, 1\)"):
        seed_losses(*maps, logits[0], logits[1][:, :1], labels)
    with pytest.raises(ValueError, match="of the same images, got 6, 1 maps and 6 rows"):
        seed_losses(maps[0], maps[1][:1], *logits, labels)
    projection, aligns = torch.zeros(3, 4), [(torch.zeros(5, 4), torch.zeros(5)), (torch.zeros(5, 3), torch.zeros(5))]
    with pytest.raises(ValueError, match=r"\(3, 4\), got \(1, 4\)"):
        vlfkd_seed_losses(
            *maps, *logits, labels,
            global_projection=projection[:1], patch_projection=projection, teacher_align=aligns[0], student_align=aligns[1],
        )  # fmt: skip


def images(n: int, seed: int) -> ImageSet:
    pixels = np.random.default_rng(seed).integers(0, 256, (n, 3, 16, 16), dtype=np.uint8)
    return ImageSet(pixels, np.arange(n) % 3, np.arange(n).astype(str), tuple("abc"))


def network(family: str, seed: int) -> Any:
    torch.manual_seed(seed)
    if family == "cnn":
        return build_network("small/resnet8", 3, (16, 16))
    return build_network("small/vit", 3, (16, 16), settings={"width": 16, "depth": 3, "heads": 2})


@pytest.fixture
def training_of(tmp_path: Path) -> Callable[..., Training]:
    def make(pair: str, settings: dict[str, Any], **recipe: Any) -> Training:
        teacher, student = frozen(network(pair.split(" to ")[0], 1)), network(pair.split(" to ")[1], 0)
        # The method's own feature terms alone: the logits must not be what moves the first layer.
        weights = method_weights(published_weights(VLFKD, settings), weight=1.0, weights={"ce": 0.0, "decoupled": 0.0})
        rng = torch.Generator().manual_seed(0)
        made = make_objective(VLFKD, settings, weights, student=student, teacher=teacher, images=images(20, 1), rng=rng)
        chosen = {"epochs": 1, "batch_size": 8, "accumulate": 3, "precision": "fp32", "threads": 1, "learning_rate": 1e-2} | recipe
        return Training(
            student, images(20, 1), images(9, 2), TrainingConfig(**chosen), who=(0, "student", 0), folder=tmp_path,
            objective=made, teacher=teacher,
        )  # fmt: skip

    return make


@pytest.mark.parametrize("pair", ["cnn to vit", "vit to cnn"])
@pytest.mark.parametrize(
    "settings", [{}, {"gram": "batch", "linguistic_dim": 8, "linguistic_temperature": 0.5, "reduction": "positions"}, {"mode": "seed"}]
)
def test_the_features_teach_the_first_layer_and_only_the_students_projection_is_trained(
    training_of: Callable[..., Training], pair: str, settings: dict[str, Any]
) -> None:
    training = training_of(pair, settings, weight_decay=0.0)  # else decay alone would move them
    first = next(parameter for parameter in training.network.parameters() if parameter.ndim == 4)
    module = training.objective.module
    assert module is not None
    trained = training.objective.auxiliary_parameters()
    before = [first.detach().clone(), *(p.detach().clone() for p in trained)]
    fixed = {name: value.clone() for name, value in module.state_dict().items() if name not in ("projection.weight", "patch_projection")}
    history = training.run()
    assert set(history[0].terms) == {"ce", "decoupled", *FEATURES}
    for old, parameter in zip(before, [first, *trained], strict=True):
        assert not torch.equal(old, parameter)
    assert len(trained) == (0 if settings.get("mode") == "seed" else 1)
    assert len(fixed) == (5 if settings.get("mode") == "seed" else 1)
    for name, value in fixed.items():
        assert torch.equal(module.state_dict()[name], value), name


def test_the_seeds_patch_projection_is_drawn_anew_once_for_each_optimiser_step(training_of: Callable[..., Training]) -> None:
    training = training_of("cnn to vit", {"mode": "seed"})
    module: Any = training.objective.module
    seen: list[Tensor] = []
    module.register_forward_pre_hook(lambda module, inputs: seen.append(module.patch_projection.clone()))
    training.run()
    assert len(seen) == 6  # two steps of three micro-batches
    assert all(torch.equal(seen[0], other) for other in seen[1:3])
    assert not torch.equal(seen[2], seen[3])
    assert seen[3].abs().max() <= 64**-0.5  # as torch initialises a linear layer of 64 inputs


def test_maps_of_a_single_position_are_refused_unless_images_are_compared_with_one_another() -> None:
    ask: Any = VLFKD.facts["needs"]
    settings = VLFKD.complete({})
    assert "teacher's last map is a single position" in ask(settings, {"last": (8, 4, 4)}, {"last": (64, 1, 1)}).refusal
    assert "student's last map is a single position" in ask(settings, {"last": (8, 1, 1)}, {"last": (64, 4, 4)}).refusal
    assert ask({**settings, "gram": "batch"}, {"last": (8, 1, 1)}, {"last": (64, 1, 1)}).refusal is None


@pytest.mark.parametrize("setting", [{"gram": "batch"}, {"reduction": "positions"}])
def test_what_only_c2vkd_reads_is_refused_in_mode_seed(setting: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match=rf"'vlfkd' cannot be used here: `{next(iter(setting))}` belongs to mode c2vkd"):
        make_objective(
            VLFKD, {"mode": "seed", **setting}, {}, student=network("vit", 0), teacher=network("cnn", 1),
            images=images(4, 0), rng=torch.Generator(),
        )  # fmt: skip


def test_the_random_pool_is_noted_once_where_it_is_used() -> None:
    student, teacher = network("vit", 0), network("cnn", 1)
    VLFKD.function(student, teacher, images(4, 0), torch.Generator(), mode="seed")
    assert student.notes == []
    for _ in range(2):
        VLFKD.function(student, teacher, images(4, 0), torch.Generator())
    assert student.notes == [f"vlfkd's linguistic term pools by random weights: the pool was {AttentionPool.provenance}."]
