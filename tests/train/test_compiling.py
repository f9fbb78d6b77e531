"""The compiled student: what fails leaves nothing behind, what works resumes. By backends that take no compiler of C++."""

import signal
from typing import Any

import pytest
import torch
from functorch.compile import make_boxed_func
from torch._dynamo.backends.common import aot_autograd

from crossdistill.ops.network import Network
from crossdistill.train.compiling import CompiledStudent
from crossdistill.train.loop import Training


def fails(graph: Any, inputs: Any) -> Any:
    raise RuntimeError("no working C++ compiler was found.\nfor developers: set VERBOSE=1")


FAILS_GOING_BACK = aot_autograd(fw_compiler=lambda graph, inputs: make_boxed_func(graph), bw_compiler=fails)
"""The forward pass runs, and moves BatchNorm's statistics, before the backward pass fails."""


def compiled(training: Training, backend: Any) -> Training:
    training.student = CompiledStudent(training.network, tell=training._tell, backend=backend)
    return training


def test_a_failure_between_the_passes_leaves_the_training_as_it_would_be_without_compiling(
    bench: Any, copied_weights: Any, same_bytes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    eager, broken = bench.training(folder="eager"), compiled(bench.training(folder="broken"), FAILS_GOING_BACK)
    lines: list[str] = []
    monkeypatch.setattr(broken.progress, "line", lines.append)
    eager.run()
    broken.run()
    assert same_bytes(copied_weights(eager.network), copied_weights(broken.network))
    assert broken.network.notes == ["`compile` was asked for, and the student is trained without it: no working C++ compiler was found."]
    assert [line for line in lines if "compile" in line] == [f"  training: {broken.network.notes[0]}"]


def test_a_compiled_training_goes_on_exactly_where_it_was_stopped(bench: Any, copied_weights: Any, same_bytes: Any) -> None:
    def training(folder: str) -> Training:
        return compiled(bench.training(folder=folder, accumulate=3), "eager")  # micro-batches of 3, 3 and 2 images: two sizes

    whole, stopped, resumed = training("whole"), training("stopped"), training("stopped")
    whole.run()
    step = stopped.step

    def stopping(index: Any, epoch: int) -> None:
        if stopped.clock.step == 3:
            signal.raise_signal(signal.SIGINT)
        step(index, epoch)

    stopped.step = stopping  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    resumed.run()
    assert same_bytes(copied_weights(whole.network), copied_weights(resumed.network))
    assert list(whole.student.works.values()) == [True, True]  # type: ignore[attr-defined]
    assert whole.network.notes == []


class Counting(torch.nn.Module):
    """Its answer depends on how often it was called, by a number that the compiled code holds fixed."""

    def __init__(self) -> None:
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, 2), torch.nn.ReLU(), torch.nn.Conv2d(4, 4, 3, 2))
        self.head, self.calls = torch.nn.Linear(4, 3), 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.head(self.body(images).mean(dim=(2, 3)) * float(self.calls))


def test_a_network_that_would_be_compiled_anew_at_each_step_is_not_compiled() -> None:
    told: list[str] = []
    network = Network(Counting(), 3, (16, 16))
    student = CompiledStudent(network, tell=told.append, backend="eager")
    images = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
    student(images)
    student(images, taps=("pooled",))
    assert list(student.works.values()) == [False, False]
    assert len(told) == 1


def test_taps_are_those_of_the_network_itself(bench: Any) -> None:
    network = bench.student().eval()
    student = CompiledStudent(network, tell=pytest.fail, backend="eager")
    images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    for taps in ((), ("pooled", "stage3")):
        with torch.no_grad():
            expected, seen = network(images, taps=taps), student(images, taps=taps)
        assert torch.allclose(seen.logits, expected.logits, atol=1e-6)  # the same kernels, perhaps in another order
        assert seen.stages.keys() == expected.stages.keys()
        assert (seen.pooled is None) == (expected.pooled is None)


def test_the_recipe_asks_for_it(bench: Any) -> None:
    assert isinstance(bench.training(compile=True).student, CompiledStudent)
    assert not isinstance(bench.training().student, CompiledStudent)
