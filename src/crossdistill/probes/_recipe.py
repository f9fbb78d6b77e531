"""What is to be built: the levels and draws of a probe, and the key that names the result."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from crossdistill.core import registry
from crossdistill.core.errors import SettingError, unknown_name
from crossdistill.core.registry import Plugin
from crossdistill.core.seeds import key
from crossdistill.core.store import digest
from crossdistill.core.types import ImageSet
from crossdistill.probes._array_file import array_sha256
from crossdistill.probes._supplies import Supplies, Supply, used_supplies

FORMAT = 2  # of the files of a probe set
PRESETS = ("quick", "full")

Level = dict[str, Any]


@dataclass(frozen=True)
class Recipe:
    """What is to be built: validated levels, mildest first, and the number of draws."""

    plugin: Plugin
    levels: tuple[Level, ...]
    draws: int

    @property
    def level_names(self) -> tuple[str, ...]:
        return tuple(level_name(level) for level in self.levels)


def level_name(level: Mapping[str, Any]) -> str:
    """The name of a level in tables: its settings as written, without spaces.

    >>> level_name({"fraction": 0.05, "sigma": 0.5})
    'fraction=0.05,sigma=0.5'
    """
    return ",".join(f"{name}={value}" for name, value in level.items())


def probe_recipe(
    name: str,
    size: tuple[int, int],
    *,
    preset: str = "quick",
    levels: Sequence[Mapping[str, Any]] | None = None,
    draws: int | None = None,
) -> Recipe:
    """The levels and draws of a probe for images of `size` (height, width): those of a preset, or those given.

    A preset lists its levels, or is a function of the size that does.

    Raises UnknownNameError for an unknown probe, preset or setting, and SettingError for wrong values.
    """
    if preset not in PRESETS:
        raise unknown_name("preset", preset, PRESETS)
    plugin = registry.get("probe", name)
    chosen = _preset_levels(plugin, preset, size) if levels is None else levels
    n_draws = plugin.facts["draws"][preset] if draws is None else draws
    recipe = Recipe(plugin, tuple(plugin.parse(level) for level in chosen), n_draws)
    if not recipe.levels or n_draws < 1:
        raise SettingError(f"probe '{name}' needs at least one level and one draw, got {len(recipe.levels)} and {n_draws}")
    if len(set(recipe.level_names)) < len(recipe.levels):
        raise SettingError(f"probe '{name}' was given a level twice: {'; '.join(recipe.level_names)}")
    return recipe


def _preset_levels(plugin: Plugin, preset: str, size: tuple[int, int]) -> list[Level]:
    levels = plugin.facts[preset]
    return levels if isinstance(levels, list) else levels(size)


def fingerprint(images: ImageSet) -> str:
    """16 hexadecimal digits that name the content: pixels, labels, ids, class names and factors, read once through."""
    arrays = {"images": images.images, "labels": images.labels, "ids": text(images.ids), **images.factors}
    parts = {name: [array_sha256(values), str(values.dtype), values.shape] for name, values in arrays.items()}
    return digest({"arrays": parts, "class_names": list(images.class_names)})


def probe_key(
    name: str, levels: Sequence[Mapping[str, Any]], draws: int, seed: int, images: ImageSet, supplies: Mapping[str, Supply] = {}
) -> str:  # fmt: skip
    """16 hexadecimal digits that name a probe set by all that its bytes depend on."""
    recipe = Recipe(registry.get("probe", name), tuple(dict(level) for level in levels), draws)
    return Order(recipe, images, seed, fingerprint(images), used_supplies(recipe.plugin, supplies)).key


def text(values: np.ndarray) -> np.ndarray:
    """The values as fixed-width text, which NumPy saves without pickling."""
    return np.asarray(values).astype(str)


@dataclass(frozen=True)
class Order:
    """All that the bytes of a set depend on."""

    recipe: Recipe
    images: ImageSet
    seed: int
    source: str  # fingerprint of the images
    supplies: Supplies  # those that the probe asks for, and no others

    @property
    def name(self) -> str:
        return self.recipe.plugin.name

    def draw_seed(self, draw: int) -> int:
        """What the probe is given as `seed`. A control gets that of the probe that it controls, so that both draw alike."""
        return key(self.seed, "probe", self.recipe.plugin.facts["control_of"] or self.name, draw)

    @property
    def key(self) -> str:
        """16 hexadecimal digits that name all this."""
        given = {name: supply.identity for name, supply in self.supplies.items()}
        content = {
            "format": FORMAT,
            "probe": self.name,
            "version": self.recipe.plugin.identity,
            "levels": list(self.recipe.levels),
            "draws": self.recipe.draws,
            "seed": self.seed,
            "source": self.source,
        }
        removes = list(self.recipe.plugin.facts["removes"])  # bytes do not hang on it, but what a set says of them
        return digest(content | ({"supplies": given} if given else {}) | ({"removes": removes} if removes else {}))
