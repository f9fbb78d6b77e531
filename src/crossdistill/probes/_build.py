"""Building probe sets, block by block: a set is whole or absent, what exists is not built again, what was begun goes on.

The one module of this package that other layers import.
"""

import contextlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from crossdistill.core.errors import CrossdistillError, ImageError, StudyError
from crossdistill.core.progress import Advance, Progress, Stopwatch
from crossdistill.core.store import locked, write_json
from crossdistill.core.types import ImageSet, ProbeImages
from crossdistill.probes._formats import FORMATS, write_format
from crossdistill.probes._growing import JOURNAL, GrowingFiles
from crossdistill.probes._manifest import manifest
from crossdistill.probes._preview import N_ROWS, preview_built, preview_of
from crossdistill.probes._probe_set import DamagedSetError, ProbeSet, open_probe_set
from crossdistill.probes._recipe import PRESETS, Order, Recipe, fingerprint, probe_key, probe_recipe, text
from crossdistill.probes._supplies import ONE_PER_IMAGE, StoredRows, Supplies, Supply, used_supplies, wanted_supplies
from crossdistill.probes._treatment import Job, Treatment, apply_probe, blocks, treated

__all__ = [
    "FORMATS",
    "PRESETS",
    "DamagedSetError",
    "ProbeSet",
    "Recipe",
    "Supplies",
    "Supply",
    "apply_probe",
    "build_probe_set",
    "open_probe_set",
    "preview_probe",
    "probe_key",
    "probe_recipe",
    "wanted_supplies",
    "write_format",
]

SECONDS_BETWEEN_LINES = 30  # of progress, where there is no terminal
SUPPLIED = "supplied-"  # files of what the probe was given: not part of the set
SUPPLIED_AT_ONCE = 256  # images between two lines of progress, and what a kill costs


def build_probe_set(
    name: str,
    images: ImageSet,
    *,
    preset: str = "quick",
    levels: Sequence[Mapping[str, Any]] | None = None,
    draws: int | None = None,
    seed: int = 0,
    folder: Path,
    supplies: Mapping[str, Supply] = {},
    progress: Progress | None = None,
    workers: int | None = None,
) -> ProbeSet:
    """The probe set `folder`/NAME-HASH of these images: opened where it exists, built else; row i of `images` has index i.

    `levels` and `draws` take the place of the preset's; `supplies` are masks, encoder and styles, where the probe asks for them.
    A set appears under its name only when it is whole; an interrupted build leaves its blocks in the hidden folder
    `.NAME-HASH.part`, and the same call goes on from there. `workers` processes share the work (None: as many as there are
    cores, where it is worth it); the bytes do not depend on them. Where another process builds the same set, that is waited for.
    Raises ImageError where the probe can treat no image, StudyError where nothing can be written, and what `probe_recipe` and
    `open_probe_set` raise.
    """
    _refuse_unusable(name, images)
    recipe = probe_recipe(name, images.size, preset=preset, levels=levels, draws=draws)
    order = Order(recipe, images, seed, fingerprint(images), used_supplies(recipe.plugin, supplies))
    final = Path(folder) / f"{name}-{order.key}"
    if final.exists():
        if (final / JOURNAL).exists():  # the process that made it was killed between its last two steps
            with contextlib.suppress(OSError):
                _tidy(final)
        return open_probe_set(final)
    part = final.with_name(f".{final.name}.part")
    progress = progress or Progress(quiet=True)
    with locked(part, f"another process is building the probe set {final}", waiting=progress.line):
        if final.exists():  # another process finished between the look above and the lock
            shutil.rmtree(part)
        else:
            with _disk_errors_told(part):
                _build(order, part, progress, workers)
                _publish(part, final)
    return open_probe_set(final)


