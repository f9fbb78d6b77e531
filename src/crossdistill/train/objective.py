"""What the loop asks of an objective: weighted terms, an optional adversary, optional state. The loop knows no names."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from crossdistill.core.errors import SettingError, nearest
from crossdistill.core.types import Activations, Batch, Clock, Needs, Views
from crossdistill.ops.losses import cross_entropy
from crossdistill.ops.network import Network

Terms = dict[str, Tensor]
ROOT_TERM = "ce"


def labels_only(batch: Batch, student: Activations, teacher: Activations | None) -> Terms:
    """The objective of teachers and independents: cross-entropy with the labels, on the clean row of each image."""
    return {ROOT_TERM: cross_entropy(student.logits[:: batch.views], batch.targets)}


@dataclass(frozen=True)
class Objective:
    """A method made for one pair, with the weights of its terms (None: each counts once).

    `function(batch, student, teacher) -> {term: scalar}`. Where it is a module, its parameters that require grad are trained and
    its state is saved; `adversary(batch, student, teacher)` and `adversary_parameters()` add a second optimiser, whose learning
    rate is `adversary_rate` (1 where it has none) times the student's; `after_step()` is called once for each optimiser step,
    which is where state such as a memory bank moves. `until` is the share of the epochs, rounded up, in which the teacher teaches;
    after it the student learns from the labels alone.
    """

    function: Callable[..., Terms] = labels_only
    weights: Mapping[str, float] | None = field(default_factory=lambda: {ROOT_TERM: 1.0})
    needs: Needs = field(default_factory=Needs)
    views: Views | None = None
    ramp_epochs: float = 0.0
    until: float | None = None

    @property
    def module(self) -> nn.Module | None:
        return self.function if isinstance(self.function, nn.Module) else None

    def teaches(self, clock: Clock) -> bool:
        """Whether the method's own terms count at this step."""
        return clock.epoch < taught_epochs(self.until, clock.epochs)

    def weighted(self, terms: Terms, clock: Clock) -> Tensor:
        """Sum of weight * ramp * term. Raises SettingError where terms and weights do not name the same things."""
        weights = self.weights or dict.fromkeys(terms, 1.0)
        if unknown := set(terms) ^ set(weights):
            name = sorted(unknown)[0]
            raise SettingError(f"weights name {sorted(weights)}, the objective gave {sorted(terms)}: '{name}' is on one side only")
        ramp = self._ramp(clock)
        return torch.stack([weights[name] * (1.0 if name == ROOT_TERM else ramp) * value for name, value in terms.items()]).sum()

    def _ramp(self, clock: Clock) -> float:
        epochs_done = clock.step / (clock.steps / clock.epochs)
        return min(1.0, epochs_done / self.ramp_epochs) if self.ramp_epochs else 1.0

    @property
    def adversary(self) -> Callable[..., Terms] | None:
        return getattr(self.function, "adversary", None)

    @property
    def adversary_rate(self) -> float:
        """The adversary's learning rate as a share of the student's."""
        return getattr(self.function, "adversary_rate", 1.0)

    def adversary_parameters(self) -> list[nn.Parameter]:
        return list(self.function.adversary_parameters()) if self.adversary else []  # type: ignore[attr-defined]

    def auxiliary_parameters(self) -> list[nn.Parameter]:
        """The objective's own trained parameters, the adversary's apart."""
        if self.module is None:
            return []
        adversarial = {id(parameter) for parameter in self.adversary_parameters()}
        return [p for p in self.module.parameters() if p.requires_grad and id(p) not in adversarial]

    def train_mode(self) -> None:
        """Train mode for what is trained; submodules without a trained parameter (a warmed-up head) stay in eval mode."""
        if self.module is None:
            return
        self.module.train()
        for child in self.module.modules():
            parameters = list(child.parameters())
            if parameters and not any(p.requires_grad for p in parameters):
                child.eval()

    def after_step(self) -> None:
        if hook := getattr(self.function, "after_step", None):
            hook()


