"""A training that is killed, stopped, out of disk or out of memory: what it leaves, what it says, and how it goes on."""

import errno
import gc
import itertools
import json
import os
import random
import signal
import time
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from crossdistill.core import registry
from crossdistill.core.errors import SettingError, StudyError
from crossdistill.core.progress import Progress
from crossdistill.models._build import build_network
from crossdistill.ops.losses import cross_entropy
from crossdistill.ops.modes import frozen
from crossdistill.train import checkpoint as checkpoints
from crossdistill.train import loop
from crossdistill.train.checkpoint import Due
from crossdistill.train.memory import enough_memory, free_garbage
from crossdistill.train.objective import Objective, make_objective, published_weights


class Killed(BaseException):
    """Stands for kill -9: nothing of the training runs after it, and nothing is saved."""


class Told(Progress):
    """Keeps the lines that a training prints."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)


def kill_after(training: Any, step: int) -> Any:
    """The training, killed once it has taken that step (from 1)."""
    take = training.step

    def stepped(index: Any, epoch: int) -> None:
        take(index, epoch)
        if training.clock.step == step:
            raise Killed

    training.step = stepped
    return training


def killed(training: Any, step: int) -> None:
    with pytest.raises(Killed):
        kill_after(training, step).run()


@pytest.fixture
def result(without_timing: Any) -> Any:
    """Of a finished training: the bytes of its weights, and its log in its order, all but the timing."""

    def read(training: Any) -> Any:
        rows = [json.loads(line) for line in (training.folder / "log.jsonl").read_text().splitlines()]
        assert [row.model_dump() for row in training.history] == rows
        weights = [(name, value.numpy().tobytes()) for name, value in training.network.state_dict().items()]
        return weights, without_timing(training.folder)

    return read


def newest(training: Any) -> Path:
    return max((training.folder / "checkpoint").glob("step-*"))


def taught(bench: Any, name: str, settings: dict[str, Any], **options: Any) -> Any:
    """A training of a student by a real method."""
    plugin, teacher, student = registry.get("method", name), bench.teacher(), bench.student()
    torch.manual_seed(4)
    if prepare := plugin.facts["prepare_student"]:
        prepare(student, plugin.complete(settings))
    warm_up = plugin.facts["warm_up"]
    warm = frozen(warm_up.make(teacher, plugin.complete(settings))) if warm_up else None
    objective = make_objective(
        plugin, settings, published_weights(plugin, settings), student=student, teacher=teacher, images=bench.train,
        rng=torch.Generator().manual_seed(5), warm=warm,
    )  # fmt: skip
    return bench.training(objective, network=student, teacher=teacher, **options)


def with_dropout() -> Any:
    torch.manual_seed(1)
    return build_network("small/vit", 3, (16, 16), settings={"width": 16, "depth": 2, "heads": 2, "drop_path": 0.5})


class SelfTaught(torch.nn.Module):
    """A warm-up's objective: a head that learns on a frozen network's logits."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(6)
        self.head = torch.nn.Linear(3, 3)

    def forward(self, batch: Any, network: Any, nobody: None) -> dict[str, torch.Tensor]:
        return {"ss": cross_entropy(self.head(network.logits), batch.targets)}


