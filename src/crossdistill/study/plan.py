"""Study file -> plan: every task with its content-addressed key, before anything is trained.

The key of a training hashes what can change its bytes: the settings that differ from their defaults, the versions of the plug-ins
used, the fingerprint of the images, and the keys of the trainings it reads. Adding a probe, a seed or a method adds only its tasks.
"""

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from crossdistill.core import registry
from crossdistill.core.config import ContrastConfig, MethodConfig, StudyConfig, TrainingConfig
from crossdistill.core.errors import WeightsError
from crossdistill.core.store import digest, file_sha256
from crossdistill.core.types import Splits
from crossdistill.models.python import module_file
from crossdistill.train.loop import ENGINE
from crossdistill.train.precision import resolved_precision


@dataclass(frozen=True)
class Training:
    """One network to be trained: a teacher, an independent, or a student of a method."""

    arm: str  # "teacher", "independent", or the method's label
    network: str  # name in the study file
    seed: int
    recipe: TrainingConfig
    key: str
    pair: int | None = None
    method: MethodConfig | None = None
    teacher: "Training | None" = None

    @property
    def run(self) -> str:
        """The folder's name under runs/."""
        return f"{self.arm}-{self.key}"

    @property
    def label(self) -> str:
        """For people."""
        who = f"{self.teacher.network} -> {self.network}" if self.teacher else self.network
        return f"{self.arm}: {who}, seed {self.seed}"

    @property
    def role(self) -> str:
        """The role from which randomness is keyed: the method is absent, so that arms are paired by run seed."""
        return "teacher" if self.arm == "teacher" else "student"


@dataclass(frozen=True)
class Plan:
    """Everything a study will do, in an order in which it can be done: teachers, independents, students."""

    config: StudyConfig
    trainings: tuple[Training, ...]

    @property
    def teachers(self) -> tuple[Training, ...]:
        return tuple(training for training in self.trainings if training.arm == "teacher")

    @property
    def students(self) -> tuple[Training, ...]:
        return tuple(training for training in self.trainings if training.arm != "teacher")

    @property
    def one_teacher_checkpoint(self) -> bool:
        """Whether every student of a pair has the same teacher weights: then nothing is known of other teachers."""
        return len(self.config.seeds) > 1 and all(len(self.config.teacher_seeds(pair.teacher)) == 1 for pair in self.config.pairs)


def make_plan(config: StudyConfig, images_fingerprint: str, device: torch.device) -> Plan:
    """The plan of a study on images of that fingerprint, with `precision: auto` as that device resolves it.

    Nothing is built, decoded or trained.
    """
    trainings: dict[str, Training] = {}
    for training in _trainings(config, images_fingerprint, device):
        trainings.setdefault(training.key, training)  # pairs share teachers and independents
    order = {"teacher": 0, "independent": 1}
    return Plan(config, tuple(sorted(trainings.values(), key=lambda training: order.get(training.arm, 2))))


def _trainings(config: StudyConfig, images: str, device: torch.device) -> Iterator[Training]:
    for i, pair in enumerate(config.pairs):
        teachers = {seed: _training(config, images, device, "teacher", pair.teacher, seed) for seed in config.teacher_seeds(pair.teacher)}
        yield from teachers.values()
        for seed in config.seeds:
            teacher = teachers[config.teacher_seed_for(pair.teacher, seed)]
            if "independent" in config.arms:
                yield _training(config, images, device, "independent", pair.student, seed)
            for method in pair.methods:
                yield _training(config, images, device, method.arm, pair.student, seed, pair=i, method=method, teacher=teacher)


def _training(
    config: StudyConfig, images: str, device: torch.device, arm: str, network: str, seed: int, *,
    pair: int | None = None, method: MethodConfig | None = None, teacher: Training | None = None,
) -> Training:  # fmt: skip
    recipe = config.recipe(network, teacher=arm == "teacher")
    chosen = config.networks[network]
    key = digest({
        "engine": ENGINE,
        "images": images,
        "role": "teacher" if arm == "teacher" else "student",
        "network": [network, chosen.model_dump(mode="json", exclude_defaults=True, exclude={"training", "checkpoint"})],
        "checkpoint": _file_hash(chosen.checkpoint) if chosen.checkpoint else None,
        "network_source": _model_source(chosen.model),
        "recipe": recipe.model_dump(mode="json", exclude_defaults=True),
        "precision": resolved_precision(recipe.precision, device),
        "seeds": [config.seed, seed],
        "method": method.model_dump(mode="json", exclude_defaults=True, exclude={"label"}) if method else None,
        "method_version": registry.get("method", method.name).version if method else None,
        "teacher": teacher.key if teacher else None,
    })  # fmt: skip
    return Training(arm, network, seed, recipe, key, pair, method, teacher)


def _file_hash(path: Path) -> str:
    if not path.is_file():
        raise WeightsError(f"there is no file {path}: `checkpoint` names the .safetensors file of a trained network")
    return file_sha256(path)


def _model_source(model: str | None) -> int | str | None:
    """What may change about a model behind its name: the source's version, or for the user's own code its syntax tree."""
    if model is None:
        return None
    source, _, rest = model.replace(":", "/", 1).partition("/")
    if source == "python":
        return digest(ast.dump(ast.parse(module_file(rest).read_text(encoding="utf-8"))))
    return registry.get("model", source).version


def plan_json(plan: Plan, splits: Splits, contrasts: Iterable[ContrastConfig], observations: Mapping[str, str]) -> dict[str, Any]:
    """`plan.json`: what is stamped into the study folder before the first student starts.

    `observations` are the names of the files that hold a network's answers, one for each test set.
    """
    config = plan.config
    image_settings = registry.get("images", config.images.source).settings(**config.images.settings).model_dump(mode="json")
    return {
        "format": 1,
        "name": config.name,
        "pairs": [
            {"index": i, "teacher": pair.teacher, "student": pair.student, "methods": [method.arm for method in pair.methods]}
            for i, pair in enumerate(config.pairs)
        ],
        "primary": [contrast.model_dump() for contrast in contrasts],
        "tasks": [
            {"key": t.key, "kind": "teacher" if t.arm == "teacher" else "student", "label": t.label, "run": t.run} for t in plan.trainings
        ],
        "observations": dict(observations),
        "one_teacher_checkpoint": plan.one_teacher_checkpoint,
        "images": {
            "source": config.images.source,
            "train": len(splits.train),
            "validation": len(splits.validation),
            "test": len(splits.test),
            "class_names": list(splits.test.class_names),
            "size": list(splits.test.size),
        },
        "factors": {name: image_settings[name] for name in ("label", "correlated") if splits.test.factors and name in image_settings},
    }
