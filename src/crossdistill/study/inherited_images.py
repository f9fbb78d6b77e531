"""Pictures of what students got from their teachers: images right in both and wrong in an independent, as small files beside each run.

pictures/RUN/gains.json     which images, their labels, and what each of the three networks answered
             gained-N.webp  a sheet: one column an image; on probes the clean image above what the networks were shown
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from crossdistill.compare.gains import Trio, compared, decisions_of, trios
from crossdistill.compare.observed import AVERAGE, CLEAN, Answers, ObservedRun, Pair
from crossdistill.core import seeds
from crossdistill.core.store import write_json
from crossdistill.study.map_pictures import SHEET_GAP, write_sheet
from crossdistill.study.workshop import Workshop

FORMAT = 1
SHOWN = 6
"""Images of each set and level at most: enough to look at, few enough for a page of many runs."""


def gains_file(out: Path, run: str) -> Path:
    return out / "pictures" / run / "gains.json"


def write_gains(shop: Workshop, runs: Sequence[ObservedRun], pairs: Sequence[Pair]) -> None:
    """Draw the images of every student of a method, from stored answers and the images at hand; no network is run.

    Of many images the first are taken in one order, drawn from the study's seed, which no answer has any part in.
    """
    by_run = {run.record.run: run for run in runs}
    order = np.argsort(seeds.permutation(len(shop.splits.test), shop.config.seed, "gained images"))  # {row: its place}
    found = trios(runs, pairs)
    for pair in pairs:
        taught = [trio for trio in found.get(pair.index, []) if trio.arm in pair.methods]
        names = sorted({name for trio in taught for name in (trio.student, trio.teacher, trio.independent)})
        answers = {name: decisions_of(by_run[name]) for name in names}
        for trio in taught:
            _write(shop, pair, trio, answers, order)


def _write(shop: Workshop, pair: Pair, trio: Trio, answers: Mapping[str, Any], order: np.ndarray) -> None:
    path = gains_file(shop.out, trio.student)
    sets, files = [], set()
    for place, told, wrong in _told(trio, answers):
        rows = told[np.argsort(order[told], kind="stable")][:SHOWN]
        sheet = _sheet(shop, *place, rows)
        if sheet:
            name = f"gained-{len(files)}.webp"
            size = write_sheet(path.parent / name, sheet)
            files.add(name)
            images = [_image(shop, row, wrong) for row in rows]
            probe, level = place
            sets.append(
                {"probe": probe, "level": level, "found": len(told), "file": name, "tile": size, "gap": SHEET_GAP, "images": images}
            )
    facts = {"format": FORMAT, "pair": pair.index, "arm": trio.arm, "seed": trio.seed, "teacher": trio.teacher}
    write_json(path, {**facts, "independent": trio.independent, "rows": "clean image above the probe's", "sets": sets})
    _remove(file for file in path.parent.glob("gained-*.webp") if file.name not in files)


def _told(trio: Trio, answers: Mapping[str, Mapping[str, Mapping[str, Answers]]]) -> Iterator[tuple[tuple[str, str], np.ndarray, Answers]]:
    """((set, level), the rows of the images that are right in teacher and student alone, the independent's answers), of the first draw."""
    for place, right in compared(trio, answers):
        probe, level = place
        if level != AVERAGE:
            _, got = right.gained
            yield place, right.index[got[0]], answers[trio.independent][probe][level]


def _sheet(shop: Workshop, probe: str, level: str, rows: np.ndarray) -> list[np.ndarray]:
    """The rows of pictures, each [images, 3, height, width]; none where there is no image, or none to be had."""
    clean = shop.splits.test.images[rows]
    if not len(rows) or probe == CLEAN[0]:
        return [clean] if len(rows) else []
    built = shop.probe_sets.get(probe)
    if built is None or level not in built.level_names:
        return []
    shown = built.factor("images", built.level_names.index(level), 0)[np.searchsorted(built.kept_index, rows)]
    return [clean, shown]


def _image(shop: Workshop, row: int, independent: Answers) -> dict[str, str]:
    test = shop.splits.test
    decision = int(np.atleast_2d(independent.decisions)[0][np.flatnonzero(independent.index == row)[0]])
    label = test.class_names[int(test.labels[row])]
    return {"id": str(test.ids[row]), "label": label, "teacher": label, "student": label, "independent": test.class_names[decision]}


def _remove(files: Iterable[Path]) -> None:
    for file in files:  # of a former plan, or of other answers
        file.unlink(missing_ok=True)
