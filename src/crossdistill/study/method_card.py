"""What there is to know about a method before one chooses it, as facts: from its decorator, its settings and one step of it."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from crossdistill.core.registry import Plugin, describe
from crossdistill.study.method_trial import PAIRS, Trial, try_method
from crossdistill.train.objective import published_weights

SOURCES = {
    "attention": "attention",
    "dense": "logits at single positions",
    "stage": "feature maps",
    "last": "feature maps",
    "pooled": "pooled vectors",
    "logits": "logits",
}
"""What a teacher's tap (or the start of its name) gives. A method belongs to the first of these that it reads."""


@dataclass(frozen=True)
class MethodCard:
    """A method's facts; `crossdistill list methods NAME --json` prints them as they are."""

    name: str
    summary: str
    paper: str
    direction: str
    version: int
    description: str  # the factory's docstring
    weights: Mapping[str, float]
    other_weights: Mapping[str, Mapping[str, float]]  # {"variant: release": the weights under that setting}
    weights_follow_settings: bool
    settings: Mapping[str, Mapping[str, Any]]  # {name: {"type": words, "default": value}}
    changes_views: bool
    prepares: str  # what is added to the student, in words; empty where nothing is
    trials: tuple[Trial, ...]  # one for each of PAIRS

    @property
    def family(self) -> str:
        """What of the teacher the method reads, of several the first in SOURCES; empty for nothing, or where it refuses every pair."""
        reads = next((trial.teacher_reads for trial in self.trials if not trial.refusal), ())
        return next((words for tap, words in SOURCES.items() if any(name.startswith(tap) for name in reads)), "")


def method_card(plugin: Plugin) -> MethodCard:
    """The card of a method; runs one step of it, and of kd, on each of the pairs of small networks: about a second."""
    facts, prepare, weights = describe(plugin), plugin.facts["prepare_student"], published_weights(plugin, {})
    return MethodCard(
        name=plugin.name,
        summary=facts["summary"],
        paper=facts["paper"],
        direction=facts["direction"],
        version=facts["version"],
        description=inspect.getdoc(plugin.function) or "",
        weights=weights,
        other_weights=_other_weights(plugin, weights),
        weights_follow_settings=callable(plugin.facts["weights"]),
        settings=facts["settings"],
        changes_views=plugin.facts["views"] is not None,
        prepares=((inspect.getdoc(prepare) or "yes").splitlines()[0]) if prepare else "",
        trials=tuple(try_method(plugin, pair) for pair in PAIRS),
    )


def _other_weights(plugin: Plugin, default: Mapping[str, float]) -> dict[str, Mapping[str, float]]:
    """The published weights under each choice of a setting that changes them."""
    choices = {name: get_args(field.annotation) for name, field in plugin.settings.model_fields.items() if _is_choice(field.annotation)}
    weights = {f"{name}: {value}": published_weights(plugin, {name: value}) for name, values in choices.items() for value in values}
    return {setting: given for setting, given in weights.items() if dict(given) != dict(default)}


def _is_choice(annotation: Any) -> bool:
    arguments = get_args(annotation)
    return bool(arguments) and all(isinstance(argument, str) for argument in arguments)
