"""The probe sets of a study before they are built: under which name each will stand, and whether it stands there already."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from crossdistill.core.config import ProbeConfig, StudyConfig
from crossdistill.core.errors import CrossdistillError
from crossdistill.core.store import digest, read_json
from crossdistill.core.types import Splits
from crossdistill.probes._build import ProbeSet, Recipe, Supply, apply_probe, wanted_supplies
from crossdistill.probes._recipe import Order, fingerprint
from crossdistill.probes._supplies import used_supplies
from crossdistill.study.encoders import encoder_file
from crossdistill.study.probes import study_recipe, supplied
from crossdistill.study.supplies import supplies_for


def foreseen_probe_sets(config: StudyConfig, splits: Splits, store: Path) -> dict[str, ProbeSet]:
    """The probe sets that a study builds, or will find; nothing is built, trained or downloaded.

    Where a probe waits for an encoder or for masks that do not exist yet, its folder has a name of its own making.
    """
    source = fingerprint(splits.test)
    return {probe.name: _foreseen(probe, config, splits, store, source) for probe in config.chosen_probes}


def is_built(probe_set: ProbeSet) -> bool:
    """Whether the set stands in the store; it is checked when it is opened."""
    return (probe_set.folder / "manifest.json").exists()


def _foreseen(probe: ProbeConfig, config: StudyConfig, splits: Splits, store: Path, source: str) -> ProbeSet:
    recipe = study_recipe(probe, config, splits.test.size)
    supplies = _supplies(probe, recipe, splits, store)
    if supplies is None:
        about = {"levels": [str(level) for level in recipe.levels], "given": supplied(probe), "seed": config.seed, "source": source}
        folder = _same_named(probe, recipe, config, store, source) or store / "probes" / f"{probe.name}-{digest(about)}"
        manifest: dict[str, Any] = {"supplies": {}}
    else:
        key = Order(recipe, splits.test, config.seed, source, used_supplies(recipe.plugin, supplies)).key
        folder = store / "probes" / f"{probe.name}-{key}"
        manifest = {"supplies": {name: {**supply.about, "identity": supply.identity} for name, supply in supplies.items()}}
    manifest["levels"] = [{"size": list(size)} for size in _sizes(recipe, splits)]
    found = ProbeSet(probe.name, recipe.levels, recipe.level_names, recipe.draws, folder, manifest)
    return replace(found, manifest=read_json(folder / "manifest.json")) if is_built(found) else found


def _supplies(probe: ProbeConfig, recipe: Recipe, splits: Splits, store: Path) -> Mapping[str, Supply] | None:
    """What the probe will be given; None where that is still to be trained, or to be had from a network with published weights."""
    named = supplied(probe)
    wanted = wanted_supplies(recipe.plugin)
    if "masks" in wanted and named["masks"] and "/" in named["masks"] and not Path(named["masks"]).expanduser().is_dir():
        return None
    try:
        encoder = named["encoder"]
        if "encoder" in wanted:
            file = Path(encoder) if encoder else encoder_file(splits, store)
            if file.suffix != ".safetensors" or not file.exists():
                return None
            encoder = str(file)
        return supplies_for(recipe.plugin, splits.test, masks=named["masks"], styles=named["styles"], encoder=encoder, store=store)
    except CrossdistillError:  # told, with what to do, when the set is to be built
        return None


def _same_named(probe: ProbeConfig, recipe: Recipe, config: StudyConfig, store: Path, source: str) -> Path | None:
    """A built set of the same levels that was given what is named: whether its weights are still the same is seen when it is opened."""
    named = {name: text for name, text in supplied(probe).items() if text}
    for folder in sorted((store / "probes").glob(f"{probe.name}-*")):
        found = read_json(folder / "manifest.json") if (folder / "manifest.json").exists() else {}
        same = [level["settings"] for level in found.get("levels", ())] == [dict(level) for level in recipe.levels]
        given = {name: found.get("supplies", {}).get(name, {}).get("name") for name in named}
        where = (found.get("draws"), found.get("seed"), found.get("source", {}).get("fingerprint"))
        if same and given == named and where == (recipe.draws, config.seed, source):
            return folder
    return None


def _sizes(recipe: Recipe, splits: Splits) -> list[tuple[int, int]]:
    """(height, width) of a probe's images at each level, from one image; the clean size where it must be given more than images."""
    if wanted_supplies(recipe.plugin):
        return [splits.test.size] * len(recipe.levels)
    try:
        shown = [apply_probe(recipe.plugin, level, splits.test, np.arange(1), 0, {}).images.shape for level in recipe.levels]
    except CrossdistillError:  # what these images do not allow is told when the study is run
        return [splits.test.size] * len(recipe.levels)
    return [(height, width) for _, _, height, width in shown]
