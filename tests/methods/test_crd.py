"""Contrastive representation distillation."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from crossdistill.core import registry
from crossdistill.core.errors import SettingError
from crossdistill.core.recipe import TrainingConfig
from crossdistill.core.types import Activations, Batch, Clock, ImageSet
from crossdistill.methods import _crd_memory
from crossdistill.methods._crd_memory import CRDMemory, candidate_scores
from crossdistill.methods.crd import OtherClasses, crd, crd_batch_losses
from crossdistill.models._build import build_network
from crossdistill.ops.modes import frozen
from crossdistill.train.loop import Training
from crossdistill.train.objective import make_objective


def units(n: int, dim: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(n, dim, generator=torch.Generator().manual_seed(seed)))


def memory_of(n_images: int = 30, dim: int = 8, *, n_negatives: int = 10, seed: int = 0, **settings: Any) -> CRDMemory:
    torch.manual_seed(seed)
    return CRDMemory(n_images, dim, n_negatives=n_negatives, **settings)


def candidates_of(index: torch.Tensor, n_images: int, n_negatives: int, seed: int = 0) -> torch.Tensor:
    negatives = torch.randint(n_images, (len(index), n_negatives), generator=torch.Generator().manual_seed(seed))
    return torch.cat([index[:, None], negatives], dim=1)


def buffers(memory: CRDMemory) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in memory.state_dict().items()}


@pytest.mark.parametrize("rows_per_candidate", [32, 0], ids=["one product", "rows"])
def test_two_steps_are_the_references(golden: Any, rows_per_candidate: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_crd_memory, "ROWS_PER_CANDIDATE", rows_per_candidate)
    file = golden("crd")
    n_images, dim = file.setting("hp_n_data"), file.setting("hp_feat_dim")
    memory = CRDMemory(
        n_images, dim, n_negatives=file.setting("hp_nce_k"), temperature=file.setting("hp_nce_t"), momentum=file.setting("hp_nce_m")
    ).to(file.dtype)
    memory.student_bank.copy_(file.input("init_contrast_memory_v1"))
    memory.teacher_bank.copy_(file.input("init_contrast_memory_v2"))
    for step in ("step1", "step2"):
        features = {side: file.input(f"{step}_f_{side}", grad=True) for side in "st"}
        embeds = {side: [file.input(f"init_embed_{side}_linear_{kind}", grad=True) for kind in ("weight", "bias")] for side in "st"}
        rows = [F.normalize(F.linear(features[side], *embeds[side])) for side in "st"]
        candidates, temperature = file.input(f"{step}_contrast_idx"), memory.temperature
        banks = memory.teacher_bank, memory.student_bank
        scores = [candidate_scores(row.detach(), bank, candidates) for row, bank in zip(rows, banks, strict=True)]
        losses = memory(*rows, file.input(f"{step}_idx"), candidates)
        for side, products, z in zip("st", scores, (memory.z_student, memory.z_teacher), strict=True):
            file.check(f"{step}__out_{side}", (products / temperature).exp() / z)
        losses["total"].backward()
        file.check(f"{step}__loss", losses["total"])
        file.check(f"{step}__loss_s", losses["student"])
        file.check(f"{step}__loss_t", losses["teacher"])
        file.check(f"{step}__Z_v1", memory.z_student)
        file.check(f"{step}__Z_v2", memory.z_teacher)
        file.check(f"{step}__memory_v1_after", memory.student_bank)
        file.check(f"{step}__memory_v2_after", memory.teacher_bank)
        for side in "st":
            file.check(f"{step}__grad_f_{side}", features[side].grad)
            file.check(f"{step}__grad_embed_{side}_weight", embeds[side][0].grad)
            file.check(f"{step}__grad_embed_{side}_bias", embeds[side][1].grad)


def test_one_product_and_single_rows_score_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    anchor, bank = units(5, 8, 1), units(90, 8, 2)
    candidates = candidates_of(torch.arange(5), 90, 6)
    by_hand = torch.einsum("bd,bkd->bk", anchor, bank[candidates])
    for rows_per_candidate in (32, 0):
        monkeypatch.setattr(_crd_memory, "ROWS_PER_CANDIDATE", rows_per_candidate)
        assert torch.allclose(candidate_scores(anchor, bank, candidates), by_hand, atol=1e-6)  # float32 sums of 8


def test_the_loss_starts_where_random_banks_put_it() -> None:
    # ln K + 1 + 1 / (2 d tau^2), each side. A positive's logit scatters by 1 / (tau sqrt(d)) = 0.9, the mean of 400 by 0.045.
    memory = memory_of(8000, 128, n_negatives=4096, temperature=0.1)
    index = torch.arange(400)
    losses = memory(units(400, 128, 1), units(400, 128, 2), index, candidates_of(index, 8000, 4096))
    expected = math.log(4096) + 1 + 1 / (2 * 128 * 0.1**2)
    assert abs(losses["student"].item() - expected) < 0.15
    assert abs(losses["teacher"].item() - expected) < 0.15


@pytest.mark.parametrize("temperature", [0.001, 0.07, 5.0])
def test_the_loss_and_its_gradient_are_finite_for_any_unit_embeddings(temperature: float) -> None:
    memory = memory_of(dim=2, temperature=temperature)
    index = torch.arange(4)
    for student in (units(4, 2, 1), torch.tensor([[1.0, 0.0]]).repeat(4, 1), torch.tensor([[-1.0, 0.0]]).repeat(4, 1)):
        student = student.clone().requires_grad_()
        loss = memory(student, torch.tensor([[1.0, 0.0]]).repeat(4, 1), index, candidates_of(index, 30, 10))["total"]
        loss.backward()
        assert loss.isfinite()
        assert student.grad is not None
        assert student.grad.isfinite().all()


def test_after_a_step_the_touched_rows_have_length_1_and_the_others_are_bit_identical() -> None:
    memory = memory_of()
    before = buffers(memory)
    index = torch.tensor([3, 17, 29])
    memory(units(3, 8, 1), units(3, 8, 2), index, candidates_of(index, 30, 10))
    for name in ("student_bank", "teacher_bank"):
        bank = memory.get_buffer(name)
        others = torch.ones(30, dtype=torch.bool).index_fill(0, index, False)
        assert torch.allclose(bank[index].norm(dim=1), torch.ones(3), atol=1e-6)  # float32 rounding
        assert torch.equal(bank[others], before[name][others])
        assert not torch.equal(bank[index], before[name][index])


def test_the_second_batch_uses_the_normalisers_of_the_first() -> None:
    memory = memory_of()
    index = torch.tensor([0, 1, 2])
    memory(units(3, 8, 1), units(3, 8, 2), index, candidates_of(index, 30, 10))
    first = buffers(memory)
    assert first["z_student"] > 0
    memory(units(3, 8, 3), units(3, 8, 4), index + 5, candidates_of(index + 5, 30, 10))
    assert torch.equal(memory.z_student, first["z_student"])
    assert torch.equal(memory.z_teacher, first["z_teacher"])


def test_with_z_momentum_the_normalisers_are_an_exponential_average() -> None:
    memory, index = memory_of(z_momentum=0.9), torch.tensor([0, 1, 2])
    estimates = []
    for seed in (1, 3):
        student, candidates = units(3, 8, seed), candidates_of(index, 30, 10, seed)
        scores = torch.einsum("bd,bkd->bk", student, memory.teacher_bank[candidates])
        estimates.append(30 * (scores / 0.07).exp().mean())
        memory(student, units(3, 8, seed + 1), index, candidates)
    assert torch.allclose(memory.z_student, 0.9 * estimates[0] + 0.1 * estimates[1])


def test_an_index_that_occurs_twice_keeps_its_last_row() -> None:
    twice, once = memory_of(), memory_of()
    student, teacher = units(3, 8, 1), units(3, 8, 2)
    index = torch.tensor([4, 9, 4])
    twice(student, teacher, index, candidates_of(index, 30, 10))
    once(student[1:], teacher[1:], index[1:], candidates_of(index[1:], 30, 10))
    assert torch.equal(twice.student_bank, once.student_bank)
    assert torch.equal(twice.teacher_bank, once.teacher_bank)


def test_without_update_the_banks_wait_for_all_parts_of_the_step() -> None:
    parts, index = memory_of(), torch.tensor([2, 5])
    before = buffers(parts)
    for seed in (1, 3):
        parts(units(2, 8, seed), units(2, 8, seed + 1), index + seed, candidates_of(index, 30, 10), update=False)
    assert torch.equal(parts.student_bank, before["student_bank"])
    parts.update()
    touched = (parts.student_bank != before["student_bank"]).any(dim=1).nonzero().flatten()
    assert touched.tolist() == [3, 5, 6, 8]


def test_in_eval_mode_nothing_moves() -> None:
    memory, index = memory_of().eval(), torch.arange(3)
    before = buffers(memory)
    memory(units(3, 8, 1), units(3, 8, 2), index, candidates_of(index, 30, 10))
    memory.update()
    assert all(torch.equal(value, before[name]) for name, value in memory.state_dict().items())


def test_banks_and_normalisers_survive_a_round_trip_through_the_state() -> None:
    memory, other, index = memory_of(seed=0), memory_of(seed=1), torch.arange(3)
    memory(units(3, 8, 1), units(3, 8, 2), index, candidates_of(index, 30, 10))
    assert set(memory.state_dict()) == {"student_bank", "teacher_bank", "z_student", "z_teacher"}
    other.load_state_dict(memory.state_dict())
    arguments = (units(3, 8, 3), units(3, 8, 4), index, candidates_of(index, 30, 10, 1))
    assert torch.equal(memory(*arguments)["total"], other(*arguments)["total"])
    assert torch.equal(memory.student_bank, other.student_bank)


def test_half_precision_is_promoted_and_a_single_image_works() -> None:
    memory, index = memory_of(), torch.tensor([7])
    student = units(1, 8, 1).half().requires_grad_()
    losses = memory(student, units(1, 8, 2).half(), index, candidates_of(index, 30, 10))
    losses["total"].backward()
    assert losses["total"].dtype == torch.float32
    assert losses["total"].shape == ()
    assert student.grad is not None
    assert student.grad.shape == (1, 8)
    assert memory.student_bank.shape == (30, 8)


def test_wrong_values_and_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="temperature positive"):
        CRDMemory(10, 4, n_negatives=3, temperature=0.0)
    with pytest.raises(ValueError, match=r"candidates must be of shape \(2, 11\) for 2 indices, got \(2, 4\)"):
        memory_of()(units(2, 8, 1), units(2, 8, 2), torch.arange(2), torch.zeros(2, 4, dtype=torch.int64))
    with pytest.raises(ValueError, match="temperature must be positive, got -1"):
        crd_batch_losses(units(2, 8, 1), units(2, 8, 2), torch.arange(2), temperature=-1)


@pytest.mark.parametrize("labels", [torch.tensor([[0], [1]]), torch.tensor([0]), torch.tensor([0.0, 1.0])])
def test_the_batch_form_refuses_labels_and_embeddings_that_do_not_fit(labels: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="labels must be 2 integer classes"):
        crd_batch_losses(units(2, 8, 1), units(2, 8, 2), labels)
    with pytest.raises(ValueError, match=r"\[batch, dim\] of the same images, got \(2, 8\) and \(1, 8\)"):
        crd_batch_losses(units(2, 8, 1), units(1, 8, 2), torch.arange(2))


def test_a_column_of_indices_is_refused() -> None:
    index = torch.arange(2)
    with pytest.raises(ValueError, match=r"index must be of shape \(2,\) for 2 indices, got \(2, 1\)"):
        memory_of()(units(2, 8, 1), units(2, 8, 2), index[:, None], candidates_of(index, 30, 10))


def test_with_float64_banks_and_embeddings_the_normalisers_are_float64_too() -> None:
    memory, index = memory_of(), torch.arange(3)
    memory.student_bank, memory.teacher_bank = memory.student_bank.double(), memory.teacher_bank.double()
    student, candidates = units(3, 8, 1).double(), candidates_of(index, 30, 10)
    expected = 30 * (torch.einsum("bd,bkd->bk", student, memory.teacher_bank[candidates]) / 0.07).exp().mean()
    memory(student, units(3, 8, 2).double(), index, candidates)
    assert memory.z_student.item() == pytest.approx(expected.item(), rel=1e-13)  # a float32 would be off by 1e-8
    assert memory.z_teacher.dtype == torch.float64


def test_a_bank_row_keeps_its_share_and_takes_the_rest_from_the_embedding() -> None:
    memory, index = memory_of(momentum=0.8), torch.tensor([4])
    before, student = memory.student_bank[4].clone(), units(1, 8, 1)
    memory(student, units(1, 8, 2), index, candidates_of(index, 30, 10))
    assert torch.allclose(memory.student_bank[4], F.normalize(0.8 * before + 0.2 * student[0], dim=0))


def test_the_batch_form_follows_its_formula_by_a_slow_loop() -> None:
    student, teacher, labels = units(5, 8, 1).double(), units(5, 8, 2).double(), torch.tensor([0, 0, 1, -1, -1])
    losses = []
    for anchors, others in ((student, teacher), (teacher, student)):
        total = 0.0
        for b in range(5):
            allowed = [j for j in range(5) if j == b or labels[j] != labels[b] or labels[b] == -1]
            scores = {j: float(anchors[b] @ others[j]) / 0.2 for j in allowed}
            total -= scores[b] - math.log(sum(math.exp(score) for score in scores.values()))
        losses.append(total / 5)
    got = crd_batch_losses(student, teacher, labels, temperature=0.2)
    assert got["student"].item() == pytest.approx(losses[0], rel=1e-12)
    assert got["teacher"].item() == pytest.approx(losses[1], rel=1e-12)
    assert got["total"].item() == pytest.approx(sum(losses), rel=1e-12)


def test_the_batch_form_is_zero_without_negatives() -> None:
    for labels in (torch.tensor([3, 3, 3]), torch.tensor([3])):
        student = units(len(labels), 8, 1).requires_grad_()
        loss = crd_batch_losses(student, units(len(labels), 8, 2), labels)["total"]
        loss.backward()
        assert loss.item() == 0
        assert student.grad is not None
        assert (student.grad == 0).all()


LABELS = np.array([0, 1, 2, -1, 0, 1, 0, -1, 2, 0])


def test_negatives_are_all_images_of_other_classes_and_only_those() -> None:
    others = OtherClasses(LABELS, base_key=1)
    assert others.fewest == 6  # of the largest class, 0, there are four
    drawn = others(torch.arange(10), 400, epoch=0)
    for row, label in enumerate(LABELS):
        allowed = {j for j in range(10) if j != row and (label == -1 or LABELS[j] != label)}
        assert set(drawn[row].tolist()) == allowed
    counts = torch.bincount(drawn[0], minlength=10)[torch.from_numpy(LABELS) != 0]
    assert (counts - 400 / 6).abs().max() < 4.5 * math.sqrt(400 / 6)  # uniform: 4.5 standard deviations


def test_negatives_depend_on_key_epoch_and_image_alone() -> None:
    others = OtherClasses(LABELS, base_key=1)
    drawn = others(torch.arange(10), 20, epoch=3)
    order = torch.tensor([7, 2, 9])
    assert torch.equal(others(order, 20, epoch=3), drawn[order])
    assert not torch.equal(others(torch.arange(10), 20, epoch=4), drawn)
    assert not torch.equal(OtherClasses(LABELS, base_key=2)(torch.arange(10), 20, epoch=3), drawn)
    assert not torch.equal(drawn[3], drawn[7])


def test_training_images_of_one_class_are_refused() -> None:
    with pytest.raises(SettingError, match="all 3 training images are of one"):
        OtherClasses(np.zeros(3, dtype=np.int64), base_key=0)


def test_images_of_one_class_are_refused_within_a_batch_too() -> None:
    network, pixels = build_network("small/resnet8", 3, (16, 16)), np.zeros((3, 3, 16, 16), dtype=np.uint8)
    data = ImageSet(pixels, np.zeros(3, dtype=np.int64), np.arange(3).astype(str), ("a",))
    with pytest.raises(SettingError, match="all 3 training images are of one"):
        crd(network, network, data, torch.Generator(), negatives="batch")


@pytest.mark.parametrize(("name", "value"), [("n_negatives", 100), ("momentum", 0.9), ("z_momentum", 0.99)])
def test_within_a_batch_the_settings_of_the_bank_are_refused(name: str, value: float) -> None:
    plugin, shapes = registry.get("method", "crd"), {"pooled": (4,)}
    refusal = plugin.facts["needs"](plugin.complete({"negatives": "batch", name: value}), shapes, shapes).refusal
    assert refusal == f"`{name}` belongs to `negatives: bank`: within a batch there is no use for it."
    for settings in ({"negatives": "batch", "temperature": 0.1, "dim": 64}, {name: value}):
        assert plugin.facts["needs"](plugin.complete(settings), shapes, shapes).refusal is None


def asked_for(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What a memory made with this seed of `rng` is asked for at one batch."""
    network, data = build_network("small/resnet8", 3, (16, 16)), image_set()
    objective = crd(network, network, data, torch.Generator().manual_seed(seed), n_negatives=8, dim=6)
    asked: list[torch.Tensor] = []
    objective.contrast.memory.register_forward_pre_hook(lambda module, inputs: asked.append(inputs[3]))  # type: ignore[union-attr]
    index = torch.tensor([7, 3, 20])
    images, pooled = torch.zeros(3, 3, 16, 16), torch.randn(3, network.shapes()["pooled"][0])
    batch = Batch(images, images, torch.tensor([1, 0, 2]), torch.eye(3), index, torch.ones(3, dtype=torch.bool), Clock(0, 10, 0, 1))
    objective(batch, Activations(torch.zeros(3, 3), pooled=pooled), Activations(torch.zeros(3, 3), pooled=pooled))
    return index, asked[0]