def taught_epochs(until: float | None, epochs: int) -> int:
    """The epochs in which the teacher teaches: the share `until` of them, rounded up; all where it is None.

    >>> taught_epochs(0.5, 3), taught_epochs(0.28, 25), taught_epochs(None, 3)
    (2, 7, 3)
    """
    return epochs if until is None else math.ceil(round(until * epochs, 9))  # 0.28 * 25 is 7.000000000000001


def method_weights(published: Mapping[str, float], *, weight: float, weights: Mapping[str, float]) -> dict[str, float]:
    """The published weights, those in `weights` replaced, every term but `ce` multiplied by `weight`.

    >>> method_weights({"ce": 0.1, "kd": 0.9}, weight=2.0, weights={"ce": 1.0})
    {'ce': 1.0, 'kd': 1.8}
    """
    for name in weights:
        if name not in published:
            raise SettingError(f"there is no term '{name}' to weigh.{nearest(name, published)} The terms: {', '.join(published)}")
    return {name: weights.get(name, value) * (1.0 if name == ROOT_TERM else weight) for name, value in published.items()}


def make_objective(
    plugin: Any, settings: Mapping[str, Any], weights: Mapping[str, float], *, student: Any, teacher: Any, images: Any,
    rng: torch.Generator, warm: nn.Module | None = None, ramp_epochs: float = 0.0, until: float | None = None,
) -> Objective:  # fmt: skip
    """The objective of a method plug-in for one pair; raises SettingError with the method's own sentence where it refuses."""
    needs = plugin_needs(plugin, settings, student, teacher, images.size)
    supplied = {"warm": warm} if warm is not None else {}
    function = plugin.function(student, teacher, images, rng, **supplied, **settings)
    if isinstance(function, nn.Module):
        function.to(next(student.parameters()).device)
    return Objective(function, weights, needs, plugin_views(plugin, settings), ramp_epochs, until)


def plugin_needs(plugin: Any, settings: Mapping[str, Any], student: Any, teacher: Any, size: tuple[int, int]) -> Needs:
    """What a method asks of the engine for this pair and images of `size` (height, width); raises SettingError with its refusal.

    The shapes that a method is asked with are those of `Network.shapes`, and of the images under "images".
    """
    ask: Callable[..., Needs] | None = plugin.facts["needs"]
    if ask is None:
        return Needs()
    shapes = {name: {**network.shapes(), "images": (3, *size)} for name, network in (("student", student), ("teacher", teacher))}
    needs = ask(plugin.complete(settings), shapes["student"], shapes["teacher"])
    refusal = needs.refusal or _missing("student", needs.student_taps, shapes) or _missing("teacher", needs.teacher_taps, shapes)
    if refusal:
        raise SettingError(f"method '{plugin.name}' cannot be used here: {refusal}")
    return needs


def _missing(who: str, taps: Iterable[str], shapes: Mapping[str, Mapping[str, Any]]) -> str | None:
    missing = [tap for tap in taps if tap not in shapes[who]]
    return f"it reads {', '.join(missing)} of the {who}, which has only {', '.join(shapes[who])}" if missing else None


def plugin_views(plugin: Any, settings: Mapping[str, Any]) -> Views | None:
    """What a method shows in place of the augmented images, or None where it shows those."""
    make: Callable[..., Views] | None = plugin.facts["views"]
    return make(plugin.complete(settings)) if make else None


def published_weights(plugin: Any, settings: Mapping[str, Any]) -> Mapping[str, float]:
    """The published weights of a method's terms under these settings."""
    weights = plugin.facts["weights"]
    return weights if isinstance(weights, Mapping) else weights(plugin.complete(settings))


def refuse_class_mismatch(student: Network, teacher: Network) -> None:
    """Raise SettingError where teacher and student do not tell the same number of classes apart."""
    if student.n_classes != teacher.n_classes:
        raise SettingError(
            f"the teacher was trained on {teacher.n_classes} classes, the student has {student.n_classes}: pick one image source for both"
        )


def trainable(parameters: Iterable[nn.Parameter]) -> list[nn.Parameter]:
    return [parameter for parameter in parameters if parameter.requires_grad]