def _refuse_unusable(name: str, images: ImageSet) -> None:
    if not len(images):
        raise ImageError(f"probe '{name}' was given no images")
    for what, names in {"class": np.asarray(images.class_names, str), "image": text(images.ids)}.items():
        characters = names.view(np.uint32).reshape(len(names), names.itemsize // 4)
        if (wrong := ((characters >= 0xD800) & (characters < 0xE000)).any(axis=1)).any():  # what stands for bytes that are no UTF-8
            raise ImageError(
                f"the name of {what} {str(names[wrong.argmax()])!a} is no UTF-8, which no table or JSON file can hold: rename it"
            )


@contextlib.contextmanager
def _kept_unless_wrong(part: Path) -> Iterator[None]:
    """Leave an unfinished folder to go on from, but not what a probe that breaks its contract has made."""
    try:
        yield
    except StudyError:  # nothing more can be written
        raise
    except (CrossdistillError, ValueError, TypeError):
        shutil.rmtree(part, ignore_errors=True)
        raise


@contextlib.contextmanager
def _disk_errors_told(part: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StudyError(
            f"cannot write {part}: {error.strerror or error}. Free some space, and the same command goes on from there; or delete that "
            "folder and choose another one."
        ) from error


def preview_probe(
    name: str,
    images: ImageSet,
    *,
    preset: str = "quick",
    levels: Sequence[Mapping[str, Any]] | None = None,
    seed: int = 0,
    supplies: Mapping[str, Supply] = {},
    n_rows: int = N_ROWS,
) -> bytes:
    """The preview picture of a probe on images of different classes, as PNG; nothing else of the set is made.

    Takes and raises what `build_probe_set` does.
    """
    _refuse_unusable(name, images)
    recipe = probe_recipe(name, images.size, preset=preset, levels=levels, draws=1)
    return preview_of(Order(recipe, images, seed, "", used_supplies(recipe.plugin, supplies)), n_rows)


def _publish(part: Path, final: Path) -> None:
    """Give a whole set its name. What only served the building goes last, since it is needed should we be killed before."""
    part.rename(final)
    _tidy(final)


def _tidy(final: Path) -> None:
    """Remove what only served the building, the journal last: while it is there, so may be the others."""
    for path in (*final.glob(f"{SUPPLIED}*.npy"), *final.glob("clean-images.npy"), final / ".lock", final / JOURNAL):
        path.unlink(missing_ok=True)


def _build(order: Order, folder: Path, progress: Progress, workers: int | None) -> None:
    with _kept_unless_wrong(folder):
        kept, hashes = _written(order, folder, progress, workers)
    # Outside, so that a whole set is not lost where its picture cannot be drawn.
    preview_built(order, kept, folder)
    write_json(folder / "manifest.json", manifest(order, len(kept), folder, hashes))


def _written(order: Order, folder: Path, progress: Progress, workers: int | None) -> tuple[np.ndarray, dict[str, str]]:
    """Write all arrays of the set; gives the rows that were kept and the SHA-256 of each file's values."""
    files = GrowingFiles(folder)
    if files.done:
        progress.line(f"probe {order.name}: going on with what {folder} holds")
    costly = [name for name in order.supplies if _is_costly(name, order)]
    n_passes = len(order.recipe.levels) * order.recipe.draws + len(costly)
    with _telling(progress, f"probe {order.name}", n_passes * len(order.images)) as advance:
        stored = {name: _stored(name, order.supplies[name], order, files, advance) for name in costly}
        kept = _fill(replace(order, supplies={**order.supplies, **stored}), files, workers, advance)
    if "columns" not in files.done:
        files.append("columns", len(kept), _columns(order.images, kept))
    for file in files.files.values():
        file.complete()
    return kept, {file.path.name: file.sha256 for file in files.files.values() if not file.path.name.startswith(SUPPLIED)}


@contextlib.contextmanager
def _telling(progress: Progress, what: str, total: int) -> Iterator[Advance]:
    """A bar on a terminal, else a line now and then."""
    watch, done, told = Stopwatch(), 0, 0.0
    with progress.bar(what, total) as advance_bar:

        def advance(units: int, note: str) -> None:
            nonlocal done, told
            done += units
            advance_bar(units, note)
            if not progress.interactive and watch.seconds - told > SECONDS_BETWEEN_LINES:
                told = watch.seconds
                progress.line(f"{what}: {done / total:.0%} after {told:.0f} s, now {note}")

        yield advance


def _is_costly(name: str, order: Order) -> bool:
    """Whether a supply is one array for each image, worth a file of its own, in which ids tell the images."""
    return name in ONE_PER_IMAGE and len(np.unique(order.images.ids)) == len(order.images)


def _stored(name: str, supply: Supply, order: Order, files: GrowingFiles, advance: Advance) -> Supply:
    """The supply, read from a file; the file is filled here first, a few images at a time: GrabCut takes its time for each."""
    stem, done = SUPPLIED + name, files.done.get(name, 0)
    advance(done, name)
    for start in range(done, len(order.images), SUPPLIED_AT_ONCE):
        rows = np.arange(start, min(start + SUPPLIED_AT_ONCE, len(order.images)))
        files.append(name, len(rows) + start, {stem: supply.of(order.images.subset(rows))})
        advance(len(rows), name)
    files.files[stem].complete()
    return replace(supply, of=StoredRows(files.files[stem].path, text(order.images.ids)))


def _fill(order: Order, files: GrowingFiles, workers: int | None, advance: Advance) -> np.ndarray:
    """Treat every block that is not there yet, level after level and draw after draw; gives the kept rows, the same for all."""
    kept = np.zeros(len(order.images), bool)
    if "kept_index" in files.files:
        kept[files.files["kept_index"].read()] = True
    jobs = []
    for level, level_name in enumerate(order.recipe.level_names):
        for draw in range(order.recipe.draws):
            done = files.done.get(_step(level, draw), 0)
            advance(done, level_name)
            seed = order.draw_seed(draw)
            jobs += [Job(level, draw, seed, r.start, r.stop) for r in blocks(order.images, order.recipe.plugin.facts["block"], done)]
    treatment = Treatment(order.recipe, order.images, order.supplies)
    with contextlib.closing(treated(treatment, jobs, workers, files.folder)) as all_made:
        for job, made in all_made:
            _take_in(job, made, files, kept, order.name)
            advance(job.stop - job.start, order.recipe.level_names[job.level])
    return np.flatnonzero(kept)


def _step(level: int, draw: int) -> str:
    return f"level {level}, draw {draw}"


def _take_in(job: Job, made: ProbeImages, files: GrowingFiles, kept: np.ndarray, name: str) -> None:
    """Append a treated block; the first pass says which rows are kept, and the others must agree."""
    arrays = {f"{stem}-{job.level}": values for stem, values in {"images": made.images, **made.factors}.items()}
    if (job.level, job.draw) == (0, 0):
        kept[made.kept_index + job.start] = True
        arrays["kept_index"] = (made.kept_index + job.start).astype(np.int64)
        if job.stop == len(kept) and not kept.any():
            raise ImageError(f"probe '{name}' could treat none of the {len(kept)} images")
    elif not np.array_equal(np.flatnonzero(kept[job.start : job.stop]), made.kept_index):
        raise ValueError(f"probe '{name}' kept other images at another level or draw: it must keep the same ones, in order")
    files.append(_step(job.level, job.draw), job.stop, arrays)


def _columns(images: ImageSet, kept: np.ndarray) -> dict[str, np.ndarray]:
    """What comes from the clean images: one row for each that was kept."""
    clean = {"labels": images.labels, "ids": text(images.ids)} | {f"clean-{name}": values for name, values in images.factors.items()}
    return {stem: values[kept] for stem, values in clean.items()}