def test_the_negatives_are_drawn_by_the_generator_and_the_first_candidate_is_the_image_itself() -> None:
    index, first = asked_for(0)
    assert first.shape == (3, 9)
    assert torch.equal(first[:, 0], index)
    assert torch.equal(first, asked_for(0)[1])
    assert not torch.equal(first[:, 1:], asked_for(1)[1][:, 1:])


def image_set(n: int = 24) -> ImageSet:
    pixels = np.random.default_rng(0).integers(0, 256, (n, 3, 16, 16), dtype=np.uint8)
    labels = np.arange(n, dtype=np.int64) % 3
    labels[::6] = -1
    return ImageSet(pixels, labels, np.arange(n).astype(str), tuple("abc"))


def training(folder: Path, *, student: str = "small/resnet8", settings: dict[str, Any] | None = None, **recipe: Any) -> Training:
    torch.manual_seed(0)
    networks = [
        build_network(student, 3, (16, 16)),
        build_network("small/vit", 3, (16, 16), settings={"width": 16, "depth": 2, "heads": 2}),
    ]
    data, plugin = image_set(), registry.get("method", "crd")
    objective = make_objective(
        plugin, {"dim": 6, **(settings or {"n_negatives": 5})}, plugin.facts["weights"], student=networks[0],
        teacher=frozen(networks[1]), images=data, rng=torch.Generator().manual_seed(0),
    )  # fmt: skip
    defaults = {"epochs": 2, "batch_size": 8, "precision": "fp32", "threads": 1, "learning_rate": 1e-2}
    return Training(
        networks[0], data, data.subset(np.arange(9)), TrainingConfig(**(defaults | recipe)), who=(0, "student", 0),
        folder=folder, objective=objective, teacher=networks[1],
    )  # fmt: skip


