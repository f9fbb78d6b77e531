"""What a probe set says of itself: its manifest, and whether that is still what was written."""

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import crossdistill
from crossdistill.core.store import digest
from crossdistill.probes._recipe import FORMAT, Order
from crossdistill.probes._supplies import Supply

PACKAGES = ("numpy", "scipy", "scikit-image", "pillow")
NETWORK_PACKAGES = ("torch", "torchvision")


def manifest(order: Order, n_kept: int, folder: Path, hashes: Mapping[str, str]) -> dict[str, Any]:
    """Recipe, source, software, and type, shape and SHA-256 of each file of a set whose arrays are complete in `folder`.

    `hashes` are those of the arrays' values. The entry `digest` names all the others, see `is_unchanged`.
    """
    entries = _entries(order, n_kept, folder, hashes)
    return entries | {"digest": digest(entries)}


def is_unchanged(found: Mapping[str, Any]) -> bool:
    """Whether a manifest that was read is what `manifest` gave."""
    return found.get("digest") == digest({name: value for name, value in found.items() if name != "digest"})


def array_facts(array: np.ndarray) -> dict[str, Any]:
    """Type and shape of an array, which its bytes alone do not tell, as plain JSON."""
    return {"dtype": array.dtype.str, "shape": list(array.shape)}


def _entries(order: Order, n_kept: int, folder: Path, hashes: Mapping[str, str]) -> dict[str, Any]:
    plugin, images = order.recipe.plugin, order.images
    return {
        "format": FORMAT,
        "probe": plugin.name,
        "summary": plugin.summary,
        "isolates": plugin.facts["isolates"],
        "removes": list(plugin.facts["removes"]),
        "version": plugin.version,
        "source_hash": plugin.source_hash,
        "draws": order.recipe.draws,
        "seed": order.seed,
        "n_images": len(images),
        "n_kept": n_kept,
        "source": {
            "fingerprint": order.source,
            "size": list(images.size),
            "class_names": list(images.class_names),
            "factors": list(images.factors),
            "provenance": _plain(images.provenance),
        },
        "software": {"crossdistill": crossdistill.__version__}
        | {package: version(package) for package in (*PACKAGES, *_network_packages(order.supplies))},
        "supplies": {name: {**supply.about, "identity": supply.identity} for name, supply in order.supplies.items()},
        "levels": [_level_entry(order, number, folder, hashes) for number in range(len(order.recipe.levels))],
        "arrays": {file: array_facts(np.load(folder / file, mmap_mode="r")) for file in hashes},
        "sha256": dict(hashes),
    }


def _plain(provenance: Mapping[str, Any]) -> Any:
    """As plain JSON in UTF-8; a byte of a path that is none is a question mark."""
    return json.loads(json.dumps(dict(provenance), default=str, ensure_ascii=False).encode(errors="replace"))


def _network_packages(supplies: Mapping[str, Supply]) -> tuple[str, ...]:
    """Those that a network was run with, for features or for masks."""
    used = "encoder" in supplies or any(supply.about.get("kind") == "network" for supply in supplies.values())
    return NETWORK_PACKAGES if used else ()


def _level_entry(order: Order, number: int, folder: Path, hashes: Mapping[str, str]) -> dict[str, Any]:
    suffix = f"-{number}.npy"
    stems = [file.removesuffix(suffix) for file in hashes if file.endswith(suffix) and file.removesuffix(suffix) != "images"]
    return {
        "name": order.recipe.level_names[number],
        "settings": order.recipe.levels[number],
        "size": list(np.load(folder / f"images{suffix}", mmap_mode="r").shape[2:]),
        "sha256": hashes[f"images{suffix}"],
        "factors": {stem: _summary(np.load(folder / f"{stem}{suffix}", mmap_mode="r")) for stem in stems},
    }


def _summary(values: np.ndarray) -> dict[str, float] | None:
    if values.ndim > 1:
        return None
    return {"median": float(np.median(values)), "smallest": float(values.min()), "largest": float(values.max())}
