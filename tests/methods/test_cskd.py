"""CSKD: dense predictions of a CNN for the patch tokens of a ViT."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from crossdistill.core import registry
from crossdistill.core.errors import SettingError
from crossdistill.core.recipe import TrainingConfig
from crossdistill.core.types import Activations, Batch, Clock, ImageSet
from crossdistill.methods.cskd import cskd_losses, decay_at, dense_loss
from crossdistill.models._build import build_network
from crossdistill.ops.modes import frozen
from crossdistill.ops.network import Network
from crossdistill.train.loop import Training
from crossdistill.train.objective import make_objective, plugin_needs, published_weights

VIT = {"width": 16, "depth": 2, "heads": 2}
CASES = {
    "hard_linear_e0": ("linear", 0, {}),
    "hard_linear_e150": ("linear", 150, {}),
    "hard_linear_e299": ("linear", 299, {}),
    "hard_x2_e100": ("x2", 100, {}),
    "hard_cos_e100": ("cosine", 100, {}),
    "soft_linear_e150_tau1": ("linear", 150, dict(kind="soft")),
    "soft_linear_e150_tau2": ("linear", 150, dict(kind="soft", temperature=2.0)),
    "mixed_harddeit_softdense_e30_a0.3_w0.7_tau3": ("linear", 30, dict(dense_kind="soft", alpha=0.3, weight=0.7, temperature=3.0)),
}


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("case", CASES)
def test_losses_and_gradients_are_the_reference(golden: Any, case: str) -> None:
    file, (schedule, epoch, settings) = golden("cskd"), CASES[case]
    inputs = {name: file.input(name, grad=True) for name in ("logits_cls", "logits_dist", "dense_s")}
    decay = decay_at(epoch / file.setting("decay_max_epoch"), schedule)
    losses = cskd_losses(*inputs.values(), file.input("dense_t"), file.input("target"), decay=decay, **settings)
    losses["total"].backward()
    for name, loss in losses.items():
        file.check(f"{case}__{name}", loss)
    for name, key in {"cls": "logits_cls", "dist": "logits_dist", "dense_s": "dense_s"}.items():
        file.check(f"{case}__grad_{name}", inputs[key].grad)


@pytest.mark.parametrize(("schedule", "key"), [("linear", "linear"), ("x2", "x2"), ("cosine", "cos")])
def test_the_decay_is_the_references(golden: Any, schedule: Any, key: str) -> None:
    arrays = golden("cskd").arrays
    values = [decay_at(epoch / arrays["decay_max_epoch"].item(), schedule) for epoch in arrays["decay_epochs"].tolist()]
    np.testing.assert_allclose(values, arrays[f"decay_{key}"], rtol=1e-9)  # float64, from the other order of operations


def test_heads_dense_logits_and_prediction_are_those_of_the_reference_vit(golden: Any) -> None:
    file = golden("cskd")
    tokens = torch.cat([file.input("vit_cls_token")[:, None], file.input("vit_dist_token")[:, None], file.input("vit_patch_tokens")], dim=1)
    network = Network(VisionTransformer(img_size=16, patch_size=4, num_classes=7, embed_dim=12, depth=4, num_heads=2), 7, (16, 16))
    registry.get("method", "cskd").facts["prepare_student"](network, {})
    network.to(file.dtype).eval()
    for name, head in {"head": network.model.head, "head_dist": network.extra_heads["distillation"]}.items():
        head.weight.data, head.bias.data = file.input(f"vit_{name}_weight"), file.input(f"vit_{name}_bias")
    network.model._pos_embed = lambda embedded: tokens  # the reference's tokens, as they are after its last norm
    network.model.blocks, network.model.norm = nn.Sequential(*(nn.Identity() for _ in range(4))), nn.Identity()
    with torch.no_grad():
        seen = network(torch.zeros(3, 3, 16, 16, dtype=file.dtype), ["dense"])
    file.check("vit_train_cls", seen.heads["class"])
    file.check("vit_train_dist", seen.heads["distillation"])
    file.check("vit_train_dense", seen.dense["distillation"].flatten(2).transpose(1, 2).contiguous())
    file.check("vit_eval_logits", seen.logits)


def test_without_the_positions_own_share_every_target_is_the_teachers_decision() -> None:
    student, teacher = drawn(3, 5, 4, 4), drawn(3, 5, 4, 4, seed=1)
    answer = teacher.mean(dim=(2, 3))
    rows = student.movedim(1, -1).reshape(-1, 5)
    expected = torch.nn.functional.cross_entropy(rows, answer.argmax(dim=1).repeat_interleave(16))
    torch.testing.assert_close(dense_loss(student, teacher, answer, decay=0.0, kind="hard", temperature=1.0), expected)


def test_with_the_positions_whole_share_every_target_is_the_local_decision() -> None:
    student, teacher = drawn(3, 5, 4, 4), drawn(3, 5, 4, 4, seed=1)
    expected = torch.nn.functional.cross_entropy(student, teacher.argmax(dim=1))
    loss = dense_loss(student, teacher, drawn(3, 5, seed=2), decay=1.0, kind="hard", temperature=1.0)
    torch.testing.assert_close(loss, expected)


def test_the_mean_of_a_convolutional_teachers_dense_logits_is_its_answer() -> None:
    teacher = build_network("small/resnet8", 3, (16, 24)).eval()
    with torch.no_grad():
        seen = teacher(torch.rand(2, 3, 16, 24), ["dense"])
    torch.testing.assert_close(seen.dense["class"].mean(dim=(2, 3)), seen.logits)
    dense, logits, labels = torch.randn(2, 24, 3), torch.randn(2, 3), torch.tensor([0, 1])
    by_mean = cskd_losses(logits, logits, dense, seen.dense["class"], labels, grid=(4, 6), decay=0.5, kind="soft")
    given = cskd_losses(logits, logits, dense, seen.dense["class"], labels, grid=(4, 6), decay=0.5, kind="soft", teacher_logits=seen.logits)
    for name, loss in by_mean.items():
        torch.testing.assert_close(given[name], loss)


def test_the_teachers_true_answer_counts_where_its_head_is_not_affine() -> None:
    student, teacher, answer = drawn(1, 2, 2, 2), drawn(1, 2, 2, 2, seed=1), torch.tensor([[0.0, 9.0]])
    wanted = torch.nn.functional.cross_entropy(student, torch.ones(1, 2, 2, dtype=torch.int64))
    torch.testing.assert_close(dense_loss(student, teacher, answer, decay=0.1, kind="hard", temperature=1.0), wanted)


def test_the_finer_grid_is_averaged_down_to_the_coarser() -> None:
    fine, coarse, answer = drawn(2, 3, 4, 6), drawn(2, 3, 2, 3, seed=1), drawn(2, 3, seed=2)
    settings: Any = dict(decay=0.6, kind="soft", temperature=1.5)
    blocks = fine.view(2, 3, 2, 2, 3, 2).mean(dim=(3, 5))
    torch.testing.assert_close(dense_loss(fine, coarse, answer, **settings), dense_loss(blocks, coarse, answer, **settings))
    torch.testing.assert_close(dense_loss(coarse, fine, answer, **settings), dense_loss(coarse, blocks, answer, **settings))
    uneven = drawn(2, 3, 5, 4, seed=3)  # coarser in one direction, finer in the other
    assert dense_loss(fine, uneven, answer, **settings).isfinite()


def test_the_soft_loss_grows_with_the_number_of_positions() -> None:
    student, teacher, answer = drawn(2, 3, 2, 2), drawn(2, 3, 2, 2, seed=1), drawn(2, 3, seed=2)
    settings: Any = dict(decay=1.0, temperature=1.0)
    wider = [grid.repeat(1, 1, 1, 2) for grid in (student, teacher)]
    torch.testing.assert_close(
        dense_loss(*wider, answer, kind="soft", **settings), 2 * dense_loss(student, teacher, answer, kind="soft", **settings)
    )
    torch.testing.assert_close(
        dense_loss(*wider, answer, kind="hard", **settings), dense_loss(student, teacher, answer, kind="hard", **settings)
    )


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_saturated_and_constant_logits_give_finite_numbers(kind: Any) -> None:
    for value in (1e4, 0.0):
        grid = torch.full((1, 3, 2, 2), -value).index_fill(1, torch.tensor([0]), value).half()
        dense = grid.flip(1).flatten(2).transpose(1, 2).requires_grad_()
        losses = cskd_losses(grid[..., 0, 0], grid[..., 0, 0], dense, grid, torch.tensor([-1]), grid=(2, 2), decay=0.5, kind=kind)
        losses["total"].backward()
        assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())
        assert dense.grad is not None
        assert dense.grad.isfinite().all()


def test_wrong_settings_are_refused() -> None:
    logits, teacher, labels = torch.zeros(1, 2), torch.zeros(1, 2, 2, 2), torch.tensor([0])
    with pytest.raises(ValueError, match="decay is a share from 0 to 1, got 1.5"):
        cskd_losses(logits, logits, torch.zeros(1, 4, 2), teacher, labels, grid=(2, 2), decay=1.5)
    with pytest.raises(ValueError, match="5 tokens are not 0 prefix tokens and a 2 x 2 grid"):
        cskd_losses(logits, logits, torch.zeros(1, 5, 2), teacher, labels, grid=(2, 2), decay=1.0)
    with pytest.raises(ValueError, match="kind is 'hard' or 'soft', got 'firm'"):
        cskd_losses(logits, logits, torch.zeros(1, 4, 2), teacher, labels, grid=(2, 2), decay=1.0, dense_kind="firm")  # type: ignore[arg-type]


def test_bfloat16_is_widened_before_anything_is_averaged() -> None:
    given = [drawn(*shape, seed=seed).bfloat16() for seed, shape in enumerate([(4, 5), (4, 5), (4, 9, 5), (4, 5, 3, 3)])]
    settings: Any = dict(grid=(3, 3), decay=0.4, kind="soft")
    labels = torch.tensor([0, 4, -1, 2])
    wide = cskd_losses(*(values.float() for values in given), labels, **settings)
    for name, loss in cskd_losses(*given, labels, **settings).items():
        assert loss.dtype == torch.float32
        assert torch.equal(loss, wide[name]), name


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_shapes_that_would_be_broadcast_are_refused(kind: Any) -> None:
    logits, dense, teacher, labels = drawn(6, 3), drawn(6, 4, 3), drawn(6, 3, 2, 2), torch.zeros(6, dtype=torch.int64)
    settings: Any = dict(grid=(2, 2), decay=0.5, kind=kind)
    assert cskd_losses(logits, logits, dense, teacher, labels, **settings)["total"].isfinite()
    with pytest.raises(ValueError, match="labels must be 6 integer classes"):
        cskd_losses(logits, logits, dense, teacher, labels[:1], **settings)
    with pytest.raises(ValueError, match="of one shape"):
        cskd_losses(logits, logits, dense, drawn(6, 5, 2, 2), labels, **settings)
    for wrong in (drawn(6, 5, 2, 2), teacher[:1]):
        with pytest.raises(ValueError, match="must share images and classes"):
            dense_loss(drawn(6, 3, 2, 2), wrong, logits, decay=0.5, kind=kind, temperature=1.0)
    with pytest.raises(ValueError, match="must share images and classes"):
        dense_loss(drawn(6, 3, 2, 2), teacher, logits[:1], decay=0.5, kind=kind, temperature=1.0)


@pytest.mark.parametrize(
    ("settings", "refused"),
    [
        ({"temperature": 2.0}, True),
        ({"temperature": 2.0, "dense_kind": "hard"}, True),
        ({"temperature": 2.0, "dense_kind": "soft"}, False),
        ({"temperature": 2.0, "kind": "soft", "dense_kind": "hard"}, False),
        ({}, False),
    ],
)
def test_a_temperature_is_refused_where_nothing_is_softened(settings: dict[str, Any], refused: bool) -> None:
    plugin = registry.get("method", "cskd")
    answer = plugin.facts["needs"](plugin.complete(settings), {"dense": (3, 4, 4)}, {"dense": (3, 2, 2)}).refusal
    assert (answer is not None) == refused
    assert not refused or answer.startswith("`temperature` belongs to soft distillation")


def test_a_grid_of_a_single_position_is_refused() -> None:
    plugin = registry.get("method", "cskd")
    ask = lambda student, teacher: plugin.facts["needs"](plugin.complete({}), {"dense": student}, {"dense": teacher}).refusal  # noqa: E731
    assert "the teacher's last map is a single position" in ask((3, 4, 4), (3, 1, 1))
    assert "the student's last map is a single position" in ask((3, 1, 1), (3, 4, 4))
    assert ask((3, 1, 4), (3, 4, 4)) is None


def test_a_head_that_cannot_be_applied_to_one_position_is_refused() -> None:
    plugin = registry.get("method", "cskd")
    answer = plugin.facts["needs"](plugin.complete({}), {"dense": (3, 4, 4)}, {"pooled": (8,)})
    assert answer.refusal == "it compares logits at single positions, and the head of the teacher cannot be applied to one position"
    assert plugin.facts["needs"](plugin.complete({}), {"dense": (3, 4, 4)}, {"dense": (3, 2, 2)}).refusal is None


def test_a_student_that_was_not_prepared_is_refused() -> None:
    with pytest.raises(SettingError, match="method 'cskd' trains a distillation head, the student has class"):
        registry.get("method", "cskd").function(build_network("small/vit", 3, (16, 16), settings=VIT), None, None, None)


@pytest.mark.parametrize(("every", "decay"), [("epoch", 0.5), ("step", 0.25)])
def test_the_share_falls_with_each_epoch_or_with_each_step(every: str, decay: float) -> None:
    student = build_network("small/resnet8", 3, (16, 16))
    student.add_head("distillation")
    objective = registry.get("method", "cskd").function(student, None, None, None, decay_every=every)
    dense, teacher, logits = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4), torch.randn(2, 3)
    heads = {"class": logits, "distillation": logits}
    zeros = torch.zeros(2, dtype=torch.int64)
    batch = Batch(torch.zeros(2, 3, 8, 8), torch.zeros(2, 3, 8, 8), zeros, torch.eye(3)[:2], zeros, zeros.bool(), Clock(6, 8, 1, 2))
    terms = objective(batch, Activations(logits, heads=heads, dense={"distillation": dense}), Activations(logits, dense={"class": teacher}))
    torch.testing.assert_close(terms["cskd"], dense_loss(dense, teacher, logits, decay=decay, kind="hard", temperature=1.0))


def problem(n: int, seed: int) -> ImageSet:
    images = np.random.default_rng(seed).integers(0, 256, (n, 3, 16, 16), dtype=np.uint8)
    return ImageSet(images, np.arange(n, dtype=np.int64) % 3, np.arange(n).astype(str), tuple("abc"))


def networks(student: str) -> tuple[Any, Any]:
    """A student of one family, prepared, and a teacher of the other."""
    torch.manual_seed(0)
    made = {"vit": build_network("small/vit", 3, (16, 16), settings=VIT), "cnn": build_network("small/resnet8", 3, (16, 16))}
    registry.get("method", "cskd").facts["prepare_student"](made[student], {})
    return made[student], frozen(made["cnn" if student == "vit" else "vit"])


@pytest.mark.parametrize("student", ["vit", "cnn"])
@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_training_moves_the_first_layer_and_every_added_parameter(tmp_path: Path, student: str, kind: str) -> None:
    network, teacher = networks(student)
    plugin, images, settings = registry.get("method", "cskd"), problem(12, 1), {"kind": kind, "decay_every": "step"}
    weights = published_weights(plugin, settings)
    made = make_objective(plugin, settings, weights, student=network, teacher=teacher, images=images, rng=torch.Generator())
    before = {name: value.clone() for name, value in network.named_parameters()}
    recipe = TrainingConfig(epochs=1, batch_size=8, precision="fp32", threads=1, learning_rate=1e-2, weight_decay=0.0)
    history = Training(network, images, problem(3, 2), recipe, who=(0,), folder=tmp_path, objective=made, teacher=teacher).run()
    still = [name for name, value in network.named_parameters() if torch.equal(value, before[name])]
    assert not still
    assert ("model.reg_token" in before, len(network.notes)) == ((True, 0) if student == "vit" else (False, 1))
    assert set(history[0].terms) == {"ce", "deit", "cskd"}


def test_the_dense_term_alone_reaches_patches_and_distillation_head_but_not_the_class_head() -> None:
    network, teacher = networks("vit")
    shown = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        taught = teacher(shown, ["dense"])
    learns = network.train()(shown, ["dense"])
    dense_loss(learns.dense["distillation"], taught.dense["class"], taught.logits, decay=1.0, kind="hard", temperature=1.0).backward()
    assert network.model.head.weight.grad is None
    assert network.extra_heads["distillation"].weight.grad.abs().sum() > 0
    assert network.model.patch_embed.proj.weight.grad.abs().sum() > 0


def test_the_students_prediction_is_the_mean_of_three() -> None:
    network, _ = networks("vit")
    with torch.no_grad():
        seen = network.eval()(torch.rand(2, 3, 16, 16), ["dense"])
    three = [*seen.heads.values(), seen.dense["distillation"].mean(dim=(2, 3))]
    torch.testing.assert_close(seen.logits, torch.stack(three).mean(dim=0))


def test_the_weights_are_deits_shares_and_one() -> None:
    plugin = registry.get("method", "cskd")
    assert published_weights(plugin, {}) == {"ce": 0.5, "deit": 0.5, "cskd": 1.0}
    assert published_weights(plugin, {"alpha": 0.25}) == {"ce": 0.75, "deit": 0.25, "cskd": 1.0}


def test_what_it_reads_can_be_asked_before_the_student_is_prepared() -> None:
    student, teacher = build_network("small/vit", 3, (16, 16), settings=VIT), build_network("small/resnet8", 3, (16, 16))
    needs = plugin_needs(registry.get("method", "cskd"), {}, student, teacher, (16, 16))
    assert (needs.student_taps, needs.teacher_taps) == (("dense",), ("dense",))
