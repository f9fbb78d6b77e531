"""The probe sets of a study: which levels, which images of the test split, and what of them the study folder keeps."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from crossdistill.core import registry
from crossdistill.core.config import ProbeConfig, StudyConfig, core_probes
from crossdistill.core.errors import ImageError, SettingError, WeightsError
from crossdistill.core.observations import LevelDraw
from crossdistill.core.progress import Progress, Stopwatch
from crossdistill.core.store import write_atomically
from crossdistill.core.types import ImageSet, Observations, Splits
from crossdistill.images._splits import stratified_rows
from crossdistill.observe import observe
from crossdistill.ops.network import Network
from crossdistill.probes._build import (
    DamagedSetError,
    ProbeSet,
    Recipe,
    Supply,
    build_probe_set,
    preview_probe,
    probe_recipe,
    wanted_supplies,
)
from crossdistill.study.supplies import supplies_for
from crossdistill.study.timings import note, probe_facts

T = TypeVar("T")

PAGE_FILES = ("manifest.json", "preview.png")
ALL = "all"  # on a command line: every probe there is


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


def build_probes(
    config: StudyConfig, test: ImageSet, store: Path, progress: Progress, *,
    splits: Splits | None = None, device: torch.device | None = None,
) -> dict[str, ProbeSet]:  # fmt: skip
    """The probe sets of the whole test split, so that an image has the same bytes whichever subset is observed.

    An encoder that nobody named is trained on the training images of `splits`.
    """
    sets = {}
    for probe in config.chosen_probes:
        watch = Stopwatch()
        recipe = study_recipe(probe, config, test.size)
        supplies = supplies_for(recipe.plugin, test, **supplied(probe), splits=splits, store=store, device=device, progress=progress)
        before = {path.name for path in (store / "probes").glob(f"*{probe.name}-*")}
        built = build_probe_set(
            probe.name, test, levels=recipe.levels, draws=recipe.draws, seed=config.seed, folder=store / "probes", supplies=supplies,
            progress=progress,
        )  # fmt: skip
        if not {built.folder.name, f".{built.folder.name}.part"} & before:  # made now, and all of it
            note(store, probe_facts(probe, recipe, test.size, device or torch.device("cpu")), seconds_per_image=watch.seconds / len(test))
        progress.line(f"probe {probe.name}: {len(built.levels)} levels, {built.draws} draws ({watch.seconds:.1f} s)")
        sets[probe.name] = built
    return sets


def chosen_probes(text: str | None) -> list[str]:
    """The probes named on a command line: comma-separated; `all`; None: the core probes. Raises UnknownNameError, before any work.

    >>> chosen_probes("scramble, superpixel")
    ['scramble', 'superpixel']
    """
    if text is None:
        return core_probes()
    named = registry.names("probe") if text == ALL else [name.strip() for name in text.split(",") if name.strip()]
    if not named:
        raise SettingError(f"no probe is named in '{text}': give names separated by commas, `{ALL}`, or leave --probes out")
    return [registry.get("probe", name).name for name in dict.fromkeys(named)]


def refuse_unused(names: Sequence[str], given: Mapping[str, str | None]) -> None:
    """Raises SettingError where masks, an encoder or styles were named and none of the probes takes them."""
    for option, value in given.items():
        if value is not None and not any(option in wanted_supplies(registry.get("probe", name)) for name in names):
            takers = [name for name in registry.names("probe") if option in wanted_supplies(registry.get("probe", name))]
            raise SettingError(
                f"--{option} {value} is for {', '.join(takers)}, and none of them is among the probes ({', '.join(names)}): "
                f"name one with --probes, or leave --{option} out"
            )


@dataclass(frozen=True)
class ProbeJob:
    """Probes of the test images, asked for on a command line. `lenient`: those that these images do not allow are left out.

    A probe for which something was named is never left out: what is wrong with it is for the user to mend, and so is a set that was
    damaged.
    """

    names: Sequence[str]
    splits: Splits
    given: Mapping[str, str | None]  # the arguments masks, encoder and styles of `supplies_for`
    preset: str
    seed: int
    store: Path
    device: torch.device
    progress: Progress
    lenient: bool = False

    def built(self, folder: Path, workers: int | None = None) -> Iterator[ProbeSet]:
        """The probe sets, one after the other."""
        about = {"preset": self.preset, "seed": self.seed, "progress": self.progress, "workers": workers, "folder": folder}
        yield from self._each(lambda name, supplies: build_probe_set(name, self.splits.test, supplies=supplies, **about))

    def previews(self, out: Path, n_rows: int) -> Iterator[Path]:
        """Pictures of a few images of different classes: the file `out`.png, or one file for each probe in a folder."""
        if out.suffix == ".png" and len(self.names) > 1:
            raise SettingError(f"{out} is one file for {len(self.names)} probes: name a folder, or one probe")

        def written(name: str, supplies: Mapping[str, Supply]) -> Path:
            path = out if out.suffix == ".png" else out / f"{name}.png"
            picture = preview_probe(name, self.splits.test, preset=self.preset, seed=self.seed, supplies=supplies, n_rows=n_rows)
            write_atomically(path, lambda file: file.write(picture))
            return path

        yield from self._each(written)

    def _each(self, make: Callable[[str, Mapping[str, Supply]], T]) -> Iterator[T]:
        at = {"store": self.store, "device": self.device, "progress": self.progress}
        for name in self.names:
            plugin = registry.get("probe", name)
            named = any(self.given.get(supply) is not None for supply in wanted_supplies(plugin))
            try:
                made = make(name, supplies_for(plugin, self.splits.test, **self.given, splits=self.splits, **at))
            except (ImageError, SettingError, WeightsError) as error:
                if named or not self.lenient or isinstance(error, DamagedSetError):
                    raise
                who = "" if name in str(error) else f"{name}: "
                Progress().line(f"left out: {who}{error}")  # however quiet: who asked for all should know
                continue
            yield made


def supplied(probe: ProbeConfig) -> dict[str, str | None]:
    """What the study file names for a probe, as arguments of `supplies_for`."""
    return {"masks": probe.masks, "encoder": probe.encoder, "styles": probe.styles}


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
