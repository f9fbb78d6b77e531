"""The objective contract, proved with throw-away methods that no file registers."""

from typing import Any

import pytest
import torch
from torch import nn

from crossdistill.core.errors import SettingError
from crossdistill.core.registry import as_plugin, method
from crossdistill.core.types import Activations, Batch, Clock, Needs
from crossdistill.ops.losses import cross_entropy
from crossdistill.ops.modes import frozen
from crossdistill.train.objective import Objective, make_objective, method_weights


def seen_by(network: Any) -> list[tuple[int, ...]]:
    """Records the shape of every batch that a network is shown."""
    shapes: list[tuple[int, ...]] = []
    network.register_forward_pre_hook(lambda module, inputs: shapes.append(tuple(inputs[0].shape)))
    return shapes


def rotations(images: torch.Tensor, keys: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    views = torch.stack([images.rot90(k, (-2, -1)) for k in range(4)], dim=1).flatten(0, 1)
    return views, images, torch.tensor([True, False, False, False]).repeat(len(images))


def test_four_views_of_each_image_reach_the_student_and_only_clean_rows_are_labelled(bench: Any) -> None:
    batches: list[tuple[Batch, Activations]] = []

    def objective(batch: Batch, student: Activations, teacher: Activations) -> dict[str, torch.Tensor]:
        batches.append((batch, student))
        return {"ce": cross_entropy(student.logits[:: batch.views], batch.targets), "spread": student.logits.square().mean()}

    network, teacher = bench.student(), bench.teacher()
    student_sees, teacher_sees = seen_by(network), seen_by(teacher)
    made = Objective(objective, {"ce": 1.0, "spread": 0.01}, views=rotations)
    bench.training(made, network=network, teacher=teacher, epochs=1).run()
    assert student_sees[:3] == [(32, 3, 16, 16)] * 3
    assert set(teacher_sees) == {(8, 3, 16, 16)}
    batch, student = batches[0]
    assert (batch.views, batch.teacher_views, len(student.logits), len(batch.labels)) == (4, 1, 32, 8)
    assert torch.equal(batch.images[5], batch.teacher_images[1].rot90(1, (-2, -1)))  # row v of sample b stands at b * views + v
    assert batch.geometry_shared.tolist() == [True, False, False, False] * 8


class Adversarial(nn.Module):
    """A discriminator of student against teacher logits, with an optimiser of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.discriminator = nn.Linear(3, 1)
        self.adversary_saw: list[bool] = []

    def forward(self, batch: Batch, student: Activations, teacher: Activations) -> dict[str, torch.Tensor]:
        fooled = nn.functional.softplus(-self.discriminator(student.logits)).mean()
        return {"ce": cross_entropy(student.logits, batch.targets), "fool": fooled}

    def adversary(self, batch: Batch, student: Activations, teacher: Activations) -> dict[str, torch.Tensor]:
        self.adversary_saw.append(student.logits.requires_grad)
        real, fake = self.discriminator(teacher.logits), self.discriminator(student.logits.detach())
        return {"discriminate": nn.functional.softplus(-real).mean() + nn.functional.softplus(fake).mean()}

    def adversary_parameters(self) -> list[nn.Parameter]:
        return list(self.discriminator.parameters())


@pytest.mark.parametrize("accumulate", [1, 2])
def test_an_adversary_has_its_own_optimiser_and_each_group_gets_only_its_own_gradient(bench: Any, accumulate: int) -> None:
    torch.manual_seed(5)
    adversarial = Adversarial()
    training = bench.training(
        Objective(adversarial, {"ce": 1.0, "fool": 1.0}), teacher=bench.teacher(), accumulate=accumulate, clip_norm=None
    )
    assert set(training.optimizers) == {"optimizer", "adversary_optimizer"}
    index = torch.arange(8)
    torch.manual_seed(0)
    batches = [training.batch(rows, 0) for rows in index.chunk(accumulate)]
    training.network.train()
    for batch in batches:
        training._accumulate(batch, share=1 / accumulate)
    measured = [p.grad.clone() for p in adversarial.discriminator.parameters()]

    reference = Adversarial()
    reference.load_state_dict(adversarial.state_dict())
    student = bench.student().train()
    for batch in batches:
        answers, taught = student(batch.images), training.teacher(batch.teacher_images)
        (reference.adversary(batch, answers, taught)["discriminate"] / accumulate).backward()
    for got, expected in zip(measured, reference.discriminator.parameters(), strict=True):
        assert torch.allclose(got, expected.grad, atol=1e-6)  # the student's wish to fool it is not in its gradient
    first = next(training.network.parameters())
    assert first.grad is not None
    assert first.grad.abs().sum() > 0


def test_an_adversary_may_learn_more_slowly(bench: Any) -> None:
    adversarial = Adversarial()
    adversarial.adversary_rate = 0.01  # type: ignore[assignment]
    training = bench.training(Objective(adversarial, {"ce": 1.0, "fool": 1.0}), teacher=bench.teacher(), warmup_epochs=0)
    training.step(torch.arange(8), 0)
    rates = {name: optimizer.param_groups[0]["lr"] for name, optimizer in training.optimizers.items()}
    assert rates == pytest.approx({"optimizer": 1e-2, "adversary_optimizer": 1e-4})


def test_adversarial_training_moves_both_sides_and_both_optimisers_resume(bench: Any) -> None:
    adversarial = Adversarial()
    before = adversarial.discriminator.weight.clone()
    history = bench.training(Objective(adversarial, {"ce": 1.0, "fool": 1.0}), teacher=bench.teacher(), accumulate=2).run()
    assert not torch.equal(before, adversarial.discriminator.weight)
    assert set(history[0].terms) == {"ce", "fool", "discriminate"}


def two_heads(network: Any, settings: Any) -> None:
    network.add_head("distillation")
    network.readout = "mean_heads"


@method(paper="a test", weights={"ce": 0.5, "distill": 0.5}, prepare_student=two_heads)
def token_like(student: Any, teacher: Any, images: Any, rng: Any) -> Any:
    def objective(batch: Batch, student: Activations, teacher: Activations) -> dict[str, torch.Tensor]:
        hard = nn.functional.cross_entropy(student.heads["distillation"], teacher.logits.argmax(dim=1))
        return {"ce": cross_entropy(student.heads["class"], batch.targets), "distill": hard}

    return objective


def test_a_prepared_student_trains_two_heads_and_answers_with_its_readout(bench: Any) -> None:
    network, teacher = bench.student(), bench.teacher()
    plugin = as_plugin("token_like", token_like)
    plugin.facts["prepare_student"](network, {})
    made = make_objective(plugin, {}, plugin.facts["weights"], student=network, teacher=teacher, images=bench.train, rng=torch.Generator())
    before = network.extra_heads["distillation"].weight.clone()
    bench.training(made, network=network, teacher=teacher, epochs=1).run()
    assert not torch.equal(before, network.extra_heads["distillation"].weight)
    answers = network.eval()(torch.from_numpy(bench.validation.images))
    assert torch.allclose(answers.logits, (answers.heads["class"] + answers.heads["distillation"]) / 2)


class Bank(nn.Module):
    """A memory of student logits, moved once for each optimiser step and read as it stood before it."""

    def __init__(self, n_images: int) -> None:
        super().__init__()
        self.register_buffer("rows", torch.zeros(n_images, 3))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self.pending: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.read_after: list[int] = []

    def forward(self, batch: Batch, student: Activations, teacher: Activations) -> dict[str, torch.Tensor]:
        self.read_after.append(int(self.updates))
        if self.training:
            self.pending.append((batch.index, student.logits.detach()))
        return {"ce": cross_entropy(student.logits, batch.targets), "bank": (student.logits - self.rows[batch.index]).square().mean()}

    def after_step(self) -> None:
        for index, logits in self.pending:
            self.rows[index] = logits
        self.pending.clear()
        self.updates += 1


def test_a_bank_moves_once_for_each_optimiser_step_also_under_accumulation(bench: Any) -> None:
    bank = Bank(len(bench.train))
    bench.training(Objective(bank, {"ce": 1.0, "bank": 0.1}), accumulate=2, epochs=2).run()
    assert bank.read_after == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]  # both micro-batches of a step read the same bank
    assert int(bank.updates) == 6
    assert (bank.rows != 0).any(dim=1).all()


def test_a_bank_is_the_same_after_an_interruption(bench: Any, same_bytes: Any) -> None:
    whole, stopped = Bank(len(bench.train)), Bank(len(bench.train))
    bench.training(Objective(whole, {"ce": 1.0, "bank": 0.1}), folder="whole").run()
    training = bench.training(Objective(stopped, {"ce": 1.0, "bank": 0.1}), folder="stopped")
    step = training.step

    def stop_at_the_fourth(index: Any, epoch: int) -> None:
        step(index, epoch)
        if training.clock.step == 4:
            training._save()
            raise KeyboardInterrupt

    training.step = stop_at_the_fourth  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        training.run()
    resumed = Bank(len(bench.train))
    bench.training(Objective(resumed, {"ce": 1.0, "bank": 0.1}), folder="stopped").run()
    assert same_bytes(dict(whole.state_dict()), dict(resumed.state_dict()))


class WarmHead(nn.Module):
    """Holds a warmed-up, frozen head with BatchNorm, and a trained projector beside it."""

    def __init__(self, warm: nn.Module, width: int) -> None:
        super().__init__()
        self.warm = warm
        self.projector = nn.Linear(width, 3)

    def forward(self, batch: Batch, student: Activations, teacher: Activations) -> dict[str, torch.Tensor]:
        target = self.warm(teacher.logits)
        return {"ce": cross_entropy(student.logits, batch.targets), "match": (self.projector(student.pooled) - target).square().mean()}


def test_a_warmed_up_module_stays_frozen_and_reaches_the_factory(bench: Any, copied_weights: Any, same_bytes: Any) -> None:
    def warm_up(teacher: Any, images: Any, settings: Any) -> nn.Module:
        return nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))

    @method(paper="a test", weights={"ce": 1.0, "match": 1.0}, warm_up=warm_up, needs=lambda settings, student, teacher: Needs(("pooled",)))
    def warmed(student: Any, teacher: Any, images: Any, rng: Any, *, warm: Any = None) -> Any:
        return WarmHead(warm, student.shapes()["pooled"][0])

    network, teacher = bench.student(), bench.teacher()
    plugin = as_plugin("warmed", warmed)
    warm = frozen(plugin.facts["warm_up"](teacher, bench.train, {}))
    before = copied_weights(warm)
    made = make_objective(
        plugin, {}, plugin.facts["weights"], student=network, teacher=teacher, images=bench.train, rng=torch.Generator(), warm=warm
    )
    projector = made.module.projector.weight.clone()
    training = bench.training(made, network=network, teacher=teacher)
    training.run()
    assert same_bytes(before, copied_weights(warm))  # BatchNorm's buffers included
    assert not torch.equal(projector, made.module.projector.weight)
    assert all(p is not q for p in training.main for q in warm.parameters())


class TeacherProjector(nn.Module):
    """A trained embedding of what the (frozen) teacher gave, as CRD's."""

    def __init__(self, student_width: int, teacher_width: int) -> None:
        super().__init__()
        self.student_side = nn.Linear(student_width, 4)
        self.teacher_side = nn.Linear(teacher_width, 4)

    def forward(self, batch: Batch, student: Activations, teacher: Activations) -> dict[str, torch.Tensor]:
        difference = self.student_side(student.pooled) - self.teacher_side(teacher.pooled)
        return {"ce": cross_entropy(student.logits, batch.targets), "embed": difference.square().mean()}


def test_a_projector_on_the_teachers_side_is_trained_while_the_teacher_stays_bit_identical(
    bench: Any, copied_weights: Any, same_bytes: Any
) -> None:
    network, teacher = bench.student(), bench.teacher()
    before = copied_weights(teacher)
    projector = TeacherProjector(network.shapes()["pooled"][0], teacher.shapes()["pooled"][0])
    start = projector.teacher_side.weight.clone()
    made = Objective(projector, {"ce": 1.0, "embed": 1.0}, Needs(("pooled",), ("pooled",)))
    bench.training(made, network=network, teacher=teacher).run()
    assert not torch.equal(start, projector.teacher_side.weight)
    assert same_bytes(before, copied_weights(teacher))
    assert not teacher.training


def test_mixup_targets_are_mixed_and_the_teacher_sees_the_mixed_image(bench: Any) -> None:
    batches: list[Batch] = []

    def objective(batch: Batch, student: Activations, teacher: Activations) -> dict[str, torch.Tensor]:
        batches.append(batch)
        return {"ce": cross_entropy(student.logits, batch.targets)}

    bench.training(Objective(objective), teacher=bench.teacher(), mixup=1.0, label_smoothing=0.0, epochs=1, views="none").run()
    batch = batches[0]
    assert torch.equal(batch.images, batch.teacher_images)
    assert torch.allclose(batch.targets.sum(dim=1), torch.ones(8))
    mixed = batch.targets.max(dim=1).values < 1
    assert mixed.any()
    assert torch.equal(batch.targets[mixed].argmax(dim=1), batch.labels[mixed])  # labels: the dominant class
    share = float(batch.targets[mixed].max(dim=1).values[0])
    order = batch.index
    images = torch.from_numpy(bench.train.images).float() / 255
    assert torch.allclose(batch.images, share * images[order] + (1 - share) * images[order.roll(1)], atol=1e-6)
    own = torch.from_numpy(bench.train.labels)
    assert all(torch.equal(batch.labels, own[batch.index]) for batch in batches)  # so that a memory's row keeps its class


def test_terms_and_weights_must_name_the_same_things(bench: Any) -> None:
    with pytest.raises(SettingError, match="'extra' is on one side only"):
        Objective(weights={"ce": 1.0}).weighted({"ce": torch.zeros(()), "extra": torch.zeros(())}, Clock(0, 1, 0, 1))
    with pytest.raises(SettingError, match="no term 'kdd' to weigh. Did you mean 'kd'"):
        method_weights({"ce": 0.1, "kd": 0.9}, weight=1.0, weights={"kdd": 1.0})


def test_a_ramp_raises_every_term_but_the_cross_entropy() -> None:
    objective = Objective(weights={"ce": 1.0, "kd": 2.0}, ramp_epochs=2)
    terms = {"ce": torch.tensor(1.0), "kd": torch.tensor(1.0)}
    totals = [float(objective.weighted(terms, Clock(step, 40, step // 10, 4))) for step in (0, 10, 20, 30)]
    assert totals == [1.0, 2.0, 3.0, 3.0]  # 10 steps an epoch: nothing, half and all of the weight 2


def test_a_method_refuses_a_pair_in_its_own_sentence(bench: Any) -> None:
    @method(paper="a test", weights={"ce": 1.0}, needs=lambda settings, student, teacher: Needs(refusal="it needs a teacher with tokens."))
    def picky(student: Any, teacher: Any, images: Any, rng: Any) -> Any:
        raise AssertionError("must not be made")

    plugin = as_plugin("picky", picky)
    with pytest.raises(SettingError, match="method 'picky' cannot be used here: it needs a teacher with tokens"):
        make_objective(plugin, {}, {"ce": 1.0}, student=bench.student(), teacher=bench.teacher(), images=bench.train, rng=torch.Generator())


def test_after_until_the_student_learns_from_the_labels_alone(bench: Any) -> None:
    calls: list[int] = []

    def objective(batch: Batch, student: Activations, teacher: Activations) -> dict[str, torch.Tensor]:
        calls.append(batch.clock.epoch)
        return {"ce": cross_entropy(student.logits, batch.targets), "match": (student.logits - teacher.logits).square().mean()}

    teacher = bench.teacher()
    seen = seen_by(teacher)
    made = Objective(objective, {"ce": 0.0, "match": 1.0}, until=0.5)
    history = bench.training(made, teacher=teacher, epochs=3).run()
    assert calls == [0] * 3 + [1] * 3  # half of three epochs is rounded up; the teacher is not even asked afterwards
    assert len(seen) == 6
    assert [set(row.terms) for row in history] == [{"ce", "match"}, {"ce", "match"}, {"ce"}]
    assert history[2].loss == pytest.approx(history[2].terms["ce"])  # whatever the method's own weight of the labels


def test_without_until_the_teacher_teaches_to_the_end() -> None:
    assert all(Objective().teaches(Clock(step, 30, step // 10, 3)) for step in range(30))
    assert [Objective(until=1.0).teaches(Clock(step, 30, step // 10, 3)) for step in (0, 29)] == [True, True]
