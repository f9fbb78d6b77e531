"""A study as a graph of content-addressed tasks: images, probes, teachers and their answers, students, observations, tables, page.

A key names a task's result by all that its bytes depend on. Two studies whose graphs share a key share that result, and what a changed
setting makes again are the nodes whose keys it changes. This module needs no torch.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from crossdistill.core import registry
from crossdistill.core.store import digest

if TYPE_CHECKING:
    from crossdistill.core.config import ContrastConfig
    from crossdistill.study.plan import Plan, Training
    from crossdistill.study.workshop import Workshop

State = Literal["done", "in store", "left", "only if needed", "not needed"]

FOUND: tuple[State, ...] = ("done", "in store", "not needed")
"""States in which nothing is left to do."""

STAGES = {
    "images": "images",
    "encoder": "encoder of probes",
    "probe": "probe sets",
    "teacher": "teachers",
    "answers": "teachers' answers",
    "warm_up": "warm-ups",
    "student": "students",
    "observation": "observations",
    "instruments": "instruments",
    "ceiling": "ceilings",
    "predictions": "predictions",
    "metric": "metrics",
    "tables": "tables",
    "page": "page",
}
"""The kinds of task, in an order in which they can be done, each with its name for people."""


@dataclass(frozen=True)
class Node:
    """One task. Seconds are an estimate, None where nothing is known; `basis` says where they come from, `note` what else to know."""

    kind: str
    label: str
    key: str
    reads: tuple[str, ...] = ()  # keys
    run: str = ""  # the folder's name under runs/, of trainings and of what is observed of them
    state: State = "left"
    seconds: float | None = None
    basis: str = ""
    note: str = ""

    def plain(self) -> dict[str, Any]:
        """What plan.json keeps of it: nothing that differs between two calls of the same study."""
        return {"kind": self.kind, "label": self.label, "key": self.key, "reads": list(self.reads)}


def study_graph(plan: "Plan", shop: "Workshop", images: str, contrasts: Iterable["ContrastConfig"]) -> tuple[Node, ...]:
    """Every task of a study on images of that fingerprint, those of the signal gate included; all states are "left".

    The shop knows the probe sets (built, or foreseen) and whether a teacher's answers are stored.
    """
    return tuple(_Graph(plan, shop, images, tuple(contrasts)).nodes())


@dataclass(frozen=True)
class _Graph:
    plan: "Plan"
    shop: "Workshop"
    images: str
    contrasts: tuple["ContrastConfig", ...]

    def nodes(self) -> Iterator[Node]:
        encoder, probes = _encoder_key(self.shop), self.probes
        yield Node("images", self.shop.config.images.source, self.images)
        if encoder:
            yield Node("encoder", "encoder for probes", encoder, (self.images,))
        for probe in self.shop.config.chosen_probes:
            reads = (encoder,) if encoder and _wants_encoder(probe) else ()
            yield Node("probe", probe.name, probes[probe.name], (self.images, *reads))
        for training in self.plan.teachers:
            yield Node("teacher", training.label, training.key, (self.images,), training.run)
        yield from self._answers()
        yield from (Node("warm_up", task.label, task.key, (self.images, task.teacher.key)) for task in self.plan.warm_ups)
        for training in self.plan.students:
            yield Node("student", training.label, training.key, self._read_by(training), training.run)
        for training in self.plan.ceilings:
            yield Node("ceiling", training.label, training.key, (self.images, probes[training.probe or ""]), training.run)
        observed = [node for training in (*self.plan.trainings, *self.plan.ceilings) for node in self._observed(training)]
        yield from observed
        yield from self._evaluated(observed)

    @property
    def probes(self) -> Mapping[str, str]:
        return {name: probe_set.folder.name for name, probe_set in self.shop.probe_sets.items()}

    def _answers(self) -> Iterator[Node]:
        """One node for the answers that students share."""
        shared: dict[str, list[Training]] = {}
        for training in self.plan.students:
            if (found := self.shop.answers.get(training.label)) and found.cached:
                shared.setdefault(found.group, []).append(training)
        for group, readers in shared.items():
            teacher = readers[0].teacher
            assert teacher is not None
            arms = ", ".join(dict.fromkeys(reader.arm for reader in readers))
            yield Node("answers", f"answers of {teacher.network}, seed {teacher.seed}, to {arms}", group, (self.images, teacher.key))

    def _read_by(self, training: "Training") -> tuple[str, ...]:
        answers = self.shop.answers.get(training.label)
        warm_up = None if training.rival else training.warm_up  # of a matched teacher it is known once both are trained
        own = training.own if training.control == "matched_teacher" else None
        read = [task.key for task in (training.teacher, training.rival, warm_up, own) if task]
        return (self.images, *read, *([answers.group] if answers and answers.cached else []))

    def _observed(self, training: "Training") -> Iterator[Node]:
        """The observations and measurements of one network, and the table of its predictions."""
        seen = []
        for test_set, file in self.shop.observation_files.items():
            if training.probe in (None, test_set):
                reads = (training.key, self.probes.get(test_set, self.images))
                key = digest([training.key, training.run, file])
                seen.append(Node("observation", f"{test_set} by {training.label}", key, reads, training.run))
        yield from seen
        if training.probe is None and (files := _instrument_files(self.shop)):
            key = digest([training.key, training.run, files])
            yield Node("instruments", f"instruments on {training.label}", key, (training.key, self.images), training.run)
        reads = tuple(node.key for node in seen)
        yield Node("predictions", f"predictions of {training.label}", digest(["predictions", *sorted(reads)]), reads, training.run)

    def _evaluated(self, observed: list[Node]) -> Iterator[Node]:
        """What is made of all observations."""
        reads = tuple(node.key for node in observed if node.kind == "predictions")
        metrics = [registry.get("metric", name) for name in registry.names("metric")]
        figures = [Node("metric", plugin.name, digest([plugin.name, plugin.identity, sorted(reads)]), reads) for plugin in metrics]
        yield from figures
        reads = tuple(node.key for node in (*figures, *observed) if node.kind in ("metric", "instruments"))
        declared = [contrast.model_dump(mode="json") for contrast in self.contrasts]
        tables = Node("tables", "results, inheritance, transfer, similarity", digest(["tables", sorted(reads), declared]), reads)
        yield tables
        yield Node("page", "report.html", digest(["page", tables.key]), (tables.key,))


def _encoder_key(shop: "Workshop") -> str | None:
    """The name of the encoder that is trained for the probes that want one and are given none."""
    if not any(_wants_encoder(probe) for probe in shop.config.chosen_probes):
        return None
    from crossdistill.study.encoders import encoder_file

    return encoder_file(shop.splits, shop.store).parent.name


def _wants_encoder(probe: Any) -> bool:
    return probe.encoder is None and "encoder" in registry.get("probe", probe.name).inputs


def _instrument_files(shop: "Workshop") -> list[str]:
    from crossdistill.study.instruments import instrument_files

    return sorted(instrument_files(shop.config, shop.splits.test).values())
