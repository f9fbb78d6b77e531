"""The loop itself: exact resume, interruptions, losses that are not finite, determinism."""

import gc
import json
import os
import signal
import weakref
from typing import Any

import pytest
import torch

from crossdistill.core.errors import DivergedError, SettingError, StudyError
from crossdistill.core.types import Activations, Batch
from crossdistill.ops.losses import cross_entropy
from crossdistill.train.batches import smoothed_targets
from crossdistill.train.objective import Objective, refuse_class_mismatch


def call_at_step(training: Any, number: int, action: Any) -> None:
    step = training.step

    def stepped(index: Any, epoch: int) -> None:
        if training.clock.step == number:
            action()
        step(index, epoch)

    training.step = stepped


def test_the_same_call_gives_the_same_bytes_and_another_seed_gives_others(bench: Any, copied_weights: Any, same_bytes: Any) -> None:
    first, second, other = (bench.training(folder=name) for name in ("first", "second", "other"))
    other.who = other.batches.who = (0, "student", 1)
    for training in (first, second, other):
        training.run()
    assert same_bytes(copied_weights(first.network), copied_weights(second.network))
    assert not same_bytes(copied_weights(first.network), copied_weights(other.network))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_control_c_saves_the_state_and_the_same_command_ends_with_the_same_bytes(
    bench: Any, copied_weights: Any, same_bytes: Any, optimizer: str, layout: torch.memory_format
) -> None:
    student = lambda: bench.student().to(memory_format=layout)  # noqa: E731
    whole = bench.training(folder="whole", optimizer=optimizer, network=student())
    whole.run()
    stopped = bench.training(folder="stopped", optimizer=optimizer, network=student())
    call_at_step(stopped, 4, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    assert stopped.clock.step == 5  # the step was finished before the state was saved
    resumed = bench.training(folder="stopped", optimizer=optimizer, network=student())
    history = resumed.run()
    assert same_bytes(copied_weights(whole.network), copied_weights(resumed.network))
    timing = {"seconds", "images_per_second"}
    assert [row.model_dump(exclude=timing) for row in history] == [row.model_dump(exclude=timing) for row in whole.history]


def test_a_finished_training_is_not_run_again(bench: Any) -> None:
    bench.training().run()
    again = bench.training()
    call_at_step(again, 6, lambda: pytest.fail("a step was run"))
    assert len(again.run()) == 2


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(bench: Any, copied_weights: Any, same_bytes: Any) -> None:
    whole = bench.training(folder="whole")
    whole.run()
    bench.training(folder="damaged").run()
    newest = max((bench.folder / "damaged" / "checkpoint").iterdir())
    content = bytearray((newest / "tensors.safetensors").read_bytes())
    content[-3] ^= 255
    (newest / "tensors.safetensors").write_bytes(content)
    resumed = bench.training(folder="damaged")
    resumed.run()
    assert same_bytes(copied_weights(whole.network), copied_weights(resumed.network))


def test_training_is_refused_where_every_checkpoint_is_damaged(bench: Any) -> None:
    bench.training().run()
    for path in (bench.folder / "run" / "checkpoint").iterdir():
        (path / "tensors.safetensors").write_bytes(b"not weights")
    with pytest.raises(StudyError, match="every checkpoint in .* is damaged"):
        bench.training().run()


def test_a_loss_that_is_not_finite_stops_with_the_step_and_keeps_the_last_good_state(bench: Any) -> None:
    def breaks_at_step_four(batch: Batch, student: Activations, teacher: Any) -> dict[str, torch.Tensor]:
        return {"ce": cross_entropy(student.logits, batch.targets) * (float("nan") if batch.clock.step == 4 else 1.0)}

    with pytest.raises(DivergedError, match=r"not finite at step 4 \(epoch 2\).*Lower `learning_rate`"):
        bench.training(Objective(breaks_at_step_four)).run()
    kept = list((bench.folder / "run" / "checkpoint").iterdir())
    assert [path.name for path in kept] == ["step-000000003"]
    assert json.loads((kept[0] / "state.json").read_text())["step"] == 3


def test_only_the_last_two_checkpoints_are_kept(bench: Any) -> None:
    bench.training(epochs=4).run()
    assert sorted(path.name for path in (bench.folder / "run" / "checkpoint").iterdir()) == ["step-000000009", "step-000000012"]


def test_a_finished_training_is_gone_from_memory_without_the_collector(bench: Any) -> None:
    gc.disable()
    try:
        training = bench.training(Objective(), teacher=bench.teacher(), ema=0.5)
        training.run()
        parts = [weakref.ref(training), weakref.ref(training.network), weakref.ref(training.optimizers["optimizer"])]
        del training
        assert [part() for part in parts] == [None, None, None]
    finally:
        gc.enable()


def test_the_log_has_a_line_for_each_epoch(bench: Any) -> None:
    bench.training(epochs=3).run()
    rows = [json.loads(line) for line in (bench.folder / "run" / "log.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert rows[0]["loss"] == pytest.approx(rows[0]["terms"]["ce"])
    assert 0 <= rows[-1]["validation_accuracy"] <= 1


def test_accumulated_gradients_are_those_of_the_whole_batch(bench: Any) -> None:
    whole, parts = bench.training(accumulate=1), bench.training(accumulate=4)
    gradients = []
    for training in (whole, parts):
        training.network.eval()  # BatchNorm's batch statistics would differ between micro-batches
        index = torch.arange(8)
        for rows in index.chunk(training.recipe.accumulate):
            training._accumulate(training.batch(rows, 0), share=len(rows) / len(index))
        gradients.append(torch.cat([p.grad.flatten() for p in training.main if p.grad is not None]))
    assert torch.allclose(gradients[0], gradients[1], atol=1e-6)  # float32 sums in another order


def test_gradient_reaches_the_first_layer(bench: Any) -> None:
    training = bench.training()
    training._accumulate(training.batch(torch.arange(8), 0), share=1.0)
    assert next(training.network.parameters()).grad.abs().sum() > 0


def test_targets_are_smoothed_and_empty_without_a_label() -> None:
    targets = smoothed_targets(torch.tensor([1, -1]), 4, 0.2)
    assert targets[0].tolist() == pytest.approx([0.05, 0.85, 0.05, 0.05])
    assert targets[1].tolist() == [0, 0, 0, 0]
    assert float(cross_entropy(torch.zeros(2, 4), targets)) == pytest.approx(float(torch.tensor(4.0).log()))  # of the one labelled row


def test_teacher_and_student_must_tell_the_same_classes_apart(bench: Any) -> None:
    from crossdistill.models._build import build_network

    with pytest.raises(SettingError, match="the teacher was trained on 5 classes, the student has 3"):
        refuse_class_mismatch(bench.student(), build_network("small/resnet8", 5, (16, 16)))


def test_an_average_of_the_weights_is_what_is_kept_and_it_resumes(bench: Any, copied_weights: Any, same_bytes: Any) -> None:
    whole, plain = bench.training(folder="whole", ema=0.5), bench.training(folder="plain")
    after: list[dict[str, torch.Tensor]] = []
    update = whole.average.update_parameters

    def watched(network: Any) -> None:
        update(network)
        after.append(copied_weights(network))

    whole.average.update_parameters = watched
    whole.run()
    plain.run()
    assert same_bytes(after[-1], copied_weights(plain.network))  # the averaging leaves the training as it was
    expected = after[0]["model.conv1.weight"]
    for step in after[1:]:
        expected = 0.5 * expected + 0.5 * step["model.conv1.weight"]
    assert torch.allclose(whole.network.state_dict()["model.conv1.weight"], expected, atol=1e-6)  # float32, six steps
    stopped = bench.training(folder="stopped", ema=0.5)
    call_at_step(stopped, 4, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    resumed = bench.training(folder="stopped", ema=0.5)
    resumed.run()
    assert same_bytes(copied_weights(whole.network), copied_weights(resumed.network))


def test_the_network_of_every_epoch_can_be_had(bench: Any, copied_weights: Any, same_bytes: Any) -> None:
    kept: list[tuple[int, Any]] = []
    training = bench.training()
    training.after_epoch = lambda epoch, network: kept.append((epoch, copied_weights(network)))
    training.run()
    assert [epoch for epoch, _ in kept] == [1, 2]
    assert same_bytes(kept[-1][1], copied_weights(training.network))


@pytest.mark.parametrize("step", [3, 6])
def test_an_interruption_at_the_last_step_of_an_epoch_keeps_that_epoch(bench: Any, step: int) -> None:
    def losses(history: Any) -> list[tuple[int, float]]:
        return [(row.epoch, row.loss) for row in history]

    whole = bench.training(folder="whole").run()
    kept: list[int] = []
    stopped = bench.training(folder="stopped")
    stopped.after_epoch = lambda epoch, network: kept.append(epoch)
    call_at_step(stopped, step - 1, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    resumed = bench.training(folder="stopped")
    resumed.after_epoch = lambda epoch, network: kept.append(epoch)
    assert losses(resumed.run()) == losses(whole)
    assert kept == [1, 2]
