"""What each distillation method costs beyond its networks, in time and memory, and beside the public package torchdistill.

    python benchmarks/method_cost.py [METHOD ...] [--pairs 20]

`over_floor`: a whole step of the training loop over its floor: the teacher's forward pass and the student's forward and backward
pass on the views that the method shows, without taps, cross-entropy, clipping and the optimiser's step. The student of the
floor is prepared as the method's is (tokens, heads). Methods that say they were published for a CNN teacher are also measured
on that pair. Where a target lies within the interval, twice the pairs are taken afresh. A warm-up is not part of a step.

`memory`: the largest sum of tensors alive at once within one step, beyond those alive before it, as torch's profiler saw its
allocator (what kernels allocate by themselves is not in it); `kept` is what the method's own parameters and state hold all along.

`beside_torchdistill`: ours over theirs, the same networks on the same batch: both forward passes, loss, backward pass,
clipping, optimiser and memory bank; the first losses of both are given, which differ only where negatives or heads were drawn.

Targets are met where the lower bound of the interval is within them; those whose median is not are listed with the misses. With
METHODs named, or fewer pairs, nothing is written. The whole takes about 12 minutes on 2 cores that do nothing else;
`pip install --group benchmarks` installs torchdistill.
"""

import argparse
import importlib.util
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from crossdistill.core import registry
from crossdistill.core.errors import SettingError
from crossdistill.core.recipe import TrainingConfig
from crossdistill.core.types import Activations, Batch, ImageSet
from crossdistill.ops.memory import keep_freed_memory
from crossdistill.ops.modes import frozen
from crossdistill.train.loop import Training
from crossdistill.train.objective import make_objective, published_weights, trainable
from crossdistill.train.optimizers import make_optimizer
from crossdistill.train.precision import autocast, resolved_precision
from protocol import paired_ratio, peak_megabytes, save_result
from steps import BATCH, CLASSES, THREADS, network

IMAGES = 50_000  # as many rows has each bank of crd
PAIRS, WARM_UPS = 20, 3
TO_CNN, TO_VIT = ("small/vit", "small/resnet20"), ("small/resnet20", "small/vit")  # teacher, student
SETTINGS: dict[str, dict[str, Any]] = {"crd": {"n_negatives": 4096}}
TARGETS = {"logits": 1.05, "features": 1.12}  # by what a method reads
OWN_TARGETS = {"crd": 1.25, "capd": 1.5, "sskd": 1.15}
BESIDE_TARGET = 1.03  # of torchdistill's time
CPU = torch.device("cpu")
RECIPE = TrainingConfig(epochs=10, batch_size=BATCH, threads=THREADS)
PRECISION = resolved_precision(RECIPE.precision, CPU)

Loss = Callable[[Batch, Activations, Activations], Tensor]


@dataclass(frozen=True)
class Case:
    """One method on one pair, ready to be trained by the loop, and the batch that its networks see in the first step."""

    plugin: registry.Plugin
    pair: tuple[str, str]
    training: Training
    index: Tensor
    batch: Batch

    @property
    def settings(self) -> dict[str, Any]:
        return self.plugin.complete(SETTINGS.get(self.plugin.name, {}))

    @property
    def target(self) -> float:
        needs = self.training.objective.needs
        kind = "features" if needs.student_taps or needs.teacher_taps else "logits"
        return OWN_TARGETS.get(self.plugin.name, TARGETS[kind])

    def step(self) -> None:
        """A whole step of the loop."""
        self.training.step(self.index, 0)

    def bare_step(self, loss: Loss, *, taps: bool, beside: Iterable[nn.Parameter] = ()) -> Callable[[], Tensor]:
        """A step without the loop, on a fresh student and the fixed batch; `beside` is trained with it. It returns the loss."""
        student, teacher = prepared(self.plugin, self.pair[1], self.settings).train(), self.training.teacher
        assert teacher is not None
        parameters = trainable([*student.parameters(), *beside])
        optimizer, batch, needs = make_optimizer(parameters, RECIPE, modules=[student]), self.batch, self.training.objective.needs
        student_taps, teacher_taps = (needs.student_taps, needs.teacher_taps) if taps else ((), ())

        def step() -> Tensor:
            with autocast(PRECISION, CPU):
                with torch.no_grad():
                    taught = teacher(batch.teacher_images, taps=teacher_taps)
                learnt = student(batch.images, taps=student_taps)
            value = loss(batch, learnt, taught)
            value.backward()
            torch.nn.utils.clip_grad_norm_(parameters, RECIPE.clip_norm or torch.inf)
            optimizer.step()
            optimizer.zero_grad()
            return value.detach()

        return step


