"""Probe sets on disk, checked by SHA-256 whenever they are opened.

NAME-HASH/images-L.npy    uint8 [draws * kept, 3, height, width] of level L, draw after draw (levels may differ in size)
          FACTOR-L.npy    what the probe reported for each image, e.g. segments, permutation
          labels.npy kept_index.npy ids.npy clean-FACTOR.npy    one row for each kept image, the same for all levels and draws
          manifest.json preview.png
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from crossdistill.core.errors import ImageError
from crossdistill.core.store import read_json
from crossdistill.core.types import ImageSet
from crossdistill.probes._array_file import array_sha256
from crossdistill.probes._recipe import FORMAT, Level


@dataclass(frozen=True)
class ProbeSet:
    """A probe set that stands on disk. Images are memory-mapped, the rest is small."""

    name: str
    levels: tuple[Level, ...]
    level_names: tuple[str, ...]  # "grid=4"; several settings joined by ","
    draws: int
    folder: Path
    manifest: Mapping[str, Any]

    @property
    def kept_index(self) -> np.ndarray:
        """Rows of the clean images that the probe could treat, int64, the same for every level and draw.

        Compare with the clean accuracy on these rows only.
        """
        return np.load(self.folder / "kept_index.npy")

    def images(self, level: int, draw: int) -> ImageSet:
        """The images of one level and draw, with the ids of the clean images and the factors of both source and probe."""
        factors = {name: np.load(self.folder / f"clean-{name}.npy") for name in self.manifest["source"]["factors"]}
        reported = {name: self.factor(name, level, draw) for name in self.manifest["levels"][level]["factors"]}
        return ImageSet(
            images=self.factor("images", level, draw),
            labels=np.load(self.folder / "labels.npy"),
            ids=np.load(self.folder / "ids.npy"),
            class_names=tuple(self.manifest["source"]["class_names"]),
            provenance={"probe": self.name, "level": self.level_names[level], "draw": draw, "folder": str(self.folder)},
            factors=factors | {name: values for name, values in reported.items() if values.ndim == 1},
        )

    def factor(self, name: str, level: int, draw: int) -> np.ndarray:
        """What the probe reported under `name` for each image of one level and draw, memory-mapped, e.g. scramble's "permutation"."""
        if not (0 <= level < len(self.levels) and 0 <= draw < self.draws):
            raise IndexError(f"probe set {self.folder.name} has {len(self.levels)} levels and {self.draws} draws, got {level}, {draw}")
        values = np.load(self.folder / f"{name}-{level}.npy", mmap_mode="r")
        kept = len(values) // self.draws
        return values[draw * kept : (draw + 1) * kept]


def open_probe_set(folder: Path) -> ProbeSet:
    """The probe set in a folder, every array checked against the SHA-256 in its manifest.

    Raises ImageError where a file is missing or was changed, permuted labels included.
    """
    folder = Path(folder)
    if not (folder / "manifest.json").is_file():
        raise ImageError(f"{folder} is no probe set: it has no manifest.json")
    manifest = read_json(folder / "manifest.json")
    if manifest.get("format") != FORMAT:
        raise ImageError(f"{folder} has format {manifest.get('format')}, this version reads {FORMAT}: build the set again")
    for file, expected in manifest["sha256"].items():
        found = _sha256_on_disk(folder / file)
        if found != expected:
            raise ImageError(
                f"{folder / file} is not what was built (SHA-256 {found or 'unreadable'}, expected {expected}). "
                f"Delete the folder {folder}, and the same command builds it again."
            )
    levels = tuple(level["settings"] for level in manifest["levels"])
    names = tuple(level["name"] for level in manifest["levels"])
    return ProbeSet(manifest["probe"], levels, names, manifest["draws"], folder, manifest)


def _sha256_on_disk(path: Path) -> str | None:
    try:
        return array_sha256(np.load(path, mmap_mode="r"))
    except (OSError, ValueError):
        return None
