"""Building probe sets, block by block: a set is whole or absent, and what exists is not built again.

The one module of this package that other layers import: `ProbeSet`, `probe_key`, `build_probe_set`, `open_probe_set`, `probe_recipe`.
"""

import inspect
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import crossdistill
from crossdistill.core.errors import ImageError, StudyError
from crossdistill.core.progress import Advance, Progress
from crossdistill.core.registry import Plugin
from crossdistill.core.seeds import key
from crossdistill.core.store import locked, write_atomically, write_json
from crossdistill.core.types import ImageSet, ProbeImages
from crossdistill.probes._array_file import ArrayFile
from crossdistill.probes._preview import rows_of_different_classes, write_preview
from crossdistill.probes._probe_set import ProbeSet, open_probe_set
from crossdistill.probes._recipe import FORMAT, Level, Recipe, fingerprint, probe_key, probe_recipe, recipe_key, text

__all__ = ["ProbeSet", "Recipe", "build_probe_set", "open_probe_set", "probe_key", "probe_recipe"]

BLOCK_BYTES = 2**24  # of clean images handed to a probe at once


def build_probe_set(
    name: str,
    images: ImageSet,
    *,
    preset: str = "quick",
    levels: Sequence[Mapping[str, Any]] | None = None,
    draws: int | None = None,
    seed: int = 0,
    folder: Path,
    progress: Progress | None = None,
) -> ProbeSet:
    """The probe set `folder`/NAME-HASH of these images: opened where it exists, built else; row i of `images` has index i.

    `levels` and `draws` take the place of the preset's. A set appears under its name only when it is whole.
    Raises ImageError where the probe can treat no image, StudyError where another process builds the same set or nothing can be
    written, and what `probe_recipe` and `open_probe_set` raise.
    """
    if not len(images):
        raise ImageError(f"probe '{name}' was given no images")
    recipe = probe_recipe(name, images.size, preset=preset, levels=levels, draws=draws)
    source = fingerprint(images)
    final = Path(folder) / f"{name}-{recipe_key(recipe, seed, source)}"
    if final.exists():
        return open_probe_set(final)
    part = final.with_name(f".{final.name}.part")
    with locked(part, f"the probe set {final} is being built by another process: wait for it, then give the same command again"):
        try:
            if not final.exists():  # else another process finished between the look above and the lock
                _empty(part)
                _build(recipe, images, seed, source, part, progress or Progress(quiet=True))
                part.rename(final)
                (final / ".lock").unlink()
        except OSError as error:
            raise StudyError(f"cannot write {part}: {error.strerror or error}. Free some space or choose another folder.") from error
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return open_probe_set(final)


def _empty(folder: Path) -> None:
    """Remove what a killed process left, except the lock that we hold."""
    for path in folder.iterdir():
        if path.name != ".lock":
            path.unlink()


def _build(recipe: Recipe, images: ImageSet, seed: int, source: str, folder: Path, progress: Progress) -> None:
    kept: np.ndarray | None = None
    hashes, entries = {}, []
    total = len(recipe.levels) * recipe.draws * len(images)
    with progress.bar(f"probe {recipe.plugin.name}", total) as advance:
        for number in range(len(recipe.levels)):
            kept, level_hashes = _write_level(recipe, number, images, seed, folder, advance, kept)
            hashes |= level_hashes
            entries.append(_level_entry(recipe, number, folder, level_hashes))
    assert kept is not None
    clean = {"labels": images.labels, "ids": text(images.ids)} | {f"clean-{name}": values for name, values in images.factors.items()}
    for stem, values in {"kept_index": kept, **{stem: values[kept] for stem, values in clean.items()}}.items():
        with ArrayFile(folder / f"{stem}.npy") as file:
            file.append(values)
        hashes[f"{stem}.npy"] = file.sha256
    manifest = _manifest(recipe, images, seed, source, len(kept)) | {"levels": entries, "sha256": hashes}
    _write_preview(recipe, images, kept, folder)
    write_json(folder / "manifest.json", manifest)


