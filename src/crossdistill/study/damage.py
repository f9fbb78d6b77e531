"""Damaged files of single runs: put aside, so that tables and page go on without them and the same command makes them again."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from crossdistill.core.errors import RunError
from crossdistill.core.observations import load_measurement, stored_observations
from crossdistill.study.folder import write_failures
from crossdistill.study.plan import Plan

Result = TypeVar("Result")
ASIDE = ".damaged"


def past_damage(read: Callable[[], Result], out: Path, plan: Plan, failures: dict[str, str]) -> Result:
    """What `read()` gives; where a damaged file of a run stops it, what it gives without that file, which is noted as a failure."""
    try:
        return read()
    except RunError:
        if not (damaged := set_aside_damaged(out, plan)):
            raise
    failures |= damaged
    write_failures(out, failures)
    return read()


def set_aside_damaged(out: Path, plan: Plan) -> dict[str, str]:
    """Look through all that the runs of a plan left, and rename what cannot be read; returns {label: what is missing, and what to do}."""
    found: dict[str, list[str]] = {}
    for training in (*plan.trainings, *plan.ceilings):
        for path in _damaged(out, training.run):
            path.rename(path.with_name(f".{path.name}{ASIDE}"))
            found.setdefault(training.label, []).append(str(path.relative_to(out)))
    return {label: _sentence(paths) for label, paths in found.items()}


def _sentence(paths: list[str]) -> str:
    one = len(paths) == 1
    return (
        f"{', '.join(paths)} {'is' if one else 'are'} damaged and left out of the tables and pictures. "
        f"The same command makes {'it' if one else 'them'} again."
    )


def _damaged(out: Path, run: str) -> Iterator[Path]:
    for path in sorted((out / "observations" / run).glob("[!.]*.npz")):
        if not _reads(lambda path=path: list(stored_observations(path).values())):
            yield path
    for path in sorted((out / "instruments" / run).glob("[!.]*.npz")):
        picture = out / "pictures" / run / f"{path.name.rpartition('-')[0]}.webp"
        drawn = not picture.exists() or _reads(lambda picture=picture: _open(picture))
        if not drawn:
            yield picture
        if not drawn or not _reads(lambda path=path: load_measurement(path)):  # with it goes what says that the picture is drawn
            yield path


def _reads(read: Callable[[], object]) -> bool:
    try:
        read()
    except RunError:
        return False
    return True


def _open(picture: Path) -> None:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(picture) as image:
            image.load()
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise RunError(f"{picture} is damaged ({error})") from error
