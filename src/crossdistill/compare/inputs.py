"""What metrics may read of one network's answers to one set, by name; `crossdistill.metrics` says what each name holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from crossdistill.compare.applied import Unavailable
from crossdistill.compare.observed import CLEAN, Answers, ObservedRun, chance_level, clean_answers, correct, paired, shared_index
from crossdistill.metrics._temperature import probabilities
from crossdistill.metrics.js_invariance import spread_between_images

SMALLEST_POOL = 3
"""Different clean accuracies through which a line is drawn: any two lie on one."""

NO_TEMPERATURE = "no temperature was fitted on held-out images"


@dataclass(frozen=True)
class Clean:
    """One network's answers to the clean images, and what the figures of every probe read of them."""

    answers: Answers
    temperature: float | Unavailable

    @classmethod
    def of(cls, run: ObservedRun) -> Clean | None:
        answers = clean_answers(run)
        return None if answers is None else cls(answers, temperature(run))

    @cached_property
    def spread(self) -> np.ndarray | Unavailable:
        """How far each image's prediction is from the others', [images]."""
        if isinstance(self.temperature, Unavailable):
            return self.temperature
        return spread_between_images(probabilities(self.answers.logits, self.temperature))


@dataclass(frozen=True)
class Shown:
    """One network's answers to one set at one level, beside its answers to the clean images where it was shown them."""

    run: ObservedRun
    probe: str
    answers: Answers
    clean: Clean | None

    @cached_property
    def beside(self) -> Answers | None:
        """The answers to the clean versions of the same images; None where the set does not show clean images again."""
        if self.clean is None or not paired(self.probe, self.answers, self.clean.answers):
            return None
        return self.clean.answers.at(self.answers.index)

    @cached_property
    def accuracies(self) -> tuple[float, float] | None:
        """Accuracy on the probe and on the clean versions of the same images; None where either cannot be had."""
        if self.beside is None or not self.answers.labelled:
            return None
        return float(correct(self.answers).mean()), float(correct(self.beside).mean())

    def at(self, index: np.ndarray) -> Shown:
        return self if np.array_equal(self.answers.index, index) else Shown(self.run, self.probe, self.answers.at(index), self.clean)


def own_inputs(shown: Shown) -> dict[str, Any]:
    """What there is to read of a network by itself. Raises ValueError where the probe's labels are not those of the clean images."""
    answers, beside = shown.answers, shown.beside
    inputs: dict[str, Any] = {"logits_or_decisions": answers.decisions, "decisions": answers.decisions}
    inputs |= {f"{factor}_labels": values for factor, values in answers.factors.items()}
    if answers.has_logits:
        inputs |= {"logits": answers.logits, "temperature": temperature(shown.run)}
    if shown.probe == CLEAN[0]:
        inputs |= _measured(shown.run)
    if beside is not None:
        inputs |= {"clean_decisions": beside.decisions, "probe_decisions": answers.decisions}
        if answers.has_logits and beside.has_logits:
            inputs |= {"clean_logits": beside.logits, "probe_logits": inputs["logits"]}
            if shown.clean is not None and beside is shown.clean.answers:  # all clean images: the same for every probe
                inputs["clean_spread"] = shown.clean.spread
    return inputs | _labelled_inputs(shown, inputs) if answers.labelled else inputs


def pool_inputs(shown: Shown, pool: Sequence[Shown]) -> dict[str, Any]:
    """The accuracies of a pool of other networks on the same sets; none where they are too few to draw a line through."""
    known = np.array([other.accuracies for other in pool if other.accuracies is not None]).reshape(-1, 2)
    if shown.accuracies is None or len(np.unique(known[:, 1])) < SMALLEST_POOL:
        return {}
    return {"pool_probe_accuracies": known[:, 0], "pool_clean_accuracies": known[:, 1]}