class Tied(torch.nn.Module):
    """An objective with two layers of one weight."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.there, self.back = torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)
        self.back.weight = self.there.weight

    def forward(self, batch: Any, student: Any, nobody: None) -> dict[str, torch.Tensor]:
        return {"ce": cross_entropy(self.back(self.there(student.logits)), batch.targets)}


CASES = {
    "AdamW": lambda bench, **at: bench.training(**at),
    "SGD": lambda bench, **at: bench.training(optimizer="sgd", **at),
    "an average of the weights, in parts": lambda bench, **at: bench.training(ema=0.5, accumulate=2, optimizer="sgd", **at),
    "early stopping": lambda bench, **at: bench.training(early_stopping=5, ema=0.5, **at),
    "mixup, random depth": lambda bench, **at: bench.training(network=with_dropout(), mixup=0.4, label_smoothing=0.1, **at),
    "channels last": lambda bench, **at: bench.training(network=bench.student().to(memory_format=torch.channels_last), ema=0.5, **at),
    "an adversary": lambda bench, **at: taught(bench, "capd", {}, ema=0.5, accumulate=2, **at),
    "a memory bank": lambda bench, **at: taught(bench, "crd", {"n_negatives": 4}, accumulate=2, **at),
    "rotated views and a warm head": lambda bench, **at: taught(bench, "sskd", {}, **at),
    "tied weights": lambda bench, **at: bench.training(Objective(Tied()), **at),
    "a warm-up": lambda bench, **at: bench.training(Objective(SelfTaught(), None), network=bench.teacher(), optimizer="sgd", **at),
}


@pytest.mark.parametrize("case", CASES)
def test_a_training_killed_after_random_steps_ends_with_the_same_bytes_and_the_same_log(bench: Any, result: Any, case: str) -> None:
    make, moments = CASES[case], random.Random(case)
    whole = make(bench, folder="whole")
    whole.run()
    for step in sorted(moments.sample(range(1, 7), 3)):  # of six; what came after the last checkpoint is trained once more
        killed(make(bench, folder="killed", checkpoint_every="2 steps"), step)
    resumed = make(bench, folder="killed", checkpoint_every="3 steps")
    resumed.run()
    assert result(resumed) == result(whole)


def test_checkpoints_in_mid_epoch_come_as_often_as_the_recipe_says(bench: Any) -> None:
    training, written = bench.training(batch_size=3, checkpoint_every="3 steps"), []  # 8 steps an epoch
    save = training._save

    def noted() -> None:
        written.append(training.clock.step)
        save()

    training._save = noted
    training.run()
    assert written == [3, 6, 8, 11, 14, 16]


def test_a_log_line_that_was_not_written_before_the_kill_is_written_after_it(
    bench: Any, result: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = bench.training(folder="whole")
    whole.run()
    for function in ("write_text", "save_state"):  # on either side of the moment at which the last epoch is done
        stopped = bench.training(folder=function)
        with monkeypatch.context() as patch:
            do = getattr(loop, function)

            def kill_at_the_end(*arguments: Any, stopped: Any = stopped, do: Any = do) -> None:
                if len(stopped.history) == 2:
                    raise Killed
                do(*arguments)

            patch.setattr(loop, function, kill_at_the_end)
            with pytest.raises(Killed):
                stopped.run()
        resumed = bench.training(folder=function)
        resumed.run()
        assert result(resumed) == result(whole)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_during_validation_is_obeyed_at_once_and_the_epoch_is_not_trained_again(
    bench: Any, result: Any, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    whole = bench.training(folder="whole")
    whole.run()
    stopped = bench.training(folder="stopped")
    with monkeypatch.context() as patch:

        def long_validation(*arguments: Any, **options: Any) -> None:
            signal.raise_signal(number)
            pytest.fail("validation went on")

        patch.setattr(loop, "observe", long_validation)
        with pytest.raises(KeyboardInterrupt):
            stopped.run()
    assert (stopped.clock.step, len(stopped.history), newest(stopped).name) == (3, 0, "step-000000003")
    resumed, trained = bench.training(folder="stopped"), []
    take = resumed.step
    resumed.step = lambda index, epoch: (trained.append(epoch), take(index, epoch))
    resumed.run()
    assert trained == [1, 1, 1]
    assert result(resumed) == result(whole)


def test_sigterm_saves_the_step_that_it_came_in_and_a_second_one_ends_at_once(bench: Any) -> None:
    stopped = bench.training()
    take = stopped.step

    def signalled(index: Any, epoch: int) -> None:
        if stopped.clock.step == 1:
            signal.raise_signal(signal.SIGTERM)
        take(index, epoch)

    stopped.step = signalled
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    assert newest(stopped).name == "step-000000002"
    again = bench.training()
    again.step = lambda index, epoch: [signal.raise_signal(signal.SIGTERM), signal.raise_signal(signal.SIGTERM), pytest.fail("it went on")]
    with pytest.raises(KeyboardInterrupt):
        again.run()
    assert newest(again).name == "step-000000002"
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


DAMAGE = {
    "half a file of tensors": lambda at: (at / "tensors.safetensors").write_bytes((at / "tensors.safetensors").read_bytes()[:5000]),
    "an empty file of tensors": lambda at: (at / "tensors.safetensors").write_bytes(b""),
    "a flipped bit in a tensor": lambda at: flip(at / "tensors.safetensors", -100),
    "a flipped bit in the tensors' names": lambda at: flip(at / "tensors.safetensors", 20),
    "another step": lambda at: swap(at / "state.json", '"step": 6', '"step": 5'),
    "half a state": lambda at: (at / "state.json").write_bytes((at / "state.json").read_bytes()[:200]),
    "a flipped bit in the state": lambda at: flip(at / "state.json", 300),
    "a state that is a list": lambda at: (at / "state.json").write_text("[]"),
    "no state": lambda at: (at / "state.json").unlink(),
    "no tensors": lambda at: (at / "tensors.safetensors").unlink(),
}


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 4
    path.write_bytes(content)


def swap(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


@pytest.fixture
def finished(bench: Any) -> Any:
    """A finished training, whose checkpoints are those of its two epochs."""
    training = bench.training()
    training.run()
    return training


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_told_and_the_one_before_is_taken(bench: Any, result: Any, finished: Any, damage: str) -> None:
    expected = result(finished)
    DAMAGE[damage](newest(finished))
    resumed = bench.training()
    resumed.progress = told = Told()
    resumed.run()
    assert told.lines[:2] == [
        "  training: checkpoint step-000000006 is damaged, going on from the one before",
        "  training: going on from step 3 of 6",
    ]
    assert result(resumed) == expected
    assert len(bench.training().run()) == 2  # the damaged one was replaced


def test_where_both_checkpoints_are_damaged_it_says_what_to_delete(bench: Any, finished: Any) -> None:
    for path in (finished.folder / "checkpoint").iterdir():
        flip(path / "tensors.safetensors", -100)
    with pytest.raises(StudyError, match=r"every checkpoint in .*run/checkpoint is damaged \(step-000000006, step-000000003\). Delete"):
        bench.training().run()


@pytest.mark.parametrize(("module", "call"), [(os, "fsync"), (os, "replace"), (checkpoints, "_sync")])
def test_a_full_disk_while_a_checkpoint_is_written_leaves_the_older_one(
    bench: Any, result: Any, monkeypatch: pytest.MonkeyPatch, module: Any, call: str
) -> None:
    whole = bench.training(folder="whole")
    whole.run()
    full = bench.training(folder="full", checkpoint_every="2 steps")
    with monkeypatch.context() as patch:
        do = getattr(module, call)

        def full_at_the_fifth_step(*arguments: Any) -> Any:
            if full.clock.step == 5:
                raise OSError(errno.ENOSPC, "No space left on device", "here")
            return do(*arguments)

        full.due.every = 1
        patch.setattr(module, call, full_at_the_fifth_step)
        with pytest.raises(StudyError, match="cannot write .*No space left on device. Free some space .* goes on from there"):
            full.run()
    assert sorted(path.name for path in (full.folder / "checkpoint").iterdir()) == ["step-000000003", "step-000000004"]
    resumed = bench.training(folder="full")
    resumed.run()
    assert result(resumed) == result(whole)


def test_what_a_killed_writer_left_is_cleared_away(bench: Any) -> None:
    left = bench.folder / "run" / "checkpoint" / ".aside-1"
    left.mkdir(parents=True)
    (left / "tensors.safetensors").write_bytes(b"half")
    bench.training().run()
    assert not left.exists()


def test_a_kill_between_any_two_file_operations_leaves_a_whole_checkpoint(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a step that is saved once more, as after a stop during validation."""

    def saved(folder: Path, word: str) -> None:
        checkpoints.save_checkpoint(folder, 3, {"value": torch.ones(2)}, {"word": word})

    for n_done in itertools.count():
        folder, left = tmp_path / str(n_done), [n_done]
        saved(folder, "first")
        with monkeypatch.context() as patch:

            def counted(do: Any, left: list[int] = left) -> Any:
                def call(*arguments: Any, **options: Any) -> Any:
                    if not left[0]:
                        raise Killed  # and again at each later one, as nothing is tidied up
                    left[0] -= 1
                    return do(*arguments, **options)

                return call

            for module, name in ((os, "replace"), (os, "fsync"), (os, "unlink"), (checkpoints.shutil, "rmtree")):
                patch.setattr(module, name, counted(getattr(module, name)))
            try:
                saved(folder, "second")
            except Killed:
                pass
            else:
                break
        found = checkpoints.load_checkpoint(folder)
        assert found is not None
        assert found.state["word"] in ("first", "second")
        assert found.skipped == ()
        saved(folder, "third")
        assert checkpoints.load_checkpoint(folder).state["word"] == "third"
        assert [path.name for path in folder.iterdir()] == ["step-000000003"]
    assert n_done > 5


