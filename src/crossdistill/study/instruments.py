"""Instruments in a study: the clean test images that they are shown, the same for every network, and what they gave, on disk."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch

from crossdistill.core import registry
from crossdistill.core.config import StudyConfig
from crossdistill.core.errors import SettingError
from crossdistill.core.observations import Measurement, Stored, load_measurement, save_measurement
from crossdistill.core.records import CEILING
from crossdistill.core.registry import Plugin
from crossdistill.core.store import digest, write_atomically
from crossdistill.core.types import ImageSet
from crossdistill.images._splits import stratified_rows
from crossdistill.ops.network import Network
from crossdistill.study.map_pictures import overlaid, write_strip
from crossdistill.study.plan import Training
from crossdistill.study.workshop import Workshop
from crossdistill.train.memory import enough_memory

PICTURES = 12
"""Images of which maps are drawn: enough to look at, few enough for one strip."""

MAP_UNIT, FEATURE_UNIT = "share of the largest", "activation"
"""Units of instruments that give a map of each image, to be looked at, and features, of which CKA reads only inner products."""

LARGEST_BATCH = 32
"""An instrument may hold the whole backward pass or all attention of a batch, many times what an answer needs."""

STORED = 1
"""To be raised where the same measurements are stored in another way."""


def instrument_files(config: StudyConfig, test: ImageSet) -> dict[str, str]:
    """{instrument: file name}, the same for every network; the name says which instrument, in which version, saw which images."""
    files: dict[str, str] = {}
    for plugin in _chosen(config.observe.instruments):
        shown = _rows(plugin, test, config.observe.instrument_images, config.seed).tolist()
        files[plugin.name] = f"{plugin.name}-{digest([STORED, plugin.identity, test.provenance['key'], shown])}.npz"
    return files


def unmeasured(shop: Workshop, training: Training, run: str) -> dict[str, Path]:
    """The instruments that a network has still to be measured with, each with its file; none for ceilings."""
    if training.arm == CEILING:
        return {}
    files = instrument_files(shop.config, shop.splits.test)
    paths = {name: _folder(shop.out, run) / file for name, file in files.items()}
    told = shop.published(run)
    return {name: path for name, path in paths.items() if not path.exists() and path.name not in told}


def measure(shop: Workshop, training: Training, run: str, network: Network) -> None:
    """Show a network's run to every instrument that has not seen it, keep what they give, and draw the maps."""
    missing = unmeasured(shop, training, run)
    size, observed = shop.config.observe.batch_size, shop.config.observe
    with shop.progress.bar(f"measuring {training.label}", len(missing)) as advance:
        for name, path in missing.items():
            plugin = registry.get("instrument", name)
            shown = _shown(plugin, shop.splits.test, observed.instrument_images, shop.config.seed)
            with enough_memory(lambda name=name: _advice(training, name, min(size, LARGEST_BATCH))):
                found = _measured(plugin, network, shown, shop.device, size)
            if plugin.facts["unit"] == MAP_UNIT and isinstance(found, np.ndarray):  # first: the file below says that all is done
                write_strip(shop.out / "pictures" / "images.webp", shown.images)
                write_strip(shop.out / "pictures" / run / f"{name}.webp", overlaid(shown.images, found))
            save_measurement(path, found)
            advance(1, name)


def copy_measured(shop: Workshop, source: str, target: str) -> None:
    """What was measured of run `source` also for run `target`, whose network is the very same: files and pictures."""
    for kind in ("pictures", "instruments"):  # the files last, which say that all is done
        for path in sorted((shop.out / kind / source).glob("[!.]*")):
            content = path.read_bytes()
            write_atomically(shop.out / kind / target / path.name, lambda file, content=content: file.write(content))


def measured(out: Path, run: str, files: Mapping[str, str]) -> Stored[str, Measurement]:
    """What was measured of a run, from `files` ({instrument: file name}) alone; without those that are not there yet.

    Tables need one instrument at a time, of many networks.
    """
    paths = {name: _folder(out, run) / file for name, file in files.items()}
    return Stored((name for name, path in paths.items() if path.exists()), lambda name: load_measurement(paths[name]))


def measured_of(
    network: Network, test: ImageSet, *, device: torch.device, count: int = 256, batch_size: int = 256, names: Iterable[str] | None = None,
    seed: int = 0,
) -> dict[str, Measurement]:  # fmt: skip
    """What the instruments (`names`; None: all) give of one network on `count` clean test images; nothing is written."""
    shown = {plugin.name: (plugin, _shown(plugin, test, count, seed)) for plugin in _chosen(names)}
    return {name: _measured(plugin, network, images, device, batch_size) for name, (plugin, images) in shown.items()}


def narrowed(features: np.ndarray) -> np.ndarray:
    """Features [images, ...] in no more columns than images: float32 [images, images] whose rows have the same inner products.

    X = U S V' of the centred features becomes U S, which is X rotated: the kernel X X', all that linear CKA reads, stays to float32.
    Features with no more columns than images come back as they are.
    """
    rows = features.reshape(len(features), -1)
    if rows.shape[1] <= len(rows):
        return features
    centred = torch.from_numpy(rows).double()
    centred -= centred.mean(dim=0)
    squares, directions = torch.linalg.eigh(centred @ centred.T)
    return (directions * squares.clamp_min(0).sqrt()).float().numpy()


def _measured(plugin: Plugin, network: Network, images: ImageSet, device: torch.device, batch_size: int) -> Measurement:
    """What one instrument gives of all images, or in words why it gives nothing."""
    parts: list[dict[str, np.ndarray]] = []
    size = min(batch_size, LARGEST_BATCH)
    for start in range(0, len(images), size):
        block = torch.from_numpy(np.array(images.images[start : start + size])).to(device)
        labels = torch.from_numpy(np.array(images.labels[start : start + size])).to(device)
        asked = {"classes": labels} if "classes" in plugin.inputs else {}
        try:
            found = plugin.function(network, block, **asked)
        except SettingError as refusal:
            return str(refusal)
        parts.append(found if isinstance(found, dict) else {"": found})
    whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    if any(not np.isfinite(values).all() for values in whole.values()):
        return f"{plugin.name} gave values that are not finite"
    if plugin.facts["unit"] == FEATURE_UNIT:
        whole = {name: narrowed(values) for name, values in whole.items()}
    return whole.get("", whole)


def _chosen(names: Iterable[str] | None) -> list[Plugin]:
    return [registry.get("instrument", name) for name in (registry.names("instrument") if names is None else names)]


def _rows(plugin: Plugin, test: ImageSet, count: int, seed: int) -> np.ndarray:
    """The rows of the test split that an instrument is shown: a fixed subset in which each class keeps its share."""
    count, purpose = (PICTURES, "pictured images") if plugin.facts["unit"] == MAP_UNIT else (count, "measured images")
    return np.arange(len(test)) if count >= len(test) else stratified_rows(test.labels, count, seed, purpose)


def _shown(plugin: Plugin, test: ImageSet, count: int, seed: int) -> ImageSet:
    return test.subset(_rows(plugin, test, count, seed))


def _folder(out: Path, run: str) -> Path:
    return out / "instruments" / run


def _advice(training: Training, name: str, batch_size: int) -> str:
    return (
        f"{training.label}: out of memory while {name} measured it, {batch_size} images at a time: lower `observe: {{batch_size}}`, "
        "or leave it out of `observe: {instruments}`."
    )