def inputs_of_two(a: Answers, b: Answers, where: str) -> dict[str, Any]:
    """What there is to read of two networks' answers to the same images. Raises ValueError where draws or labels differ."""
    if len(a.draws) != len(b.draws):
        raise ValueError(f"{where}: {len(a.draws)} and {len(b.draws)} draws; the same draws must be compared")
    inputs: dict[str, Any] = {"decisions_a": a.decisions, "decisions_b": b.decisions}
    if not (a.labelled and b.labelled):
        return inputs
    if not np.array_equal(a.labels, b.labels):
        raise ValueError(f"{where}: the same images have other labels")
    return {**inputs, "labels": a.labels, "correct_a": correct(a), "correct_b": correct(b)}


def teacher_inputs(shown: Shown, teacher: Shown) -> dict[str, Any]:
    """What there is to read of a network (a) beside its teacher (b), both on the same images."""
    own, theirs = shown.answers, teacher.answers
    inputs = inputs_of_two(own, theirs, f"'{shown.run.record.run}' and its teacher '{teacher.run.record.run}' on '{shown.probe}'")
    return inputs | ({"student_logits": own.logits, "teacher_logits": theirs.logits} if own.has_logits and theirs.has_logits else {})


def side_inputs(student: Shown, teacher: Shown, independent: Shown, second: Shown | None = None) -> dict[str, Any]:
    """The decisions of a student, its teacher and one or two independents to the same images, and the labels where there are some."""
    of_all = {"student": student, "teacher": teacher, "independent": independent} | ({"second_independent": second} if second else {})
    inputs: dict[str, Any] = {f"{role}_decisions": of.answers.decisions for role, of in of_all.items()}
    return inputs | ({"labels": student.answers.labels} if student.answers.labelled else {})


def on_shared_images(*of_networks: Shown) -> tuple[Shown, ...]:
    """All of them on the images that all answered, in the first one's order; nothing where there are none.

    Raises ValueError where the networks were shown different draws.
    """
    if len({shown.answers.split for shown in of_networks}) > 1:
        return ()
    counts = [len(shown.answers.draws) for shown in of_networks]
    if len(set(counts)) > 1:
        names = " and ".join(f"'{shown.run.record.run}'" for shown in of_networks)
        raise ValueError(f"{names} on '{of_networks[0].probe}': {' and '.join(map(str, counts))} draws; the same draws must be compared")
    kept = shared_index([shown.answers.index for shown in of_networks])
    return tuple(shown.at(kept) for shown in of_networks) if len(kept) else ()


def temperature(run: ObservedRun) -> float | Unavailable:
    """The temperature fitted on the network's clean validation logits, or why there is none."""
    fitted = run.record.estimates.get("temperature")
    if fitted is None or fitted.value is None:
        return Unavailable((fitted and fitted.reason) or NO_TEMPERATURE)
    return fitted.value


def _labelled_inputs(shown: Shown, inputs: Mapping[str, Any]) -> dict[str, Any]:
    answers, beside = shown.answers, shown.beside
    found: dict[str, Any] = {"labels": answers.labels, "chance": chance_level(answers.labels)}
    if answers.has_logits:
        at = inputs["temperature"]
        found["probabilities"] = at if isinstance(at, Unavailable) else probabilities(inputs["logits"], at)
    if beside is None:
        return found
    if not np.array_equal(beside.labels, answers.labels):
        raise ValueError(f"probe '{shown.probe}' has other labels than the clean images of the same index: its labels are misaligned")
    return {**found, "probe_correct": correct(answers), "clean_correct": correct(beside)}


def _measured(run: ObservedRun) -> dict[str, Any]:
    """What instruments gave; text is the reason why one gave nothing. What a picture or another table is made of is no input."""
    found = {name: Unavailable(value) if isinstance(value, str) else value for name, value in run.measured.items()}
    return {name: value for name, value in found.items() if isinstance(value, Unavailable | np.ndarray)}
