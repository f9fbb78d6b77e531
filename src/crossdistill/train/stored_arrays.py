"""Arrays on disk that are filled shard by shard, by one process or several, and that say which of their bytes are right.

Space is reserved before anything is computed, and bytes are written by `pwrite`, never through a mapped page: on a full disk that
would end the process. A shard counts once its checksums stand beside it, written after its bytes were synced, so that a build that
was killed goes on where it was. Each shard is locked while it is filled; the lock ends with its process.
"""

import contextlib
import errno
import fcntl
import hashlib
import io
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from crossdistill.core.errors import StudyError
from crossdistill.core.store import locked, write_json

SHARD_ROWS = 4096
CHUNK = 2**22  # bytes read at once
WAITING = 0.2  # seconds between looks at shards that other processes are filling
Block = Mapping[str, np.ndarray]


class CannotStore(StudyError):
    """There is no room for the arrays, or their folder cannot be written."""


@dataclass(frozen=True)
class RowSpec:
    """One row of an array: its type, as NumPy names it, and its shape."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def n_bytes(self) -> int:
        return np.dtype(self.dtype).itemsize * prod(self.shape)


@dataclass(frozen=True)
class StoredArrays:
    """Arrays of `n_rows` rows each in `folder`, by name: NAME.npy, filled in shards of `shard_rows` rows."""

    folder: Path
    n_rows: int
    specs: Mapping[str, RowSpec]
    shard_rows: int = SHARD_ROWS

    @property
    def n_shards(self) -> int:
        return -(-self.n_rows // self.shard_rows)

    @property
    def n_bytes(self) -> int:
        """The bytes of all arrays, without their headers."""
        return self.n_rows * sum(spec.n_bytes for spec in self.specs.values())

    @property
    def unreserved_bytes(self) -> int:
        """How many of these bytes the disk has still to give."""
        return self.n_rows * sum(spec.n_bytes for name, spec in self.specs.items() if not self._path(name).exists())

    def rows(self, shard: int) -> range:
        """The rows of a shard."""
        return range(shard * self.shard_rows, min((shard + 1) * self.shard_rows, self.n_rows))

    def missing(self) -> list[int]:
        """The shards that are not there, or not of all arrays."""
        return [shard for shard in range(self.n_shards) if not self.is_done(shard)]

    def is_done(self, shard: int) -> bool:
        """Whether a shard of all arrays was finished."""
        return self.specs.keys() <= self._checksums(shard).keys()

    @property
    def is_complete(self) -> bool:
        """Whether every shard of all arrays was finished, and the files are there."""
        return not self.unreserved_bytes and not self.missing()

    @property
    def is_reserved(self) -> bool:
        """Whether the files of all arrays are there and as long as they should be."""
        return all(self._is_whole(name) for name in self.specs)

    def reserve(self) -> None:
        """Make the files of all arrays, with room for every row; mends lengths and headers of those that are there.

        Raises CannotStore where the disk has too little space, or where the folder cannot be written.
        """
        if self.is_reserved:
            return
        with self._writing(), locked(self.folder, "", waiting=lambda *_: None):
            needed, free = self.unreserved_bytes, shutil.disk_usage(self.folder).free
            if needed > free:
                raise CannotStore(f"{self.folder} needs {in_bytes(needed)} and its disk has {in_bytes(free)} free. {ADVICE}")
            for name in self.specs:
                if not self._is_whole(name):
                    self._reserve(name)

    def fill_missing(self, blocks: Callable[[range], Iterable[Block]], advance: Callable[[int], None] = lambda shards: None) -> None:
        """Fill missing shards with `blocks(rows)` until none is missing; what other processes are filling is waited for.

        `advance` is told how many more are there. Raises CannotStore where they cannot be written.
        """
        missing = self.missing()
        while missing:
            for shard in missing:
                with self.claimed(shard) as mine:
                    if mine and not self.is_done(shard):
                        self.fill(shard, blocks(self.rows(shard)))
            left = self.missing()
            advance(len(missing) - len(left))
            if len(left) == len(missing):
                time.sleep(WAITING)
            missing = left

    def fill(self, shard: int, blocks: Iterable[Block]) -> None:
        """Write what a shard lacks, block after block in the order of its rows, then its checksums. For who claimed the shard."""
        there = self._checksums(shard)
        sums = {name: hashlib.sha256() for name in self.specs if name not in there}
        with self._writing(), contextlib.ExitStack() as opened:
            files = {name: _opened(opened, self._path(name), os.O_WRONLY) for name in sums}
            offsets = {name: self._offset(name, self.rows(shard).start) for name in sums}
            for block in blocks:
                for name in sums:
                    data = np.ascontiguousarray(block[name], dtype=self.specs[name].dtype).reshape(-1).view(np.uint8).data
                    _write(files[name], data, offsets[name])
                    sums[name].update(data)
                    offsets[name] += len(data)
            for name in sums:
                assert offsets[name] == self._offset(name, self.rows(shard).stop), f"blocks of {name} are not the rows of shard {shard}"
                os.fsync(files[name])
            write_json(self._marker(shard), {**there, **{name: found.hexdigest() for name, found in sums.items()}})

    @contextlib.contextmanager
    def claimed(self, shard: int, *, wait: bool = False) -> Iterator[bool]:
        """Hold a shard while it or its checksums are written; False where another process holds it and is not waited for."""
        with self._writing():
            self._marker(shard).parent.mkdir(parents=True, exist_ok=True)
            (lock := self._marker(shard).with_suffix(".lock")).touch()
        with open(lock, "ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
            else:
                yield True

    def damaged(self, advance: Callable[[int], None] = lambda n_bytes: None) -> list[int]:
        """The finished shards whose bytes are no longer those that were written. They are read through, and then count as missing."""
        found = []
        for shard in range(self.n_shards):
            checksums = self._checksums(shard)
            wrong = {name for name in self.specs if name in checksums and self._sha256(name, shard, advance) != checksums[name]}
            if wrong:
                found.append(shard)
                # Held: who is filling another array of this shard would write the wrong checksum back beside its own.
                with self.claimed(shard, wait=True), self._writing():
                    write_json(self._marker(shard), {name: value for name, value in self._checksums(shard).items() if name not in wrong})
        return found

    def opened(self) -> dict[str, np.ndarray]:
        """The arrays, memory-mapped for reading; all of them must have been reserved."""
        return {
            name: np.memmap(self._path(name), spec.dtype, "r", self._offset(name, 0), (self.n_rows, *spec.shape))
            for name, spec in self.specs.items()
        }

    def _sha256(self, name: str, shard: int, advance: Callable[[int], None]) -> str:
        found = hashlib.sha256()
        rows = self.rows(shard)
        position, stop = self._offset(name, rows.start), self._offset(name, rows.stop)
        with open(self._path(name), "rb") as file:  # not through a map: a file that is being cut short must not end this process
            file.seek(position)
            while chunk := file.read(min(CHUNK, stop - file.tell())):
                found.update(chunk)
                advance(len(chunk))
        return found.hexdigest()

    def _checksums(self, shard: int) -> dict[str, str]:
        try:
            found = json.loads(self._marker(shard).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _marker(self, shard: int) -> Path:
        return self.folder / "shards" / f"{shard:06d}.json"

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.npy"

    def _offset(self, name: str, row: int) -> int:
        return len(self._header(name)) + row * self.specs[name].n_bytes

    def _header(self, name: str) -> bytes:
        spec, stream = self.specs[name], io.BytesIO()
        fields: dict[str, Any] = {"descr": spec.dtype, "fortran_order": False, "shape": (self.n_rows, *spec.shape)}
        np.lib.format.write_array_header_1_0(stream, fields)
        return stream.getvalue()

    def _is_whole(self, name: str) -> bool:
        header = self._header(name)
        try:
            with open(self._path(name), "rb") as file:
                return file.read(len(header)) == header and os.fstat(file.fileno()).st_size == self._offset(name, self.n_rows)
        except FileNotFoundError:
            return False

    def _reserve(self, name: str) -> None:
        """Make or mend one file: aside and renamed where there is none, in place where others may have mapped it."""
        path, size = self._path(name), self._offset(name, self.n_rows)
        descriptor, aside = (os.open(path, os.O_RDWR), None) if path.exists() else tempfile.mkstemp(dir=self.folder, prefix=f".{name}.")
        try:
            try:
                os.posix_fallocate(descriptor, 0, size)
                os.ftruncate(descriptor, size)
                _write(descriptor, memoryview(self._header(name)), 0)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            if aside is not None:
                os.chmod(aside, 0o644)
                os.replace(aside, path)
        except BaseException:
            if aside is not None:
                with contextlib.suppress(OSError):
                    os.unlink(aside)
            raise

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Turns what the disk refuses into CannotStore."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            yield
        except CannotStore:
            raise
        except (OSError, StudyError) as error:
            words = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
            room = ""
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                room = f" (of {in_bytes(self.n_bytes)} in all; {in_bytes(shutil.disk_usage(self.folder).free)} are free)"
            raise CannotStore(f"cannot write {self.folder}: {words}{room}. {ADVICE}") from error


ADVICE = "Free some space, choose another --store, or set `cache: off`; what was finished is kept."


def _write(descriptor: int, data: memoryview, offset: int) -> None:
    while len(data):
        written = os.pwrite(descriptor, data, offset)
        data, offset = data[written:], offset + written


def _opened(stack: contextlib.ExitStack, path: Path, flags: int) -> int:
    descriptor = os.open(path, flags)
    stack.callback(os.close, descriptor)
    return descriptor


def in_bytes(count: int) -> str:
    """A number of bytes in the unit that reads best.

    >>> in_bytes(48_800_000), in_bytes(3 * 10**9), in_bytes(900)
    ('48.8 MB', '3.0 GB', '0.9 kB')
    """
    for unit, size in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1000:.1f} kB"
