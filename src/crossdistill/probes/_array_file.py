"""A .npy file that grows block by block, so that a set larger than memory can be written, and the SHA-256 of array bytes."""

import hashlib
import io
import os
from pathlib import Path

import numpy as np

CHUNK = 2**22  # bytes read at once


def array_sha256(array: np.ndarray) -> str:
    """SHA-256 of the array's bytes in C order; a memory-mapped array is read through, not loaded."""
    found = hashlib.sha256()
    rows = max(1, CHUNK // max(1, array[:1].nbytes))
    for start in range(0, len(array), rows):
        found.update(_bytes(array[start : start + rows]))
    return found.hexdigest()


def _bytes(array: np.ndarray) -> memoryview:
    return np.ascontiguousarray(array).view(np.uint8).data


class ArrayFile:
    """A .npy file to which blocks of rows are appended. Its header says 0 rows until `complete` is called.

    No file stays open between blocks: a probe may have hundreds of levels.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows = 0
        self._hash = hashlib.sha256()
        self._row: tuple[np.dtype, tuple[int, ...]] | None = None

    @classmethod
    def reopened(cls, path: Path, rows: int) -> "ArrayFile":
        """The file as it was after its first `rows` rows: what follows is cut off, so that blocks can be appended again.

        The rows are read once for their SHA-256, which says whether they are what was written. Raises OSError or ValueError
        where there is no such file.
        """
        file = cls(path)
        with open(path, "r+b") as stream:
            np.lib.format.read_magic(stream)
            shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
            file.rows, file._row = rows, (dtype, shape[1:])
            start = stream.tell()
            if rows < 0 or start + rows * file._row_bytes > path.stat().st_size:
                raise ValueError(f"{path} has not {rows} rows")
            stream.truncate(start + rows * file._row_bytes)
            stream.seek(start)
            while chunk := stream.read(CHUNK):
                file._hash.update(chunk)
        return file

    def append(self, block: np.ndarray) -> None:
        """Add rows; raises ValueError where their type or shape differs from that of the rows before."""
        row = (block.dtype, block.shape[1:])
        if self._row is None:
            self._row = row
            with open(self.path, "wb") as stream:
                stream.write(self._header(0))
        if row != self._row:
            raise ValueError(f"rows of {self.path.name} are {self._row[0]} {self._row[1]}, got {row[0]} {row[1]}")
        if len(block):
            data = _bytes(block)
            with open(self.path, "ab") as stream:
                stream.write(data)
            self._hash.update(data)
            self.rows += len(block)

    def complete(self) -> None:
        """Write the number of rows into the header, and all of the file to the disk."""
        with open(self.path, "r+b") as stream:
            stream.write(self._header(self.rows))
            stream.flush()
            os.fsync(stream.fileno())

    def read(self) -> np.ndarray:
        """The rows so far, in memory."""
        assert self._row is not None
        return np.fromfile(self.path, self._row[0], offset=len(self._header(0))).reshape(-1, *self._row[1])

    @property
    def sha256(self) -> str:
        """SHA-256 of the rows' bytes so far, without the header."""
        return self._hash.hexdigest()

    @property
    def _row_bytes(self) -> int:
        assert self._row is not None
        return self._row[0].itemsize * int(np.prod(self._row[1], dtype=np.int64))

    def _header(self, rows: int) -> bytes:
        assert self._row is not None
        dtype, shape = self._row
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (rows, *shape)}
        # NumPy pads the header so that the first axis can grow in place.
        stream = io.BytesIO()
        np.lib.format.write_array_header_1_0(stream, header)
        return stream.getvalue()
