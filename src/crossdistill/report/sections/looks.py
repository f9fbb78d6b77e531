"""The page's section "Where they look": Grad-CAM and attention rollout of teacher, independent and students on the same images."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from crossdistill.core.records import RunRecord
from crossdistill.report.names import plain
from crossdistill.report.pictures import picture_address
from crossdistill.report.study_files import PlannedPair, StudyFiles

TITLE, PLACE = "Where they look", 60

MAPS = {
    "grad_cam": ("Grad-CAM", "coloured by how much the answer rests on each place"),
    "attention_rollout": ("attention rollout", "coloured by how much attention each place receives through all layers"),
}
"""What the page calls the pictures of an instrument, and what they show; others stand under the instrument's own name."""

ROOM = 1_500_000
"""Bytes of pictures on the page, which is to stay below 5 MB; what comes later stays in the study's folder."""

UNFOLDED = 2
"""Groups of strips that are open from the start."""

IMAGES = "Images"


@dataclass(frozen=True)
class Strip:
    """A row of pictures: of whom, as a data address with its size in pixels, and what it shows."""

    title: str
    address: str
    size: tuple[int, int]
    alt: str
    method: str | None = None  # whose student it shows


@dataclass
class PairStrips:
    """The strips of one pair and seed, the images first; how many found no room on the page, and which files are damaged."""

    pair: PlannedPair
    seed: int
    strips: list[Strip]
    left_out: int = 0
    damaged: list[str] = field(default_factory=list)

    @property
    def title(self) -> str:
        return self.pair.title

    @property
    def groups(self) -> list[tuple[str, list[Strip]]]:
        """The strips by what they show: "Grad-CAM" and its strips, ..."""
        shown = [strip for strip in self.strips if strip.title != IMAGES]
        return [(words, list(of)) for words, of in groupby(shown, key=lambda strip: strip.title.rpartition(": ")[2])]

    @property
    def images(self) -> Strip | None:
        return next((strip for strip in self.strips if strip.title == IMAGES), None)


def contents(study: StudyFiles) -> dict[str, Any] | None:
    """What the template prints; None where no pictures were stored."""
    found = pair_strips(study)
    return dict(looks=found, unfolded=UNFOLDED) if found else None


def pair_strips(study: StudyFiles) -> list[PairStrips]:
    """For the first seed of each pair what was drawn; nothing where there are no pictures."""
    if not (study.folder / "pictures" / "images.webp").exists():
        return []
    found, room = [], ROOM
    for pair in study.pairs:
        networks = _networks(study, pair)
        of_pair = PairStrips(pair, networks[0].seed if networks else 0, [])
        first = _add(of_pair, Path(study.folder / "pictures" / "images.webp"), IMAGES, "The test images that stand in the rows below.")
        of_pair.strips += [first] if first else []
        drawn = list(_of_pair(study, of_pair, networks))
        for strip in drawn:
            room -= len(strip.address)
            of_pair.strips += [strip] if room >= 0 else []
            of_pair.left_out += room < 0
        if drawn or any("/" in name for name in of_pair.damaged):
            found.append(of_pair)
    return found


def pictured(study: StudyFiles) -> set[str]:
    """The runs of which the page shows maps, room allowing."""
    return {network.run for pair in study.pairs for network in _networks(study, pair)}


@dataclass(frozen=True)
class _Shown:
    """A network whose pictures are shown."""

    whose: str
    run: str
    seed: int
    method: str | None = None


def _of_pair(study: StudyFiles, of_pair: PairStrips, networks: list[_Shown]) -> Iterator[Strip]:
    pictures = study.folder / "pictures"
    drawn = {path.stem for network in networks for path in (pictures / network.run).glob("[!.]*.webp")}
    drawn = {name for name in drawn if not name.startswith("gained-")}  # another section's
    for name in [*(name for name in MAPS if name in drawn), *sorted(drawn - MAPS.keys())]:
        words, meaning = MAPS.get(name, (plain(name), "coloured from low to high"))
        for network in networks:
            path = pictures / network.run / f"{name}.webp"
            if path.exists():
                alt = f"{words} of {network.whose}: the same images, {meaning}."
                if strip := _add(of_pair, path, f"{network.whose}: {words}", alt, network.method):
                    yield strip


def _networks(study: StudyFiles, pair: PlannedPair) -> list[_Shown]:
    """Teacher, independent and the student of each method, at the lowest seed for which there are students."""
    students = [r for r in study.records if r.arm in pair.methods and (r.teacher, r.student) == (pair.teacher, pair.student)]
    if not students:
        return []
    seed = min(record.seed for record in students)
    by_arm: dict[str, RunRecord] = {record.arm: record for record in students if record.seed == seed}
    alone = [r.run for r in study.records if (r.arm, r.student, r.seed) == ("independent", pair.student, seed)]
    teacher = next((record.teacher_run for record in by_arm.values() if record.teacher_run), None)
    return [
        *([_Shown(f"teacher {pair.teacher}", teacher, seed)] if teacher else []),
        *(_Shown(f"independent {pair.student}", run, seed) for run in alone),
        *(_Shown(f"{method} {pair.student}", by_arm[method].run, seed, method) for method in pair.methods if method in by_arm),
    ]


def _add(of_pair: PairStrips, path: Path, title: str, alt: str, method: str | None = None) -> Strip | None:
    """The strip in a file; None, and its name among the damaged, where it is no whole picture."""
    try:
        return Strip(title, *picture_address(path), alt, method)
    except OSError:
        of_pair.damaged.append(path.name if title == IMAGES else f"{path.parent.name}/{path.name}")
        return None
