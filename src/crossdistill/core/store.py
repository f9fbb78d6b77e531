"""Files that are whole or absent: atomic writes, locks that die with their process, hashes that name contents."""

import contextlib
import fcntl
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from crossdistill.core.errors import RunError, StudyError

LOCK = ".lock"
WAIT_SECONDS = 0.2  # between two looks at a lock that another process holds


def cache_folder() -> Path:
    """The folder for decoded images, teachers and probe sets: `CROSSDISTILL_CACHE`, or the platform's cache folder."""
    if override := os.environ.get("CROSSDISTILL_CACHE"):
        return Path(override).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("crossdistill")


def digest(value: Any) -> str:
    """16 hexadecimal digits that name a JSON value, whatever the order of its keys.

    >>> digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    True
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, read in blocks."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Fill `path` through `write(file)`: aside, synced, renamed. A reader sees the old file, the new one, or none.

    Raises StudyError when the folder is read-only or the disk is full.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, aside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(aside, 0o644)
        os.replace(aside, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(aside)
        if isinstance(error, OSError):
            raise cannot_write(path, error) from error
        raise


def cannot_write(path: Path, error: OSError) -> StudyError:
    """What to raise where the system refuses to write."""
    return StudyError(
        f"cannot write {path}: {error.strerror or error}. "
        "Free some space or choose a folder that can be written; what was finished is kept, and the same command goes on from there."
    )


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, as UTF-8."""
    write_atomically(path, lambda file: file.write(text.encode()))


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically; NaN and infinity are refused, since no reader agrees on them."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file; raises RunError where its bytes are not JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:  # of the JSON, or of bytes that are no text
        raise RunError(f"{path} is damaged ({error}). Delete it, and the same command makes it again.") from error


@contextlib.contextmanager
def locked(folder: Path, refusal: str, *, waiting: Callable[[str], object] | None = None) -> Iterator[None]:
    """Hold `folder` for this process; a second holder gets StudyError(refusal). The lock ends with the process, also on kill -9.

    Where `waiting` is given, it is told so once, in place of the refusal, and the lock is waited for, however long that takes.
    """
    told = False
    while True:
        file = _lock_file(folder)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.close()
            if waiting is None and told:
                raise StudyError(refusal) from error
            if waiting is not None and not told:
                waiting(f"waiting: {refusal}")
            told = True  # without `waiting` it is tried once more: whoever only looks whether it is held does so for a moment
            time.sleep(WAIT_SECONDS)  # and not inside flock, which would keep Python from answering a signal
            continue
        if _stands_at(file, folder):
            break
        file.close()  # its folder was renamed or deleted between the two calls: this lock would keep nobody out
    with file:
        yield


def is_locked(folder: Path) -> bool:
    """Whether a process holds `folder` at this moment."""
    try:
        with open(folder / LOCK, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # there is no lock, or it cannot be read
        return False
    return False


def _lock_file(folder: Path) -> BinaryIO:
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return open(folder / LOCK, "a+b")
        except FileNotFoundError:  # deleted between the two calls
            continue
        except OSError as error:
            raise cannot_write(folder, error) from error


def _stands_at(file: BinaryIO, folder: Path) -> bool:
    """Whether the file is still the one that others find in the folder."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(folder / LOCK))
    except FileNotFoundError:
        return False
