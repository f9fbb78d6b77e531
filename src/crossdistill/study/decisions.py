"""Decisions made elsewhere: answers of networks (or people) to the same images, read from a file, with profiles and pairs.

A CSV (.csv, .csv.gz; separated by commas) or Parquet file with one row for each answer, and the columns

- `network` (or `subject`), `image` (or `image_id`, `row`) and `decision`: text or whole numbers; "na" is an answer like any other;
- `label` (or `true`), the right answer; `shape`, `texture`, `colour`, the classes that the cues of an image name. Where a set has
  shapes and no labels, the shape is the label, as in the published figures on cue conflict;
- `probe`, `level`, `draw`: to which set of images a row belongs. Images of the set "clean" that a probe shows again keep their names
  there, and are compared with them. Without the column `probe` the images are the set "conflict" where they have shape and texture,
  else "clean".

Or with one row for each image: without `network` and `decision`, each further column is a network and holds its decisions.
"""

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from crossdistill.compare import ObservedRun, pairs_table, results_table, write_table
from crossdistill.core.records import PairRow, ResultRow, RunRecord
from crossdistill.core.store import locked
from crossdistill.core.types import UNLABELLED, Observations
from crossdistill.study.decision_file import CLASSES, CUES, load_answers

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

RESULTS_FILE, PAIRS_FILE = "results.parquet", "pairs.parquet"


class Evaluated(NamedTuple):
    """Profiles of the networks, and what each two of them have in common."""

    results: list[ResultRow]
    pairs: list[PairRow]


def evaluate_decisions(path: Path, *, out: Path) -> Evaluated:
    """Every metric that decisions allow, of each network and of each pair; writes results.parquet and pairs.parquet.

    Raises DecisionsError for a file that is damaged, incomplete or contradicts itself.
    """
    runs = read_decisions(path)
    with locked(out, f"another crossdistill is writing to {out}: wait for it, or choose another --out folder"):
        return evaluated(runs, out)


def evaluated(runs: Sequence[ObservedRun], out: Path) -> Evaluated:
    """The two tables of networks that nobody compared in a study, written into `out`."""
    found = Evaluated(results_table(runs, pairs=()), pairs_table(runs))
    write_table(found.results, out / RESULTS_FILE, ResultRow)
    write_table(found.pairs, out / PAIRS_FILE, PairRow)
    return found


def read_decisions(path: Path) -> list[ObservedRun]:
    """The networks of a file with what they answered, in the order of the file; see above for its layout.

    Raises DecisionsError where the file cannot be read, lacks a column or holds one that is not known, where a cell is empty, an image
    occurs twice, has two labels, or was not answered by every network, and where no decision is among the classes of the images.
    """
    import duckdb

    with duckdb.connect() as database:
        load_answers(database, Path(path))
        return _runs(database, Path(path))


def _runs(database: "DuckDBPyConnection", path: Path) -> list[ObservedRun]:
    """The networks with their observations, classes and images numbered."""
    of_classes = "SELECT unnest([decision, label, shape, texture, colour]) AS name FROM answers"
    classes = _numbered(database, f"SELECT DISTINCT name FROM ({of_classes}) WHERE name IS NOT NULL ORDER BY name")
    images = _numbered(database, "SELECT DISTINCT image FROM answers ORDER BY image")
    listed = ", ".join(f"list({name} ORDER BY image) AS {name}" for name in ("image", "decision", *CLASSES))
    answers = database.execute(
        f"SELECT network, min(place) AS place, probe, level, draw::INTEGER, split, {listed} FROM answers JOIN sets USING (probe) "
        "GROUP BY network, probe, level, draw, split ORDER BY min(min(place)) OVER (PARTITION BY network), min(place)"
    )
    runs = []
    for network, sets in groupby(iter(answers.fetchone, None), key=lambda row: row[0]):
        observations = {
            (probe, level, draw): _observations(split, [images[image] for image in shown], decisions, of_images, classes)
            for _, _, probe, level, draw, split, shown, decisions, *of_images in sets
        }
        runs.append(ObservedRun(_record(network, path), observations))
    return runs


def _observations(
    split: str, index: list[int], decisions: list[str], of_images: Sequence[list[str]], classes: Mapping[str, int]
) -> Observations:  # fmt: skip
    values = {
        name: np.array([classes[value] for value in column], np.int64)
        for name, column in zip(CLASSES, of_images, strict=True)
        if column[0] is not None
    }
    labels = values.get("label", values.get("shape", np.full(len(index), UNLABELLED)))
    return Observations(
        np.empty((len(index), 0), np.float32),
        labels,
        np.array(index, np.int64),
        {cue: values[cue] for cue in CUES if cue in values},
        split,
        np.array([classes[decision] for decision in decisions], np.int64),
    )


def _record(network: str, path: Path) -> RunRecord:
    return RunRecord(
        run=network, label=network, arm="network", method=None, teacher=None, teacher_run=None, student=network, model="", family="",
        readout="", seed=0, parameters=0, training={}, history=[], estimates={}, notes=[f"decisions read from {path.name}"], timing={},
        software={}, hardware={},
    )  # fmt: skip


def _numbered(database: "DuckDBPyConnection", query: str) -> dict[str, int]:
    return {name: number for number, (name,) in enumerate(database.execute(query).fetchall())}
