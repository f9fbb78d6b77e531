"""The folder of an export: filled aside and put in place whole, so that a killed export leaves nothing half."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from crossdistill.core.errors import StudyError
from crossdistill.core.store import LOCK, locked, read_json

ABOUT = "export.json"


@contextlib.contextmanager
def filled_aside(out: Path, weights: str) -> Iterator[Path]:
    """A hidden folder beside `out`, which takes its place when the block ends well and is deleted when it does not.

    `weights`, the SHA-256 of the exported network's weights, tells an earlier export of the same network, which is replaced. Raises
    StudyError where anything else stands at `out`, or another process exports there.
    """
    out = Path(os.path.abspath(out))
    refuse_other_contents(out, weights)
    aside, former = (out.parent / f".{out.name}.{word}" for word in ("exporting", "former"))
    with locked(aside, f"another crossdistill exports to {out}: wait for it, or choose another --out folder"):
        try:
            for left in (*(path for path in aside.iterdir() if path.name != LOCK), former):  # of an export that was killed
                _delete(left)
            yield aside
            refuse_other_contents(out, weights)  # it may have been filled in the meantime
            (aside / LOCK).unlink()
            if out.exists():
                out.rename(former)
            aside.rename(out)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        shutil.rmtree(former, ignore_errors=True)


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def refuse_other_contents(out: Path, weights: str) -> None:
    """Raise StudyError unless `out` is absent, empty, or an export of the same network with nothing added to it."""
    if out.exists() and not out.is_dir():
        raise StudyError(f"{out} is a file: choose another --out folder")
    present = {str(path.relative_to(out)) for path in out.rglob("*") if not path.is_dir()} if out.exists() else set()
    if not present:
        return
    if not (out / ABOUT).exists():
        raise StudyError(f"{out} is not empty and holds no export: choose a new or empty --out folder")
    about = read_json(out / ABOUT)
    if about.get("weights") != weights:
        raise StudyError(f"{out} holds the export of another network ({about.get('run', 'unnamed')}): choose another --out folder")
    if added := sorted(present - set(about.get("files", ())) - {ABOUT}):
        raise StudyError(f"{out} holds {added[0]}, which no export wrote and which would be lost: move it, or choose another --out folder")
