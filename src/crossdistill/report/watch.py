"""Rebuild the page of a study whenever something of it has changed, until the study is done."""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

from crossdistill.core.errors import CrossdistillError
from crossdistill.core.store import is_locked, write_text
from crossdistill.report.page import build_page, render
from crossdistill.report.study_files import StudyFiles, read_study
from crossdistill.report.words import count

LOOK_SECONDS = 3.0  # between two looks at the folder
RELOAD_SECONDS = 10  # after which an open page loads itself again: long enough to read a sentence

READ = (
    "plan.json", "study.yaml", "failures.json", "phases.json", "*.parquet",
    "runs/*/record.json", "probes/*/manifest.json", "pictures/**/*",
)  # fmt: skip
"""What the page is made of, relative to the study's folder."""

Signature = tuple[frozenset[tuple[str, int, int]], bool]


def watch(folder: Path, say: Callable[[str], object], *, look_seconds: float = LOOK_SECONDS) -> None:
    """Keep `folder/report.html` up to date and `say` a line for each rebuild; returns when the study is done.

    A file that is damaged or half written at some moment ends nothing: it is named once, and looked at again. However this ends, by
    Ctrl-C too, the page that stays behind no longer loads itself again.
    """
    seen: Signature | None = None
    said = ""
    try:
        while True:
            running, found = is_locked(folder), signature(folder)
            if (found, running) != seen:
                try:
                    if rebuild(folder, say, running=running):
                        return
                    seen, said = (found, running), ""
                except (CrossdistillError, OSError) as error:
                    if str(error) != said:
                        said = str(error)
                        say(f"{_clock()} not rebuilt, looking again: {said}")
            time.sleep(look_seconds)
    except KeyboardInterrupt:
        with contextlib.suppress(CrossdistillError, OSError):
            build_page(folder)
        raise


def rebuild(folder: Path, say: Callable[[str], object], *, running: bool) -> bool:
    """Rebuild the page once. Whether the study is done: nothing is missing, or something failed, and nobody works on it any more."""
    start = time.perf_counter()
    study = read_study(folder)
    done = not running and bool(study.failures or not study.missing)
    page = study.folder / "report.html"
    write_text(page, render(study, reload_seconds=None if done else RELOAD_SECONDS))
    say(f"{_clock()} {page} rebuilt in {time.perf_counter() - start:.1f} s: {_state(study, running=running)}")
    return done


def _state(study: StudyFiles, *, running: bool) -> str:
    failed = f"{count(len(study.failures), 'task')} failed, " if study.failures else ""
    left = study.missing[0].partition(":")[0].rstrip(".") if study.missing else "nothing is missing"
    return f"{failed}{left}; {'the study is running' if running else 'nobody works on it'}"


def signature(folder: Path) -> frozenset[tuple[str, int, int]]:
    """Name, time and size of every file that the page is made of."""
    found = set()
    for path in (path for pattern in READ for path in folder.glob(pattern)):
        try:
            facts = path.stat()
        except FileNotFoundError:  # replaced between the two looks
            continue
        found.add((str(path), facts.st_mtime_ns, facts.st_size))
    return frozenset(found)


def _clock() -> str:
    return time.strftime("%H:%M:%S")