@pytest.mark.parametrize("negatives", ["bank", "batch"])
def test_one_step_reaches_the_students_first_layer_and_moves_both_embeddings(tmp_path: Path, negatives: str) -> None:
    run = training(tmp_path, settings={"negatives": negatives})
    module = run.objective.module
    assert module is not None
    before = {name: value.clone() for name, value in module.named_parameters()}
    assert set(before) == {"student_embed.weight", "student_embed.bias", "teacher_embed.weight", "teacher_embed.bias"}
    batch = run.batch(torch.arange(8), 0)
    student, teacher = run.network(batch.images, taps=("pooled",)), run.teacher(batch.teacher_images, taps=("pooled",))  # type: ignore[misc]
    first = next(run.network.parameters())
    (gradient,) = torch.autograd.grad(module(batch, student, teacher)["crd"], first)
    assert gradient.abs().sum() > 0
    run.step(torch.arange(8), 0)
    assert all(not torch.equal(value, before[name]) for name, value in module.named_parameters())


def test_banks_move_once_for_each_optimiser_step_also_under_accumulation(tmp_path: Path) -> None:
    run = training(tmp_path, accumulate=2)
    memory = run.objective.module.contrast.memory  # type: ignore[union-attr]
    start, seen = memory.student_bank.clone(), []
    memory.register_forward_pre_hook(lambda module, inputs: seen.append(module.student_bank.clone()))
    run.step(torch.arange(8), 0)
    assert len(seen) == 2
    assert all(torch.equal(bank, start) for bank in seen)
    assert (memory.student_bank != start).any(dim=1).nonzero().flatten().tolist() == list(range(8))


