"""Array files that grow together in one folder, with a journal of what is whole: a killed build goes on after its last block.

A block counts once its line stands in the journal; what came after is cut off when the folder is opened again. The journal
holds the SHA-256 of each file after each block, so that a damaged file is found out and the build starts afresh.
"""

import json
import operator
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from crossdistill.core.store import write_text
from crossdistill.probes._array_file import ArrayFile

JOURNAL = "journal.jsonl"


class GrowingFiles:
    """The files of a folder, as its journal knows them; everything else in the folder but a lock is removed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: dict[str, ArrayFile] = {}
        self.done: dict[str, int] = {}  # step -> rows of the clean images that it has treated
        try:
            entries = _journal(folder)
            goes_on = self._go_on(entries)
        except (OSError, ValueError, LookupError, TypeError, AttributeError):  # a journal or a file that is damaged in any way
            goes_on = False
        if not goes_on:
            entries, self.files, self.done = [], {}, {}
        known = {JOURNAL, ".lock", *(file.path.name for file in self.files.values())}
        for path in folder.iterdir():
            if path.name in known:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        # Written anew, since a killed process may have left half a line at the end.
        write_text(folder / JOURNAL, "".join(json.dumps(entry) + "\n" for entry in entries))

    def _go_on(self, entries: list[dict[str, Any]]) -> bool:
        """Open what the journal lists; False where a file is not what was written. A journal of another shape raises some error."""
        state = {name: tuple(known) for entry in entries for name, known in entry["files"].items()}
        self.files = {name: ArrayFile.reopened(self.folder / f"{name}.npy", rows) for name, (rows, _) in state.items()}
        self.done = {entry["step"]: operator.index(entry["rows"]) for entry in entries}
        return all(self.files[name].sha256 == sha256 for name, (_, sha256) in state.items())

    def append(self, step: str, rows: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Add a block to several files; with it, `step` has treated the first `rows` clean images."""
        for name, values in arrays.items():
            if name not in self.files:
                self.files[name] = ArrayFile(self.folder / f"{name}.npy")
            self.files[name].append(values)
        self.done[step] = rows
        entry = {"step": step, "rows": rows, "files": {name: (self.files[name].rows, self.files[name].sha256) for name in arrays}}
        with open(self.folder / JOURNAL, "a", encoding="utf-8") as journal:
            journal.write(json.dumps(entry) + "\n")


def _journal(folder: Path) -> list[dict[str, Any]]:
    """The entries of a folder's journal; a last line that was cut short by a kill does not count."""
    path = folder / JOURNAL
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith(b"\n")]
