"""What a probe set says of itself: its manifest."""

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import crossdistill
from crossdistill.probes._recipe import FORMAT, Order


def manifest(order: Order, n_kept: int, folder: Path, hashes: Mapping[str, str]) -> dict[str, Any]:
    """Recipe, source, software, and the SHA-256 of each file of a set whose arrays are complete in `folder`."""
    plugin, images = order.recipe.plugin, order.images
    return {
        "format": FORMAT,
        "probe": plugin.name,
        "summary": plugin.summary,
        "isolates": plugin.facts["isolates"],
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
            "provenance": json.loads(json.dumps(dict(images.provenance), default=str)),
        },
        "software": {"crossdistill": crossdistill.__version__}
        | {package: version(package) for package in ("numpy", "scipy", "scikit-image", "pillow")},
        "supplies": {name: {**supply.about, "identity": supply.identity} for name, supply in order.supplies.items()},
        "levels": [_level_entry(order, number, folder, hashes) for number in range(len(order.recipe.levels))],
        "sha256": hashes,
    }


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
