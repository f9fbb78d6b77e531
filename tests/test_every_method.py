"""The contract that every distillation method keeps, on all four pairs of families at 32 px: one file more is one method more here."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from crossdistill.core import registry
from crossdistill.core.errors import SettingError
from crossdistill.core.recipe import TrainingConfig
from crossdistill.core.types import ImageSet
from crossdistill.models._build import build_network
from crossdistill.ops.modes import frozen
from crossdistill.train.loop import Training
from crossdistill.train.objective import Objective, make_objective, published_weights

CLASSES, BATCH = 5, 6
NETWORKS: dict[str, dict[str, Any]] = {
    "cnn": {"model": "small/resnet8"},
    "vit": {"model": "small/vit", "settings": {"width": 32, "depth": 4, "heads": 2}},
}
PAIRS = [("cnn", "vit"), ("vit", "cnn"), ("cnn", "cnn"), ("vit", "vit")]  # teacher, student
METHODS = registry.names("method")
REFUSED = {("capd", "cnn"): "attention"}  # (method, teacher): a word of the sentence


def images(n: int) -> ImageSet:
    random = np.random.default_rng(0)
    labels = np.arange(n) % CLASSES
    return ImageSet(random.integers(0, 256, (n, 3, 32, 32), dtype=np.uint8), labels, np.arange(n).astype(str), tuple("abcde"))


def network(family: str, seed: int) -> Any:
    torch.manual_seed(seed)
    return build_network(NETWORKS[family]["model"], CLASSES, (32, 32), settings=NETWORKS[family].get("settings"))


@dataclass
class Made:
    """A method made for one pair, ready to be trained by the real loop."""

    training: Training
    objective: Objective
    student: Any
    teacher: Any

    def batch(self, n: int) -> Any:
        return self.training.batch(torch.arange(n), 0)

    def losses(self, n: int) -> dict[str, torch.Tensor]:
        """One forward pass of the student in train mode, and the method's terms on its first n images."""
        batch, needs = self.batch(n), self.objective.needs
        self.student.train()
        self.objective.train_mode()
        taught = self.training.answers(batch)
        return self.objective.function(batch, self.student(batch.images, taps=needs.student_taps), taught)


Make = Callable[..., Made]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def made(name: str, pair: tuple[str, str], *, folder: str = "run", epochs: int = 1, weights: dict[str, float] | None = None) -> Made:
        plugin, data = registry.get("method", name), images(2 * BATCH if epochs > 1 else BATCH)
        teacher, student = frozen(network(pair[0], 1)), network(pair[1], 2)
        torch.manual_seed(3)
        if prepare := plugin.facts["prepare_student"]:
            prepare(student, plugin.complete({}))
        torch.manual_seed(4)
        warm_up = plugin.facts["warm_up"]
        warm = frozen(warm_up.make(teacher, plugin.complete({}))) if warm_up else None
        every = {**published_weights(plugin, {}), **(weights or {})}
        rng = torch.Generator().manual_seed(5)
        objective = make_objective(plugin, {}, every, student=student, teacher=teacher, images=data, rng=rng, warm=warm)
        recipe = TrainingConfig(
            epochs=epochs, batch_size=BATCH, precision="fp32", threads=1, learning_rate=1e-3, weight_decay=0.0, warmup_epochs=0
        )
        training = Training(
            student, data, data, recipe, who=(0, "student", 0), folder=tmp_path / folder, objective=objective, teacher=teacher
        )
        return Made(training, objective, student, teacher)

    return made


