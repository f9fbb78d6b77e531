"""Options that several commands share, and what they mean."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from crossdistill.core.progress import Progress

StudyFile = Annotated[Path, typer.Argument(metavar="FILE", help="The study file.")]
StudyFolder = Annotated[Path, typer.Argument(metavar="FOLDER", help="What was --out of `crossdistill study run`.")]
Out = Annotated[Path, typer.Option("--out", help="Folder for everything that comes out; the same command goes on where it stopped.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1 ...")]
Store = Annotated[
    Path | None, typer.Option("--store", help="Folder that studies share for teachers and probe sets (default: the cache folder).")
]
Devices = Annotated[
    int | None,
    typer.Option("--devices", min=1, help="Processes, on GPUs one for each, that share every batch (default: as the study says)."),
]
Images = Annotated[str, typer.Option("--images", help="NAME or NAME:PATH, e.g. trifeature, folder:photos, parquet:DIR.")]
SomeImages = Annotated[str | None, typer.Option("--images", help="As for other commands; needed wherever networks are named.")]
Json = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress.")]
Probes = Annotated[
    str | None, typer.Option("--probes", help="Names separated by commas, or all (default: those that need neither masks nor weights).")
]
Preset = Annotated[str, typer.Option("--preset", help="quick or full.")]
Masks = Annotated[
    str | None,
    typer.Option("--masks", help="A folder of pictures named by image id, grabcut, or a segmentation network (default: the source's own)."),
]
Encoder = Annotated[
    str | None,
    typer.Option("--encoder", help="FILE.safetensors or a model's name (default: a small one, trained on the training images)."),
]
Styles = Annotated[
    str | None, typer.Option("--styles", help="A folder of pictures, images (others of the set) or textures (built in, the default).")
]


def chosen_store(store: Path | None) -> Path:
    """The store that was named, or the cache folder."""
    from crossdistill.core.store import cache_folder

    return store or cache_folder()


def new_progress(quiet: bool) -> Progress:
    """Progress on standard error, or none."""
    from crossdistill.core.progress import Progress

    return Progress(quiet=quiet)