def of_another_teacher(bench: Any) -> Any:
    torch.manual_seed(98)
    return frozen(build_network("small/vit", 3, (16, 16), settings={"width": 16, "depth": 2, "heads": 2}))


def with_other_labels(bench: Any) -> Any:
    bench.train.labels[0] = 2
    return bench.training(teacher=bench.teacher())


def with_other_seeds(bench: Any) -> Any:
    training = bench.training(teacher=bench.teacher())
    training.who = (0, "student", 1)
    return training


ANOTHER = {
    "recipe": lambda bench: bench.training(teacher=bench.teacher(), epochs=3),
    "teacher": lambda bench: bench.training(teacher=of_another_teacher(bench)),
    "images": with_other_labels,
    "seeds": with_other_seeds,
    "objective": lambda bench: bench.training(Objective(weights={"ce": 0.5}), teacher=bench.teacher()),
    "network": lambda bench: bench.training(network=bench.teacher(), teacher=bench.teacher()),
}


@pytest.mark.parametrize("what", ANOTHER)
def test_a_checkpoint_of_another_training_is_refused_with_what_differs(bench: Any, what: str) -> None:
    bench.training(teacher=bench.teacher()).run()
    with pytest.raises(StudyError, match=rf"run/checkpoint belongs to another training .*another {what}\. Delete .*/run/checkpoint"):
        ANOTHER[what](bench).run()


