"""Which trainings may read their teacher's answers from a store, and where that saves time: decided from the plan alone.

What is finished already does not count, so that a study that was stopped decides again as it did before.
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from crossdistill.core import registry
from crossdistill.core.errors import SettingError
from crossdistill.core.recipe import TrainingConfig
from crossdistill.core.store import digest
from crossdistill.core.types import ImageSet, Needs, Splits, Views
from crossdistill.ops.modes import evaluating
from crossdistill.ops.network import Network
from crossdistill.ops.random import image_keys
from crossdistill.ops.taps import ATTENTION
from crossdistill.study.plan import Plan, Training
from crossdistill.train.augment import Augmentation
from crossdistill.train.objective import plugin_needs, plugin_views, taught_epochs
from crossdistill.train.stored_arrays import in_bytes
from crossdistill.train.teacher import named_arrays, stored

SCHEME = ("views", "crop", "crop_scale", "color", "random_erasing", "precision", "threads", "cache_dtype")
"""The settings of a training that say what a teacher is shown, and in which bytes it answers."""
FREE_SHARE = 4  # `cache: auto` stores what takes up to a quarter of the free space
TRIED_IMAGES, TRIED_KEYS = 16, 8  # with which a method's views are tried for whether they depend on their keys


@dataclass(frozen=True)
class AnswerPlan:
    """Whether the teacher's answers to one student are stored, and why."""

    cached: bool
    why: str
    possible: bool
    required: bool = False
    taps: tuple[str, ...] = ()  # of all students that share the answers
    views: int | None = None  # of each image; None where they are no list
    n_bytes: int = 0  # of all arrays of one teacher run
    live_forwards: int = 0  # images that the teacher is shown where it answers each batch itself
    cached_forwards: int = 0  # this student's share of storing the answers; the same as live where they are not stored
    group: str = ""  # what the students that would read the same arrays have in common, as a digest


@dataclass(frozen=True)
class _Taught:
    """A student with what its method asks of the teacher."""

    training: Training
    needs: Needs
    refusal: str | None  # why its teacher's answers cannot be stored
    views: int | None
    rows: int  # that the teacher is shown of each view

    @property
    def epochs(self) -> int:
        method = self.training.method
        return taught_epochs(method.until if method else None, self.training.recipe.epochs)

    @property
    def group(self) -> str:
        """What students have in common that read the same arrays; a teacher that is matched may teach with earlier weights."""
        training, method = self.training, self.training.method
        assert training.teacher is not None
        assert method is not None
        own_views = [method.name, method.settings] if self.rows > 1 or has_own_views(training) else None
        rival = training.rival.key if training.rival else None
        return json.dumps([training.teacher.key, rival, own_views, self.fused, scheme(training.recipe)], default=str)

    @property
    def fused(self) -> bool:
        """Attention is watched in one fused call, whose answers may differ in the last bits from those of an unwatched pass."""
        return ATTENTION in self.needs.teacher_taps


def answer_plans(plan: Plan, networks: Mapping[str, Network], splits: Splits) -> dict[str, AnswerPlan]:
    """The plan for every student with a teacher, by its label.

    Raises SettingError where `cache: required` stands for a method whose teacher's answers cannot be stored.
    """
    groups: dict[str, list[_Taught]] = {}
    known: dict[str, tuple[Needs, str | None, int | None, int]] = {}
    for training in plan.students:
        if training.method is None or training.teacher is None:
            continue
        if training.subject not in known:  # seeds do not differ in this
            known[training.subject] = _facts(training, networks, splits)
        taught = _Taught(training, *known[training.subject])
        groups.setdefault(taught.group, []).append(taught)
    found: dict[str, AnswerPlan] = {}
    for members in groups.values():
        found |= _group_plans(members, networks, len(splits.train))
    return found


def _facts(training: Training, networks: Mapping[str, Network], splits: Splits) -> tuple[Needs, str | None, int | None, int]:
    assert training.method is not None
    assert training.teacher is not None
    recipe, plugin = training.recipe, registry.get("method", training.method.name)
    settings = plugin.parse(training.method.settings)
    needs = plugin_needs(plugin, settings, networks[training.network], networks[training.teacher.network], splits.train.size)
    views = plugin_views(plugin, settings)
    refusal = refused(recipe, plugin.name, needs, views, splits.train)
    if refusal and recipe.cache == "required":
        raise SettingError(f"{training.subject}: `cache: required` cannot be had, since {refusal}. Set `cache: auto`, or leave it out.")
    return needs, refusal, Augmentation(recipe, splits.train.size, who=(0,)).n_views, teacher_rows(views, splits.train)


def refused(recipe: TrainingConfig, method: str, needs: Needs, views: Views | None, images: ImageSet) -> str | None:
    """Why a teacher's answers cannot or shall not be stored, in words; None where they can."""
    if recipe.cache == "off":
        return "`cache: off`"
    if recipe.views == "free":
        return "`views: free` draws each view afresh, so that no answer serves twice"
    for mixing in ("mixup", "cutmix"):
        if getattr(recipe, mixing):
            return f"{mixing} mixes other images in each step, so that no answer serves twice"
    if views is not None and not fixed(views, images):
        return f"method '{method}' draws what the teacher is shown afresh in each epoch"
    return None if needs.cacheable else f"method '{method}' says that its teacher's answers are not to be stored"


