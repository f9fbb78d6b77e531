"""The commands `crossdistill probes`: test sets that isolate one cue, built and looked at without a study."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crossdistill.cli_options import (
    Device,
    Encoder,
    Images,
    Masks,
    Out,
    Preset,
    Probes,
    Quiet,
    Store,
    Styles,
    chosen_store,
    new_progress,
)

if TYPE_CHECKING:
    from crossdistill.study.probes import ProbeJob

probes_app = typer.Typer(help="Build probe sets from any images, or look at a few of theirs.", no_args_is_help=True)

Seed = Annotated[int, typer.Option("--seed", help="Of everything that a probe draws at random.")]


@probes_app.command("build")
def probes_build(
    images: Images, out: Out, probes: Probes = None, preset: Preset = "full", seed: Seed = 0,
    masks: Masks = None, encoder: Encoder = None, styles: Styles = None,
    format: Annotated[str | None, typer.Option("--format", help="Write also png-zip, imagefolder or parquet, inside each set.")] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Processes (default: one a core, where it is worth it); same bytes.")
    ] = None,
    device: Device = "auto", store: Store = None, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Build probe sets of the test images: array files with labels and ids, manifest and preview picture."""
    from crossdistill.core.errors import unknown_name
    from crossdistill.probes._build import FORMATS, write_format

    if format is not None and format not in FORMATS:
        raise unknown_name("format", format, FORMATS)
    job = _job(images, probes, {"masks": masks, "encoder": encoder, "styles": styles}, preset, seed, store, device, quiet)
    for built in job.built(out, workers):
        n_kept, n_images = built.manifest["n_kept"], built.manifest["n_images"]
        of = f"{n_kept:,} of {n_images:,}" if n_kept < n_images else f"{n_images:,}"
        job.progress.line(f"{built.name}: {len(built.levels)} levels, {built.draws} draws, {of} images")
        print(write_format(built, format) if format else built.folder)


@probes_app.command("preview")
def probes_preview(
    images: Images,
    out: Annotated[Path, typer.Option("--out", help="A .png file for one probe, or a folder.")],
    probes: Probes = None, preset: Preset = "full", seed: Seed = 0,
    rows: Annotated[int, typer.Option("--rows", min=1, help="Images, of different classes as far as there are.")] = 6,
    masks: Masks = None, encoder: Encoder = None, styles: Styles = None,
    device: Device = "auto", store: Store = None, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Show what probes do to a few test images, without building the sets."""
    job = _job(images, probes, {"masks": masks, "encoder": encoder, "styles": styles}, preset, seed, store, device, quiet)
    for path in job.previews(out, rows):
        print(path)


def _job(
    images: str, probes: str | None, given: dict[str, str | None], preset: str, seed: int, store: Path | None, device: str, quiet: bool
) -> ProbeJob:
    """What both commands ask for; names are looked up before the images, which may take long to decode."""
    from crossdistill.core.errors import unknown_name
    from crossdistill.images._splits import load_splits, parse_source
    from crossdistill.probes._build import PRESETS
    from crossdistill.study.environment import chosen_device
    from crossdistill.study.probes import ALL, ProbeJob, chosen_probes, refuse_unused

    names = chosen_probes(probes)
    refuse_unused(names, given)
    if preset not in PRESETS:
        raise unknown_name("preset", preset, PRESETS)
    source, settings = parse_source(images)
    splits, progress = load_splits(source, settings), new_progress(quiet)
    return ProbeJob(names, splits, given, preset, seed, chosen_store(store), chosen_device(device), progress, probes == ALL)
