"""The probe sets of a study: which levels, which images of the test split, and what of them the study folder keeps."""

import inspect
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch

from crossdistill.core import registry
from crossdistill.core.config import ProbeConfig, StudyConfig
from crossdistill.core.observations import LevelDraw
from crossdistill.core.progress import Progress, Stopwatch
from crossdistill.core.store import write_atomically
from crossdistill.core.types import ImageSet, Observations
from crossdistill.images._splits import stratified_rows
from crossdistill.observe import observe
from crossdistill.ops.network import Network
from crossdistill.probes._build import ProbeSet, Recipe, build_probe_set, probe_recipe

PAGE_FILES = ("manifest.json", "preview.png")


def study_recipe(probe: ProbeConfig, config: StudyConfig, size: tuple[int, int]) -> Recipe:
    """Levels and draws of one probe: its own, else the preset's; a setting beside them holds for every level.

    A probe that draws nothing at random has one draw, whatever is asked: more would be copies.
    """
    preset = probe.preset or config.preset
    levels = probe.levels or probe_recipe(probe.name, size, preset=preset).levels
    merged = [{**probe.settings, **level} if probe.levels else {**level, **probe.settings} for level in levels]
    random = "seed" in inspect.signature(registry.get("probe", probe.name).function).parameters
    draws = (probe.draws or config.observe.draws) if random else 1
    return probe_recipe(probe.name, size, preset=preset, levels=merged, draws=draws)


def build_probes(config: StudyConfig, test: ImageSet, store: Path, progress: Progress) -> dict[str, ProbeSet]:
    """The probe sets of the whole test split, so that an image has the same bytes whichever subset is observed."""
    sets = {}
    for probe in config.chosen_probes:
        watch = Stopwatch()
        recipe = study_recipe(probe, config, test.size)
        built = build_probe_set(
            probe.name, test, levels=recipe.levels, draws=recipe.draws, seed=config.seed, folder=store / "probes", progress=progress
        )
        progress.line(f"probe {probe.name}: {len(built.levels)} levels, {built.draws} draws ({watch.seconds:.1f} s)")
        sets[probe.name] = built
    return sets


def keep_for_the_page(probe_sets: Iterable[ProbeSet], out: Path) -> None:
    """Copy what the page reads into the study folder; the images stay in the store."""
    for probe_set in probe_sets:
        for name in PAGE_FILES:
            content = (probe_set.folder / name).read_bytes()
            write_atomically(out / "probes" / probe_set.folder.name / name, lambda file, content=content: file.write(content))


def probed_rows(test: ImageSet, config: StudyConfig) -> np.ndarray:
    """The rows of the test split that networks see probed: all, or a fixed subset in which each class keeps its share."""
    wanted = config.observe.images
    if wanted is None or wanted >= len(test):
        return np.arange(len(test))
    return stratified_rows(test.labels, wanted, config.seed, "probed images")


def observe_probe(
    network: Network, probe_set: ProbeSet, *, device: torch.device, rows: np.ndarray | None = None, batch_size: int = 256,
    advance: Callable[[int, str], None] | None = None,
) -> dict[LevelDraw, Observations]:  # fmt: skip
    """What a network answers at each level and draw of a probe, on the images of these rows of the split (None: on all)."""
    index = probe_set.kept_index
    chosen = np.arange(len(index)) if rows is None else np.flatnonzero(np.isin(index, rows))
    answers: dict[LevelDraw, Observations] = {}
    for level, level_name in enumerate(probe_set.level_names):
        for draw in range(probe_set.draws):
            images = probe_set.images(level, draw)
            shown = images if len(chosen) == len(images) else images.subset(chosen)
            answers[level_name, draw] = observe(network, shown, index=index[chosen], device=device, batch_size=batch_size)
            if advance:
                advance(1, level_name)
    return answers