def images() -> ImageSet:
    random = np.random.default_rng(0)
    pixels, labels = random.integers(0, 256, (IMAGES, 3, 32, 32), dtype=np.uint8), random.integers(0, CLASSES, IMAGES)
    return ImageSet(pixels, labels, np.arange(IMAGES).astype(str), tuple(map(str, range(CLASSES))))


def prepared(plugin: registry.Plugin, name: str, settings: Mapping[str, Any]) -> Any:
    """The student as the method wants it."""
    student = network(name)
    if prepare := plugin.facts["prepare_student"]:
        prepare(student, settings)
    return student


def made(name: str, pair: tuple[str, str], data: ImageSet) -> Case:
    """The method of that name on a pair; raises SettingError with its sentence where it refuses the pair."""
    plugin, given = registry.get("method", name), SETTINGS.get(name, {})
    settings = plugin.complete(given)
    teacher, student = frozen(network(pair[0])), prepared(plugin, pair[1], settings)
    warm_up = plugin.facts["warm_up"]
    warm = frozen(warm_up.make(teacher, settings)) if warm_up else None
    objective = make_objective(
        plugin, given, published_weights(plugin, given), student=student, teacher=teacher, images=data, rng=torch.Generator(), warm=warm
    )
    training = Training(
        student, data, data.subset(np.arange(10)), RECIPE, who=(0, "student", 0), folder=Path(tempfile.mkdtemp()), objective=objective,
        teacher=teacher,
    )  # fmt: skip
    index = torch.from_numpy(np.random.default_rng(1).permutation(IMAGES)[:BATCH])
    return Case(plugin, pair, training, index, training.batch(index, 0))


def pairs_of(plugin: registry.Plugin) -> list[tuple[str, str]]:
    return [TO_CNN, TO_VIT] if plugin.facts["direction"].startswith("CNN") else [TO_CNN]


def over_floor(case: Case, pairs: int) -> dict[str, Any]:
    """The time and the memory of the case's step, and those of its floor."""
    views = case.batch.views
    floor = case.bare_step(lambda batch, student, _: nn.functional.cross_entropy(student.logits[::views], batch.labels), taps=False)
    ratio = clear_ratio(case.step, floor, pairs, case.target)
    module = case.training.objective.module
    tensors = [*module.parameters(), *module.buffers()] if module else []
    memory = {
        "step_megabytes": peak_megabytes(case.step),
        "floor_megabytes": peak_megabytes(floor),
        "kept_megabytes": sum(tensor.numel() * tensor.element_size() for tensor in tensors) / 2**20,
    }
    return {"teacher": case.pair[0], "student": case.pair[1], "views": views, "over_floor": ratio, "memory": memory}


def clear_ratio(a: Callable[[], object], b: Callable[[], object], pairs: int, target: float) -> dict[str, Any]:
    """The paired ratio; of twice the pairs, measured afresh, where the first interval holds the target."""
    ratio = paired_ratio(a, b, pairs=pairs, warm_ups=WARM_UPS, target=target)
    if ratio["low"] <= target <= ratio["high"]:
        ratio = paired_ratio(a, b, pairs=2 * pairs, warm_ups=0, target=target)
    return ratio