def _write_level(
    recipe: Recipe, number: int, images: ImageSet, seed: int, folder: Path, advance: Advance, kept: np.ndarray | None
) -> tuple[np.ndarray, dict[str, str]]:
    """Write all draws of one level; gives the kept rows and {file: SHA-256}. `kept` are those of the levels before."""
    files: dict[str, ArrayFile] = {}
    with ExitStack() as stack:
        for draw in range(recipe.draws):
            kept_now = []
            draw_key = key(seed, "probe", recipe.plugin.name, draw)
            for rows in _blocks(images):
                made = _apply(recipe.plugin, recipe.levels[number], images, rows, draw_key)
                for name, values in {"images": made.images, **made.factors}.items():
                    if name not in files:
                        files[name] = stack.enter_context(ArrayFile(folder / f"{name}-{number}.npy"))
                    files[name].append(values)
                kept_now.append(made.kept_index + rows.start)
                advance(len(rows), recipe.level_names[number])
            kept_now = np.concatenate(kept_now)
            if kept is not None and not np.array_equal(kept, kept_now):
                raise ValueError(f"probe '{recipe.plugin.name}' kept other images at another level or draw: it must keep the same ones")
            kept = kept_now
    assert kept is not None
    if not len(kept):
        raise ImageError(f"probe '{recipe.plugin.name}' could treat none of the {len(images)} images")
    return kept, {file.path.name: file.sha256 for file in files.values()}


def _blocks(images: ImageSet) -> Iterator[range]:
    rows = max(1, BLOCK_BYTES // (3 * images.size[0] * images.size[1]))
    for start in range(0, len(images), rows):
        yield range(start, min(start + rows, len(images)))


def _apply(plugin: Plugin, level: Level, images: ImageSet, rows: range, seed: int) -> ProbeImages:
    """Call the probe with what its positional parameters name, and hold it to its contract."""
    block = slice(rows.start, rows.stop)
    supplies = {"images": images.images[block], "labels": images.labels[block], "index": np.arange(rows.start, rows.stop), "seed": seed}
    parameters = inspect.signature(plugin.function).parameters.values()
    wanted = [parameter.name for parameter in parameters if parameter.kind is not parameter.KEYWORD_ONLY]
    missing = [name for name in wanted if name not in supplies]
    if missing:
        raise TypeError(f"probe '{plugin.name}' asks for {', '.join(missing)}; what can be supplied: {', '.join(supplies)}")
    made = plugin.function(*(supplies[name] for name in wanted), **level)
    if made.images.dtype != np.uint8 or made.images.shape[:2] != (len(made.kept_index), 3):
        raise ValueError(f"probe '{plugin.name}' must return uint8 [kept, 3, height, width], got {made.images.dtype} {made.images.shape}")
    if not np.array_equal(made.labels, supplies["labels"][made.kept_index]):
        raise ValueError(f"probe '{plugin.name}' returned labels that are not those of the images it kept")
    return made


def _level_entry(recipe: Recipe, number: int, folder: Path, hashes: Mapping[str, str]) -> dict[str, Any]:
    pixels = np.load(folder / f"images-{number}.npy", mmap_mode="r")
    entry = {"name": recipe.level_names[number], "settings": recipe.levels[number], "size": list(pixels.shape[2:])}
    entry["sha256"] = hashes[f"images-{number}.npy"]
    stems = [file.removesuffix(f"-{number}.npy") for file in hashes]
    entry["factors"] = {stem: _summary(np.load(folder / f"{stem}-{number}.npy", mmap_mode="r")) for stem in stems if stem != "images"}
    return entry


def _summary(values: np.ndarray) -> dict[str, float] | None:
    if values.ndim > 1:
        return None
    return {"median": float(np.median(values)), "smallest": float(values.min()), "largest": float(values.max())}


def _manifest(recipe: Recipe, images: ImageSet, seed: int, source: str, n_kept: int) -> dict[str, Any]:
    plugin = recipe.plugin
    return {
        "format": FORMAT,
        "probe": plugin.name,
        "summary": plugin.summary,
        "isolates": plugin.facts["isolates"],
        "version": plugin.version,
        "source_hash": plugin.source_hash,
        "draws": recipe.draws,
        "seed": seed,
        "n_images": len(images),
        "n_kept": n_kept,
        "source": {
            "fingerprint": source,
            "size": list(images.size),
            "class_names": list(images.class_names),
            "factors": list(images.factors),
            "provenance": json.loads(json.dumps(dict(images.provenance), default=str)),
        },
        "software": {"crossdistill": crossdistill.__version__}
        | {package: version(package) for package in ("numpy", "scipy", "scikit-image", "pillow")},
    }


def _write_preview(recipe: Recipe, images: ImageSet, kept: np.ndarray, folder: Path) -> None:
    rows = rows_of_different_classes(images.labels[kept])
    columns = [
        (name, np.load(folder / f"images-{number}.npy", mmap_mode="r")[rows])  # draw 0 stands first
        for number, name in enumerate(recipe.level_names)
    ]
    clean = images.subset(kept[rows])
    write_atomically(folder / "preview.png", lambda file: write_preview(file, recipe.plugin.name, clean, columns))
