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

from crossdistill.core.errors import ImageError, StudyError
from crossdistill.core.store import read_json
from crossdistill.core.types import ImageSet
from crossdistill.probes._array_file import array_sha256
from crossdistill.probes._manifest import array_facts, is_unchanged
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
        """The images of one level and draw, with the ids of the clean images and the factors of both source and probe.

        Factors of the source that the images no longer show are left out.
        """
        shown = [
            name for name in self.manifest["source"]["factors"] if name not in self.manifest.get("removes", ())
        ]  # older sets say nothing
        factors = {name: np.load(self.folder / f"clean-{name}.npy") for name in shown}
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


class DamagedSetError(ImageError):
    """A folder that should hold a probe set and does not, or not the one that was built."""


def open_probe_set(folder: Path) -> ProbeSet:
    """The probe set in a folder, every array checked against type, shape and SHA-256 in its manifest.

    Raises DamagedSetError where a file is missing or was changed, permuted labels included.
    """
    folder = Path(folder)
    manifest = _manifest(folder)
    for file, expected in manifest["sha256"].items():
        found, facts = _on_disk(folder / file)
        if found != expected:
            raise DamagedSetError(
                f"{folder / file} is not what was built (SHA-256 {found or 'unreadable'}, expected {expected}). {_remedy(folder)}"
            )
        if facts != manifest["arrays"][file]:
            raise DamagedSetError(
                f"{folder / file} is not what was built ({facts}, expected {manifest['arrays'][file]}). {_remedy(folder)}"
            )
    levels = tuple(level["settings"] for level in manifest["levels"])
    names = tuple(level["name"] for level in manifest["levels"])
    return ProbeSet(manifest["probe"], levels, names, manifest["draws"], folder, manifest)


def _manifest(folder: Path) -> dict[str, Any]:
    if not (folder / "manifest.json").is_file():
        raise DamagedSetError(f"{folder} is no probe set: it has no manifest.json. {_remedy(folder)}")
    try:
        manifest = read_json(folder / "manifest.json")
    except (StudyError, ValueError):  # no JSON, no text
        manifest = None
    if isinstance(manifest, dict) and "format" in manifest and manifest["format"] != FORMAT:
        raise DamagedSetError(f"{folder} has format {manifest['format']}, this version reads {FORMAT}. {_remedy(folder)}")
    if not isinstance(manifest, dict) or not is_unchanged(manifest):
        raise DamagedSetError(f"{folder / 'manifest.json'} is not what was built. {_remedy(folder)}")
    return manifest


def _remedy(folder: Path) -> str:
    return f"Delete the folder {folder}, and the same command builds it again."


def _on_disk(path: Path) -> tuple[str | None, dict[str, Any]]:
    """SHA-256 of an array file's values, None where it cannot be read, and its type and shape."""
    try:
        array = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None, {}
    return array_sha256(array), array_facts(array)
