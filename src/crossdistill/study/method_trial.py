"""What a method takes on a small pair of networks: one training step of it, counted. Nothing is timed, so any machine says the same."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from crossdistill.core import registry
from crossdistill.core.errors import SettingError
from crossdistill.core.recipe import TrainingConfig
from crossdistill.core.registry import Plugin
from crossdistill.core.types import Activations, ImageSet
from crossdistill.models._build import build_network
from crossdistill.ops.modes import frozen
from crossdistill.ops.network import Network
from crossdistill.train.loop import Training
from crossdistill.train.objective import Objective, make_objective, published_weights
from crossdistill.train.teacher import LiveTeacher

PAIRS = {"ViT -> CNN": ("small/vit", "small/resnet20"), "CNN -> ViT": ("small/resnet20", "small/vit")}  # teacher, student
N_IMAGES, SIDE, N_CLASSES = 50_000, 32, 10  # CIFAR-10's
BATCH = 8
FLOOR = "kd"  # the method whose step every other is compared with: it reads logits alone


@dataclass(frozen=True)
class Trial:
    """What a method takes on one pair; numbers of parameters, bytes, and operations relative to kd's."""

    pair: str
    refusal: str | None = None  # the sentence; then nothing else is known
    student_reads: tuple[str, ...] = ()
    teacher_reads: tuple[str, ...] = ()
    cacheable: bool = True  # the teacher's answer to an image is the same each time
    student_rows: int = 1  # shown of each image
    teacher_rows: int = 1
    readout: str = "class"  # the student's prediction
    trained: int = 0  # beside the student, gone after training
    adversary: int = 0
    kept: int = 0  # added to the student, to stay
    warmed_up: int = 0  # trained on the teacher alone, before
    warm_up_epochs: int = 0
    state_bytes: int = 0  # what is held and not trained: buffers, and frozen parts
    relative_cost: float = 0.0


@dataclass
class Made:
    """A method made for a pair, and what making it added."""

    objective: Objective
    student: Network
    teacher: Network
    kept: int = 0
    warm: nn.Module | None = None
    read: set[str] = field(default_factory=set)  # fields of the teacher's activations that the method has touched


class Watched:
    """Activations that note which of their fields are read: `needs` names taps, and says nothing of logits."""

    def __init__(self, seen: Activations, read: set[str]) -> None:
        self.seen, self.read = seen, read

    def __getattr__(self, name: str) -> Any:
        self.read.add(name)
        return getattr(self.seen, name)


def try_method(plugin: Plugin, pair: str) -> Trial:
    """One step of the method with its defaults on the pair of that name, on the CPU; or the sentence with which it refuses.

    Operations are matrix products and convolutions of the teacher's and the student's forward pass, the losses and the backward
    pass, as torch counts them. Torch's generators are left as they were.
    """
    with torch.random.fork_rng(devices=[]), _one_thread():
        try:
            made = _make(plugin, pair)
        except SettingError as error:
            return Trial(pair, refusal=str(error))
        step, floor = _one_step(made), _floor(pair)
    objective, module, warm_up = made.objective, made.objective.module or nn.Module(), plugin.facts["warm_up"]
    return Trial(
        pair=pair,
        student_reads=("logits", *objective.needs.student_taps),
        teacher_reads=(*(["logits"] if made.read & {"logits", "heads"} else []), *objective.needs.teacher_taps),
        cacheable=objective.needs.cacheable,
        student_rows=step.student_rows,
        teacher_rows=step.teacher_rows,
        readout=made.student.readout,
        trained=_count(objective.auxiliary_parameters()),
        adversary=_count(objective.adversary_parameters()),
        kept=made.kept,
        warmed_up=_count(made.warm.parameters()) if made.warm else 0,
        warm_up_epochs=warm_up.recipe(plugin.complete({})).get("epochs", 0) if warm_up else 0,
        state_bytes=_bytes(module.buffers()) + _bytes(p for p in module.parameters() if not p.requires_grad),
        relative_cost=step.operations / floor,
    )


@dataclass(frozen=True)
class Step:
    """What one training step did."""

    operations: int
    student_rows: int
    teacher_rows: int


def _make(plugin: Plugin, pair: str) -> Made:
    teacher_name, student_name = PAIRS[pair]
    teacher = frozen(build_network(teacher_name, N_CLASSES, (SIDE, SIDE)))
    student = build_network(student_name, N_CLASSES, (SIDE, SIDE))
    settings, before = plugin.complete({}), student.n_parameters
    if prepare := plugin.facts["prepare_student"]:
        prepare(student, settings)
    kept = student.n_parameters - before
    warm_up = plugin.facts["warm_up"]
    warm = frozen(warm_up.make(teacher, settings)) if warm_up else None
    objective = make_objective(
        plugin, {}, published_weights(plugin, {}), student=student, teacher=teacher, images=_images(), rng=torch.Generator(), warm=warm
    )
    return Made(objective, student, teacher, kept, warm)


def _one_step(made: Made) -> Step:
    """A step of the training loop itself."""
    recipe = TrainingConfig(epochs=1, batch_size=BATCH, precision="fp32")
    images = _images()
    training = Training(made.student, images, images, recipe, who=("trial",), folder=Path(), objective=made.objective, teacher=made.teacher)
    answers, rows = LiveTeacher(made.teacher, made.objective.needs.teacher_taps), torch.arange(BATCH)
    training.answers = lambda batch: cast(Activations, Watched(answers(batch), made.read))
    batch = training.batch(rows, 0)
    # Attention as plain matrix products: which fused kernel there is, and whether torch can count it, depends on the machine.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        training.step(rows, 0)
    return Step(counter.get_total_flops(), batch.views, batch.teacher_views)


@cache
def _floor(pair: str) -> int:
    return _one_step(_make(registry.get("method", FLOOR), pair)).operations


@cache
def _images() -> ImageSet:
    """As many images as CIFAR-10 has, in 53 kB: each is the one before, moved by one value."""
    n_values = 3 * SIDE * SIDE
    values = np.random.default_rng(0).integers(0, 256, N_IMAGES + n_values - 1, dtype=np.uint8)
    images = np.lib.stride_tricks.sliding_window_view(values, n_values).reshape(N_IMAGES, 3, SIDE, SIDE)
    classes = tuple(str(label) for label in range(N_CLASSES))
    return ImageSet(images, np.arange(N_IMAGES) % N_CLASSES, np.arange(N_IMAGES).astype(str), classes)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Torch on one thread: batches this small are done before others have woken, and on a busy machine threads wait for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _count(parameters: Iterable[torch.Tensor]) -> int:
    return sum(parameter.numel() for parameter in parameters)


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
