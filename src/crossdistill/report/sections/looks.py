"""The page's section "Where they look": Grad-CAM and attention rollout of teacher, independent and students on the same images."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossdistill.core.errors import StudyError
from crossdistill.core.records import RunRecord
from crossdistill.report.names import plain
from crossdistill.report.pictures import picture_size, webp_address
from crossdistill.report.study_files import PlannedPair, StudyFiles

TITLE, PLACE = "Where they look", 60


def contents(study: StudyFiles) -> dict[str, Any] | None:
    """What the template prints; None where no pictures were stored."""
    found = pair_strips(study)
    return dict(looks=found) if found else None


MAPS = {
    "grad_cam": ("Grad-CAM", "coloured by how much the answer rests on each place"),
    "attention_rollout": ("attention rollout", "coloured by how much attention each place receives through all layers"),
}
"""What the page calls the pictures of an instrument, and what they show; others stand under the instrument's own name."""

ROOM = 1_500_000
"""Bytes of pictures on the page, which is to stay below 5 MB; what comes later stays in the study's folder."""


@dataclass(frozen=True)
class Strip:
    """A row of pictures: of whom, as a data address with its size in pixels, and what it shows."""

    title: str
    address: str
    size: tuple[int, int]
    alt: str


@dataclass(frozen=True)
class PairStrips:
    """The strips of one pair, the images first, and how many found no room on the page."""

    title: str
    strips: list[Strip]
    left_out: int


def pair_strips(study: StudyFiles) -> list[PairStrips]:
    """For the first seed of each pair what was drawn; nothing where there are no pictures. Raises StudyError for a damaged file."""
    images = study.folder / "pictures" / "images.webp"
    if not images.exists():
        return []
    shown = _strip(images, "Images", "The test images that stand in the rows below.")
    found, room = [], ROOM
    for pair in study.pairs:
        strips, kept = list(_of_pair(study, pair)), [shown]
        for strip in strips:
            room -= len(strip.address)
            kept += [strip] if room >= 0 else []
        if strips:
            found.append(PairStrips(pair.title, kept, 1 + len(strips) - len(kept)))
    return found


def _of_pair(study: StudyFiles, pair: PlannedPair) -> Iterator[Strip]:
    networks, pictures = _networks(study, pair), study.folder / "pictures"
    drawn = {path.stem for _, run in networks for path in (pictures / run).glob("[!.]*.webp")}
    for name in [*(name for name in MAPS if name in drawn), *sorted(drawn - MAPS.keys())]:
        words, meaning = MAPS.get(name, (plain(name), "coloured from low to high"))
        for whose, run in networks:
            path = pictures / run / f"{name}.webp"
            if path.exists():
                yield _strip(path, f"{whose}: {words}", f"{words} of {whose}: the same images, {meaning}.")


def _networks(study: StudyFiles, pair: PlannedPair) -> list[tuple[str, str]]:
    """(name, run) of teacher, independent and the student of each method, at the lowest seed for which there are students."""
    students = [r for r in study.records if r.arm in pair.methods and (r.teacher, r.student) == (pair.teacher, pair.student)]
    if not students:
        return []
    seed = min(record.seed for record in students)
    by_arm: dict[str, RunRecord] = {record.arm: record for record in students if record.seed == seed}
    alone = [r.run for r in study.records if (r.arm, r.student, r.seed) == ("independent", pair.student, seed)]
    teacher = next((record.teacher_run for record in by_arm.values() if record.teacher_run), None)
    return [
        *([(f"teacher {pair.teacher}", teacher)] if teacher else []),
        *((f"independent {pair.student}", run) for run in alone),
        *((f"{method} {pair.student}", by_arm[method].run) for method in pair.methods if method in by_arm),
    ]


def _strip(path: Path, title: str, alt: str) -> Strip:
    try:
        return Strip(title, webp_address(path.read_bytes()), picture_size(path), alt)
    except OSError as error:
        what_to_do = "Delete the folders pictures and instruments, and `crossdistill study run` makes both again."
        raise StudyError(f"{path} is damaged ({error}). {what_to_do}") from error
