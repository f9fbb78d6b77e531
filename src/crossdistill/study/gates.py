"""Ceilings for the signal gate: students trained on a probe's own images, where no network of the study shows that they can be read."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from crossdistill.compare.gates import SignalGate
from crossdistill.core.config import StudyConfig
from crossdistill.core.records import CEILING
from crossdistill.core.registry import get
from crossdistill.core.seeds import permutation
from crossdistill.core.types import ImageSet
from crossdistill.probes._build import ProbeSet, build_probe_set
from crossdistill.study.keys import KeyMaker
from crossdistill.study.plan import Training
from crossdistill.study.probes import supplied
from crossdistill.study.supplies import supplies_for
from crossdistill.study.workshop import Workshop

RUN_SEED = 0  # of every ceiling, whichever seeds the study has: one training is enough to see whether there is anything to learn


def possible_ceilings(config: StudyConfig, keys: KeyMaker, probe_sets: Mapping[str, ProbeSet]) -> tuple[Training, ...]:
    """The trainings that the signal gate may ask for: each student of a pair on each probe, by the students' recipe, labels only.

    Those of one student stand together, so that the next student is asked only for what the first could not read. Levels of one
    size share a training; where a probe's levels differ in size, each has its own. None where the study file says `off`.
    """
    if config.signal_gate == "off":
        return ()
    students = dict.fromkeys(pair.student for pair in config.pairs)
    return tuple(
        _ceiling(config, keys, student, probe_set, level)
        for student in students
        for probe_set in probe_sets.values()
        for level in _trained_apart(probe_set)
    )


def _trained_apart(probe_set: ProbeSet) -> Sequence[str | None]:
    sizes = {tuple(level["size"]) for level in probe_set.manifest["levels"]}
    return [None] if len(sizes) == 1 else probe_set.level_names


def _ceiling(config: StudyConfig, keys: KeyMaker, student: str, probe_set: ProbeSet, level: str | None) -> Training:
    recipe = config.recipe(student)
    plugin = get("probe", probe_set.name)
    levels = [dict(probe_set.levels[number]) for number in _level_numbers(probe_set, level)]
    probed = [plugin.name, plugin.identity, levels, probe_set.manifest.get("supplies", {})]
    key = keys.key(CEILING, student, RUN_SEED, recipe, probe=probed)
    return Training(CEILING, student, RUN_SEED, recipe, key, probe=probe_set.name, level=level)


def _level_numbers(probe_set: ProbeSet, level: str | None) -> list[int]:
    return [number for number, name in enumerate(probe_set.level_names) if level in (None, name)]


def is_needed(ceiling: Training, gates: Mapping[tuple[str, str], SignalGate]) -> bool:
    """Whether a level on which the ceiling is trained has not passed its gate, and could."""
    of_levels = (gate for (probe, level), gate in gates.items() if probe == ceiling.probe and ceiling.level in (None, level))
    return any(gate.could_pass for gate in of_levels)


def training_images(shop: Workshop, training: Training) -> tuple[ImageSet, ImageSet]:
    """The images that a network is trained and validated on: the study's own, or for a ceiling these as its probe shows them.

    A ceiling is trained on every level that it is for, each image at one of them, and validated (for its log) at the middle one.
    """
    splits, probe = shop.splits, training.probe
    if probe is None:
        return splits.train, splits.validation
    chosen = shop.probe_sets[probe]
    levels = [chosen.levels[number] for number in _level_numbers(chosen, training.level)]
    return shared_out(shop, probe, splits.train, levels), probed(shop, probe, splits.validation, levels[len(levels) // 2])


def shared_out(shop: Workshop, probe: str, images: ImageSet, levels: Sequence[Mapping[str, Any]]) -> ImageSet:
    """Images as a probe shows them, each at one of the levels; those that it cannot treat are left out.

    They are dealt out by key, class after class, so that every level gets its share of the images and of each class.
    """
    keyed = permutation(len(images), shop.config.seed, CEILING, probe, "level")
    number = np.empty(len(images), np.int64)
    number[np.lexsort((keyed, images.labels))] = np.arange(len(images)) % len(levels)
    rows = [np.flatnonzero(number == i) for i in range(len(levels))]
    shown = [probed(shop, probe, images.subset(of), level) for of, level in zip(rows, levels, strict=True) if len(of)]
    return ImageSet(
        np.concatenate([part.images for part in shown]),
        np.concatenate([part.labels for part in shown]),
        np.concatenate([part.ids for part in shown]),
        images.class_names,
        {"probe": probe},
    )


def probed(shop: Workshop, probe: str, images: ImageSet, level: Mapping[str, Any]) -> ImageSet:
    """Images as a probe of the study shows them at one level, in one draw, with the supplies that the study file names."""
    plugin, folder = get("probe", probe), shop.store / "probes"
    named = supplied(next(chosen for chosen in shop.config.chosen_probes if chosen.name == probe))
    supplies = supplies_for(plugin, images, **named, splits=shop.splits, store=shop.store, device=shop.device, progress=shop.progress)
    built = build_probe_set(
        probe, images, levels=[level], draws=1, seed=shop.config.seed, folder=folder, supplies=supplies, progress=shop.progress
    )
    return built.images(0, 0)
