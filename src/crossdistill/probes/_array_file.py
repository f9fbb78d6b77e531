"""A .npy file that grows block by block, so that a set larger than memory can be written, and the SHA-256 of array bytes."""

import hashlib
import os
from pathlib import Path
from types import TracebackType

import numpy as np


def array_sha256(array: np.ndarray) -> str:
    """SHA-256 of the array's bytes in C order; a memory-mapped array is read through, not loaded."""
    return hashlib.sha256(np.ascontiguousarray(array).view(np.uint8).data).hexdigest()


class ArrayFile:
    """A new .npy file to which blocks of rows are appended; a context manager that completes the header on a clean exit.

    Readers must not see the file before that: write it in a folder that is renamed when whole.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows = 0
        self._file = open(path, "wb")  # noqa: SIM115 (closed by __exit__)
        self._hash = hashlib.sha256()
        self._row: tuple[np.dtype, tuple[int, ...]] | None = None

    def append(self, block: np.ndarray) -> None:
        """Add rows; raises ValueError where their type or shape differs from that of the rows before."""
        row = (block.dtype, block.shape[1:])
        if self._row is None:
            self._row = row
            self._write_header()
        if row != self._row:
            raise ValueError(f"rows of {self.path.name} are {self._row[0]} {self._row[1]}, got {row[0]} {row[1]}")
        data = np.ascontiguousarray(block).data
        self._hash.update(data)
        self._file.write(data)
        self.rows += len(block)

    @property
    def sha256(self) -> str:
        """SHA-256 of the rows' bytes so far, without the header."""
        return self._hash.hexdigest()

    def _write_header(self) -> None:
        assert self._row is not None
        dtype, shape = self._row
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (self.rows, *shape)}
        # NumPy pads the header so that the first axis can grow in place.
        np.lib.format.write_array_header_1_0(self._file, header)

    def __enter__(self) -> "ArrayFile":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        with self._file:
            if error is None and self._row is not None:
                self._file.seek(0)
                self._write_header()
                self._file.flush()
                os.fsync(self._file.fileno())
