"""Ceilings for the signal gate: students trained on a probe's own images, where no network of the study shows that they can be read."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from crossdistill.compare.gates import SignalGate
from crossdistill.core.config import StudyConfig
from crossdistill.core.errors import ImageError
from crossdistill.core.records import CEILING
from crossdistill.core.registry import get
from crossdistill.core.seeds import key, permutation
from crossdistill.core.types import ImageSet, Splits
from crossdistill.images._transfer import labelled
from crossdistill.probes._build import ProbeSet, build_probe_set, wanted_supplies
from crossdistill.probes._mask_folder import folder_masks
from crossdistill.study.keys import KeyMaker
from crossdistill.study.plan import Training
from crossdistill.study.probes import supplied
from crossdistill.study.supplies import supplies_for
from crossdistill.study.workshop import Workshop

VERSION = 2  # of what a ceiling is trained on: raised when that changes, so that older ceilings are not taken for it
SPLITS = {"train": "training", "validation": "validation"}
RUN_SEED = 0  # of every ceiling, whichever seeds the study has: one training is enough to see whether there is anything to learn


def possible_ceilings(
    config: StudyConfig, keys: KeyMaker, probe_sets: Mapping[str, ProbeSet], left_out: Collection[str] = ()
) -> tuple[Training, ...]:
    """The trainings that the signal gate may ask for: each student of a pair on each probe, by the students' recipe, labels only.

    Those of one student stand together, so that the next student is asked only for what the first could not read. Levels of one
    size share a training first; each has one of its own for where that one does not pass. None where the study file says `off`,
    nor of the probes `left_out`.
    """
    if config.signal_gate == "off":
        return ()
    return tuple(
        _ceiling(config, keys, student, probe_set, level)
        for student in students(config)
        for probe_set in probe_sets.values()
        if probe_set.name not in left_out
        for level in trained_on(probe_set.level_names, [tuple(level["size"]) for level in probe_set.manifest["levels"]])
    )


def students(config: StudyConfig) -> list[str]:
    """The networks that ceilings are made of."""
    return list(dict.fromkeys(pair.student for pair in config.pairs))


def trained_on(names: Sequence[str], sizes: Sequence[tuple[int, int]]) -> list[str | None]:
    """What a probe's ceilings of one student are trained on: all levels (None) where these have one size, and each level alone.

    >>> trained_on(["grid=2", "grid=4"], [(16, 16), (16, 16)]), trained_on(["grid=2", "grid=3"], [(16, 16), (15, 15)])
    ([None, 'grid=2', 'grid=4'], ['grid=2', 'grid=3'])
    """
    if len(names) == 1:
        return [None]
    return [None, *names] if len(set(sizes)) == 1 else [*names]


def without_masks(config: StudyConfig, splits: Splits) -> dict[str, str]:
    """{probe: why it has no ceiling}, where the masks that the study file names show nothing of the training images."""
    found = {}
    for probe in config.chosen_probes:
        named = config.signal_gate != "off" and probe.masks and "masks" in wanted_supplies(get("probe", probe.name))
        if named and (folder := Path(probe.masks or "").expanduser()).is_dir():
            for split in ("train", "validation"):
                try:
                    folder_masks(folder, getattr(splits, split))
                except ImageError as error:
                    found.setdefault(probe.name, f"no masks for the {SPLITS[split]} images ({error})")
    return found


def _ceiling(config: StudyConfig, keys: KeyMaker, student: str, probe_set: ProbeSet, level: str | None) -> Training:
    recipe = keys.recipe(student)
    plugin = get("probe", probe_set.name)
    levels = [dict(probe_set.levels[number]) for number in _level_numbers(probe_set, level)]
    probed = [VERSION, plugin.name, plugin.identity, levels, probe_set.manifest.get("supplies", {})]
    of_training = keys.key(CEILING, student, RUN_SEED, recipe, probe=probed)
    return Training(CEILING, student, RUN_SEED, recipe, of_training, probe=probe_set.name, level=level)


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
    middle = levels[len(levels) // 2]
    return shared_out(shop, probe, "train", labelled(splits.train), levels), probed(shop, probe, "validation", splits.validation, middle)


def shared_out(shop: Workshop, probe: str, split: str, images: ImageSet, levels: Sequence[Mapping[str, Any]]) -> ImageSet:
    """Images as a probe shows them, each at one of the levels; those that it cannot treat are left out.

    They are dealt out by key, class after class, so that every level gets its share of the images and of each class.
    """
    keyed = permutation(len(images), shop.config.seed, CEILING, probe, "level")
    number = np.empty(len(images), np.int64)
    number[np.lexsort((keyed, images.labels))] = np.arange(len(images)) % len(levels)
    rows = [np.flatnonzero(number == i) for i in range(len(levels))]
    shown = [probed(shop, probe, split, images.subset(of), level) for of, level in zip(rows, levels, strict=True) if len(of)]
    return ImageSet(
        np.concatenate([part.images for part in shown]),
        np.concatenate([part.labels for part in shown]),
        np.concatenate([part.ids for part in shown]),
        images.class_names,
        {"probe": probe},
    )


def probed(shop: Workshop, probe: str, split: str, images: ImageSet, level: Mapping[str, Any]) -> ImageSet:
    """Images as a probe of the study shows them at one level, in one draw, with the supplies that the study file names.

    What is drawn at random is keyed by the split. With the test images' own seed the image in row i would carry the noise of row i
    of the test, which a network can learn by heart: it would then read the label where there is no signal at all.
    """
    plugin, folder = get("probe", probe), shop.store / "probes"
    named = supplied(next(chosen for chosen in shop.config.chosen_probes if chosen.name == probe))
    supplies = supplies_for(plugin, images, **named, splits=shop.splits, store=shop.store, device=shop.device, progress=shop.progress)
    built = build_probe_set(
        probe, images, levels=[level], draws=1, seed=key(shop.config.seed, CEILING, split) >> 1, folder=folder, supplies=supplies,
        progress=shop.progress,
    )  # fmt: skip
    return built.images(0, 0)