def beside(case: Case, pairs: int) -> dict[str, Any] | None:
    """Our step over torchdistill's, or None where it has no such method."""
    from counterparts import COUNTERPARTS, Ours

    if case.plugin.name not in COUNTERPARTS:
        return None
    objective, teacher = case.training.objective, case.training.teacher
    assert teacher is not None
    widths = case.training.network.shapes()["pooled"][0], teacher.shapes()["pooled"][0]
    facts = Ours(case.settings, published_weights(case.plugin, case.settings), widths, IMAGES, case.index)
    their_loss, their_parameters = COUNTERPARTS[case.plugin.name](facts)
    our_loss: Loss = lambda batch, *seen: objective.weighted(objective.function(batch, *seen), batch.clock)  # noqa: E731
    our_step = case.bare_step(our_loss, taps=True, beside=objective.auxiliary_parameters())
    their_step = case.bare_step(their_loss, taps=True, beside=their_parameters)

    def ours() -> Tensor:
        value = our_step()
        objective.after_step()
        return value

    objective.train_mode()
    first = {"our_first_loss": float(ours()), "their_first_loss": float(their_step())}
    ratio = clear_ratio(ours, their_step, pairs, BESIDE_TARGET)
    return {**first, **ratio, "less_time_percent": 100 * (1 - ratio["ratio"])}


def figures(names: Iterable[str], pairs: int) -> dict[str, Any]:
    data = images()
    found: dict[str, list[dict[str, Any]]] = {}
    misses: list[str] = []
    with_torchdistill = importlib.util.find_spec("torchdistill") is not None
    for name, case in cases(names, data):
        if isinstance(case, str):
            found.setdefault(name, []).append({"refused": case})
            continue
        row = over_floor(case, pairs)
        label = f"{name}, {case.pair[0]} to {case.pair[1]}"
        report(label, "the floor", row["over_floor"], misses)
        if with_torchdistill and case.pair == TO_CNN and (ratio := beside(case, pairs)):
            row["beside_torchdistill"] = ratio
            report(label, "torchdistill's time", ratio, misses)
            print(f"  {ratio['less_time_percent']:.0f} % less time than torchdistill", flush=True)
        found.setdefault(name, []).append(row)
    facts = {"batch": BATCH, "images": IMAGES, "classes": CLASSES, "pixels": 32, "precision": PRECISION, "settings": SETTINGS}
    torchdistill = version("torchdistill") if with_torchdistill else "not installed: nothing was measured beside it"
    return {**facts, "torchdistill": torchdistill, "targets_missed_or_near": misses, "methods": found}


def cases(names: Iterable[str], data: ImageSet) -> Iterator[tuple[str, Case | str]]:
    """Every method on its pairs, one at a time in memory; the sentence of its refusal where it refuses one."""
    for name in names:
        for pair in pairs_of(registry.get("method", name)):
            try:
                yield name, made(name, pair, data)
            except SettingError as error:
                print(f"{name}, {pair[0]} to {pair[1]}: {error}")
                yield name, str(error)


def report(label: str, whom: str, ratio: Mapping[str, Any], misses: list[str]) -> None:
    """A line on the terminal; a target that was not met, or only by the lower bound of the interval, is also added to `misses`."""
    within = ratio["ratio"] <= ratio["target"]
    verdict = "met" if within else "met by the lower bound only" if ratio["met"] else "NOT met"
    bounds = f"{ratio['low']:.3f} to {ratio['high']:.3f}"
    line = f"{label}: {ratio['ratio']:.3f} of {whom} ({bounds}), target {ratio['target']} {verdict}"
    print(line, flush=True)
    if not within:
        misses.append(line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("methods", nargs="*", metavar="METHOD", help="all where none is named")
    parser.add_argument("--pairs", type=int, default=PAIRS, help="pairs of steps for each ratio; %(default)s where not said")
    asked = parser.parse_args()
    torch.set_num_threads(THREADS)
    keep_freed_memory()  # as `Training.run` does
    found = figures(asked.methods or registry.names("method"), asked.pairs)
    if asked.methods or asked.pairs < PAIRS:
        print(json.dumps(found, indent=1))
    else:
        save_result("method_cost", found)


if __name__ == "__main__":
    main()