def state(module: Any) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def same_bytes(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def first_layer(student: Any) -> torch.nn.Parameter:
    return next(parameter for parameter in student.model.parameters() if parameter.ndim == 4)


def own_terms(name: str) -> dict[str, float]:
    """Weights that leave the labels out, and every other term in."""
    published = published_weights(registry.get("method", name), {})
    return {term: 0.0 if term == "ce" else weight or 1.0 for term, weight in published.items()}


CASES = [(name, pair) for name in METHODS for pair in PAIRS if (name, pair[0]) not in REFUSED]


@pytest.fixture(params=CASES, ids=lambda value: f"{value[0]}-{'-to-'.join(value[1])}")
def case(request: pytest.FixtureRequest) -> tuple[str, tuple[str, str]]:
    """A method and a pair for which it makes sense."""
    return request.param


@pytest.mark.parametrize(("name", "teacher"), REFUSED)
def test_a_pair_that_makes_no_sense_is_refused_in_a_sentence(make: Make, name: str, teacher: str) -> None:
    with pytest.raises(SettingError, match=f"method '{name}' cannot be used here: .*{REFUSED[name, teacher]}.*"):
        make(name, (teacher, "cnn"))


def test_one_step_moves_what_is_trained_and_nothing_else(case: Any, make: Make) -> None:
    name, pair = case
    made = make(name, pair, weights=own_terms(name))
    teacher, student = state(made.teacher), first_layer(made.student).clone()
    parameters = {} if made.objective.module is None else dict(made.objective.module.named_parameters())
    before = {parameter: value.clone() for parameter, value in parameters.items()}
    made.training.run()
    assert not torch.equal(student, first_layer(made.student)), "the method's own terms do not reach the student's first layer"
    assert same_bytes(teacher, state(made.teacher)), "the teacher or its BatchNorm buffers moved"
    for parameter, value in parameters.items():
        assert torch.equal(before[parameter], value) != value.requires_grad, f"{parameter}: trained if and only if declared so"


def test_the_same_seed_gives_the_same_bytes_and_a_checkpoint_brings_everything_back(case: Any, make: Make) -> None:
    name, pair = case
    first, second = make(name, pair, folder="first", epochs=2), make(name, pair, folder="second", epochs=2)
    first.training.run()
    step = second.training.step

    def stop_in_the_second_epoch(index: Any, epoch: int) -> None:
        step(index, epoch)
        if second.training.clock.step == 3:
            second.training._save()
            raise KeyboardInterrupt

    second.training.step = stop_in_the_second_epoch  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        second.training.run()
    resumed = make(name, pair, folder="second", epochs=2)
    resumed.training.run()
    assert same_bytes(state(first.student), state(resumed.student))
    if first.objective.module is not None and resumed.objective.module is not None:
        assert same_bytes(state(first.objective.module), state(resumed.objective.module))


@pytest.mark.parametrize("scale", [0.0, 1e6], ids=["constant", "saturated"])
def test_constant_and_saturated_logits_give_finite_losses_and_gradients(case: Any, make: Make, scale: float) -> None:
    name, pair = case
    made = make(name, pair)
    with torch.no_grad():
        for heads in (made.student, made.teacher):
            for head in [*heads.reader.classifiers(heads.model).values(), *heads.extra_heads.values()]:
                for parameter in head.parameters():
                    parameter.mul_(scale)
    assert_finite(made, BATCH)


@pytest.mark.parametrize("rows", [1, BATCH - 1], ids=["one", "incomplete"])
def test_a_single_image_and_an_incomplete_batch_work(case: Any, make: Make, rows: int) -> None:
    assert_finite(make(*case), rows)


def assert_finite(made: Made, rows: int) -> None:
    terms = made.losses(rows)
    for term, value in terms.items():
        assert value.ndim == 0, term
        assert value.isfinite(), term
    made.objective.weighted(terms, made.training.clock).backward(inputs=made.training.main)
    for parameter in made.training.main:
        assert parameter.grad is None or parameter.grad.isfinite().all()


@pytest.mark.parametrize("name", METHODS)
def test_a_method_says_where_it_comes_from_and_what_it_is_for(name: str) -> None:
    plugin = registry.get("method", name)
    assert any(character.isdigit() for character in plugin.facts["paper"]), "a paper with its year"
    assert plugin.summary.endswith((".", ")"))
    assert "ce" in published_weights(plugin, {})
    assert len((plugin.function.__doc__ or "").split()) >= 20, "a few sentences for the gallery page"