def test_a_training_that_was_stopped_goes_on_with_the_same_banks(tmp_path: Path) -> None:
    whole, stopped = training(tmp_path / "whole"), training(tmp_path / "stopped")
    whole.run()
    step = stopped.step

    def stop_at_the_fourth(index: Any, epoch: int) -> None:
        step(index, epoch)
        if stopped.clock.step == 4:
            stopped._save()
            raise KeyboardInterrupt

    stopped.step = stop_at_the_fourth  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    resumed = training(tmp_path / "stopped")
    resumed.run()
    expected = whole.objective.module.state_dict()  # type: ignore[union-attr]
    got = resumed.objective.module.state_dict()  # type: ignore[union-attr]
    assert "contrast.memory.z_student" in got
    assert all(torch.equal(value, got[name]) for name, value in expected.items())


def test_the_number_of_negatives_is_capped_by_the_images_of_other_classes(tmp_path: Path) -> None:
    run = training(tmp_path, settings={"n_negatives": 16384})
    largest = np.bincount(image_set().labels.clip(0)[image_set().labels >= 0]).max()
    assert run.objective.module.contrast.memory.n_negatives == 24 - largest  # type: ignore[union-attr]


@pytest.mark.parametrize("negatives", ["bank", "batch"])
@pytest.mark.parametrize("value", [0.0, 1e4, -1e4])
def test_constant_and_saturated_features_stay_finite_even_where_an_embedding_is_zero(negatives: Any, value: float) -> None:
    student = build_network("small/resnet8", 3, (16, 16))
    objective = crd(student, student, image_set(), torch.Generator(), negatives=negatives, n_negatives=5, dim=6)
    torch.nn.init.zeros_(objective.student_embed.bias)
    features = torch.full((3, student.shapes()["pooled"][0]), value, requires_grad=True)
    logits = torch.full((3, 3), value, requires_grad=True)
    labels = torch.tensor([0, 1, -1])
    images = torch.zeros(3, 3, 16, 16)
    batch = Batch(images, images, labels, torch.eye(3)[[0, 1, 2]], torch.arange(3), torch.ones(3, dtype=torch.bool), Clock(0, 10, 0, 1))
    terms = objective(batch, Activations(logits, pooled=features), Activations(logits.detach(), pooled=features.detach()))
    sum(terms.values()).backward()  # type: ignore[union-attr]
    assert terms["crd"].isfinite()
    assert features.grad is not None
    assert features.grad.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in objective.parameters())