def fixed(views: Views, images: ImageSet) -> bool:
    """Whether what a method shows the teacher does not depend on the keys with which it may draw."""
    few = torch.from_numpy(np.array(images.images[:TRIED_IMAGES]))
    rows = [views(few, image_keys(key, torch.arange(len(few))))[1] for key in range(TRIED_KEYS)]
    return all(torch.equal(rows[0], other) for other in rows[1:])


def teacher_rows(views: Views | None, images: ImageSet) -> int:
    """How many rows the teacher is shown of each image."""
    return 1 if views is None else len(views(torch.from_numpy(np.array(images.images[:1])), torch.zeros(1, dtype=torch.int64))[1])


def has_own_views(training: Training) -> bool:
    """Whether a student's method shows other images than the augmented ones."""
    assert training.method is not None
    plugin = registry.get("method", training.method.name)
    return plugin_views(plugin, plugin.parse(training.method.settings)) is not None


def scheme(recipe: TrainingConfig) -> dict[str, Any]:
    """What a recipe says about what a teacher is shown, and in which bytes it answers, as plain JSON."""
    return recipe.model_dump(mode="json", include=set(SCHEME))


def _group_plans(members: list[_Taught], networks: Mapping[str, Network], n_images: int) -> dict[str, AnswerPlan]:
    """The plans of students that would read the same arrays."""
    asked = sum(taught.epochs for taught in members if not taught.refusal)
    taps = tuple(dict.fromkeys(tap for taught in members if not taught.refusal for tap in taught.needs.teacher_taps))
    plans = {}
    for taught in members:
        training = taught.training
        assert training.teacher is not None
        live = taught.epochs * n_images * taught.rows
        cached, why = _decision(taught, asked, sum(not other.refusal for other in members))
        if taught.refusal or taught.views is None:
            plans[training.label] = AnswerPlan(False, why, possible=False, views=taught.views, live_forwards=live, cached_forwards=live)
            continue
        size = row_bytes(networks[training.teacher.network], taps, training.recipe.cache_dtype) * taught.rows
        share = round(taught.views * n_images * taught.rows * taught.epochs / asked) if cached else live
        required = training.recipe.cache == "required"
        n_bytes, group = size * taught.views * n_images, digest(taught.group)
        plans[training.label] = AnswerPlan(cached, why, True, required, taps, taught.views, n_bytes, live, share, group)
    return plans


def _decision(taught: _Taught, asked: int, students: int) -> tuple[bool, str]:
    """Whether the answers are to be stored, and why, in words."""
    if taught.refusal:
        return False, taught.refusal
    who = f"the {students} students that share the answers" if students > 1 else "the one student that reads the answers"
    views = f"{taught.views} view{'s' if taught.views != 1 else ''} of each image, which is asked about {asked} times by {who}"
    if taught.training.recipe.cache == "required":
        return True, f"`cache: required`; {views}"
    assert taught.views is not None
    return (True, views) if taught.views < asked else (False, f"{views}: storing the answers would not pay")


def affordable(plans: Mapping[str, AnswerPlan], store: Path) -> dict[str, AnswerPlan]:
    """The plans as they would be carried out now: under `cache: auto`, what is more than a quarter of the free space is not stored."""
    free = free_bytes(store)
    return {label: _within(found, free) for label, found in plans.items()}


def _within(found: AnswerPlan, free: int) -> AnswerPlan:
    if not found.cached or found.required or found.n_bytes <= free / FREE_SHARE:
        return found
    return replace(found, cached=False, why=too_large(found.n_bytes, free), cached_forwards=found.live_forwards)


def too_large(n_bytes: int, free: int) -> str:
    """Why answers are not stored on a disk with so many free bytes."""
    return f"they take {in_bytes(n_bytes)}, more than a quarter of the {in_bytes(free)} that are free in the store"


def free_bytes(folder: Path) -> int:
    """What is free on a folder's disk, whether the folder exists already or not."""
    found = os.statvfs(next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists()))
    return found.f_bavail * found.f_frsize


@torch.no_grad()
def row_bytes(teacher: Network, taps: Iterable[str], dtype: str) -> int:
    """The bytes that a teacher's answer to one image takes in the store, found by a dry run."""
    images = torch.zeros(1, 3, *teacher.input_size, dtype=teacher.mean.dtype, device=teacher.mean.device)
    with evaluating(teacher), torch.random.fork_rng(devices=[]):
        answer = named_arrays(teacher(images, taps=taps))
    return sum(value.numel() * value.element_size() for value in (stored(value, dtype) for value in answer.values()))


def answers_json(plan: Plan, plans: Mapping[str, AnswerPlan]) -> list[dict[str, Any]]:
    """What plan.json says of the teachers' answers: a row for each arm of a pair, forward passes summed over its seeds."""
    rows: dict[str, dict[str, Any]] = {}
    for training in plan.students:
        if training.label not in plans:
            continue
        found = asdict(plans[training.label])
        row = rows.setdefault(
            training.subject,
            {"arm": training.subject, "teacher": training.taught_by, "students": 0}
            | {name: found[name] for name in ("cached", "why", "views", "taps", "n_bytes")}
            | {"live_forwards": 0, "cached_forwards": 0},
        )
        row["students"] += 1
        for name in ("live_forwards", "cached_forwards"):
            row[name] += found[name]
    return [{**row, "taps": list(row["taps"])} for row in rows.values()]