def test_a_teacher_until_the_end_is_one_without_until(bench: Any) -> None:
    killed(bench.training(Objective(until=1.0), checkpoint_every="1 step"), 3)
    assert len(bench.training(Objective()).run()) == 2


def test_a_checkpoint_of_another_version_of_the_loop_is_refused(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.training().run()
    monkeypatch.setattr(loop, "ENGINE", loop.ENGINE + 1)
    with pytest.raises(StudyError, match="another version of the training loop"):
        bench.training().run()


def test_a_warm_up_does_not_go_on_with_another_teachers_checkpoint(bench: Any) -> None:
    bench.training(Objective(SelfTaught(), None), network=bench.teacher()).run()
    with pytest.raises(StudyError, match="another network"):
        bench.training(Objective(SelfTaught(), None), network=of_another_teacher(bench)).run()


def test_how_a_training_is_carried_out_may_change_on_the_way(bench: Any) -> None:
    killed(bench.training(checkpoint_every="1 step"), 3)
    assert len(bench.training(checkpoint_every="10 minutes", cache="off").run()) == 2


def jumping(*seconds: float) -> Any:
    """A clock that shows these times, then goes on by a second at each look."""
    shown = itertools.chain(seconds, itertools.count(seconds[-1] + 1))
    return lambda: next(shown)


@pytest.mark.parametrize("clock", [jumping(1000, 1001, 400, 401, -50), lambda: 7.0], ids=["jumps back", "stands still"])
def test_a_clock_that_goes_wrong_gives_no_negative_times_and_the_same_bytes(
    bench: Any, result: Any, monkeypatch: pytest.MonkeyPatch, clock: Any
) -> None:
    whole = bench.training(folder="whole")
    whole.run()
    with monkeypatch.context() as patch:
        for name in ("time", "monotonic", "perf_counter"):
            patch.setattr(time, name, clock)
        odd = bench.training(folder="odd", checkpoint_every="1 minute")
        odd.run()
    assert all(row.seconds >= 0 and row.images_per_second >= 0 for row in odd.history)
    assert result(odd) == result(whole)


def test_checkpoints_stay_due_after_the_clock_jumped_back(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([0, 30, -10_000, -9_980, -9_960, -9_950])
    monkeypatch.setattr(time, "perf_counter", lambda: next(seconds))
    due = Due("1 minute")  # 30 s, a jump that counts as no time, 20 s, 20 s
    assert [due(step) for step in range(1, 5)] == [False, False, False, True]
    due.reset(4)
    assert (due.waited, due.looked) == (0.0, -9_950)


def test_minutes_and_steps_are_counted_from_the_last_checkpoint() -> None:
    due = Due("500 steps")
    due.reset(100)
    assert (due(599), due(600)) == (False, True)
    assert not Due("10 minutes")(10**9)


def too_large(batch: Any, student: Any, teacher: Any) -> dict[str, torch.Tensor]:
    if batch.clock.step == 4:
        torch.empty(1 << 50)  # no machine has a petabyte: torch's own allocator refuses
    return {"ce": cross_entropy(student.logits, batch.targets)}


def test_a_batch_that_does_not_fit_says_what_to_lower_and_keeps_what_was_done(bench: Any) -> None:
    words = r"training: out of memory on a batch of 8 images of 16 x 16 pixels, in 2 parts, .* Lower `batch_size`; or raise .* \(now 2\)"
    with pytest.raises(SettingError, match=words):
        bench.training(Objective(too_large), accumulate=2).run()
    assert newest(bench.training()).name == "step-000000003"


@pytest.mark.parametrize(
    "spend",
    [lambda: np.zeros(1 << 58, np.uint8), lambda: torch.empty(1 << 50), lambda: raised(torch.OutOfMemoryError("CUDA out of memory"))],
)
def test_memory_may_end_in_several_ways(spend: Any) -> None:
    with pytest.raises(SettingError, match="too much"), enough_memory(lambda: "too much"):
        spend()


def test_other_errors_pass_through() -> None:
    with pytest.raises(RuntimeError, match="shapes differ"), enough_memory(lambda: "too much"):
        raised(RuntimeError("shapes differ"))


def raised(error: Exception) -> None:
    raise error


def test_a_failed_training_leaves_its_memory_to_the_next(bench: Any) -> None:
    gc.disable()  # the collector might come by itself
    try:
        training = bench.training(Objective(too_large))
        images = weakref.ref(training.batches)
        with pytest.raises(SettingError):
            training.run()
        del training
        free_garbage()
        assert images() is None
    finally:
        gc.enable()


def test_the_folder_is_synced_so_that_a_checkpoint_survives_a_power_cut(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    sync = checkpoints._sync
    monkeypatch.setattr(checkpoints, "_sync", lambda folder: (synced.append(folder), sync(folder)))
    bench.training(epochs=1).run()
    folder = bench.folder / "run" / "checkpoint"
    assert [path.parent for path in synced] == [folder, folder.parent]
