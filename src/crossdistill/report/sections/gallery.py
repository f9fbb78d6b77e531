"""The page's section "What students got from their teachers": how many images tell it, beside what chance would give, and some of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossdistill.compare import read_table
from crossdistill.core.errors import StudyError
from crossdistill.core.records import GainRow, RunRecord
from crossdistill.core.store import read_json
from crossdistill.report.names import plain
from crossdistill.report.pictures import picture_address
from crossdistill.report.study_files import PlannedPair, StudyFiles
from crossdistill.report.tables import Cell, Column, Table, level_name
from crossdistill.report.words import NO_NUMBER, SPACE, count, known, percent

TITLE, PLACE = "Images", 55

ROOM = 1_000_000
"""Bytes of these pictures on the page, which is to stay below 5 MB; what comes later stays in the study's folder."""

TILE_BYTES = 250  # of the page around an image of a sheet

UNTAUGHT = "if nothing came from the teacher"

UNFOLDED = 1
"""Groups of pictures that are open from the start, of each pair."""


@dataclass(frozen=True)
class Tile:
    """One image of a sheet: where it begins (px from the left), and what was answered."""

    left: int
    label: str
    independent: str
    alt: str


@dataclass(frozen=True)
class Sheet:
    """Some images of one set and level, as a data address with the size of a tile and of the whole in px."""

    anchor: str
    probe: str
    title: str
    address: str
    tile: tuple[int, int]
    size: tuple[int, int]
    tiles: list[Tile]
    found: int


@dataclass(frozen=True)
class Student:
    """The sheets of one student."""

    run: str
    method: str
    seed: int
    title: str
    sheets: list[Sheet]
    unfolded: bool


@dataclass
class Gallery:
    """What one pair has to show: the counts, the pictures, how many found no room, and what is wrong with files."""

    pair: PlannedPair
    summary: Table
    levels: Table
    students: list[Student]
    left_out: int
    damaged: list[str]


def contents(study: StudyFiles) -> dict[str, Any] | None:
    """What the template prints; None where nothing was compared."""
    rows, damage = gain_rows(study)
    found = galleries(study, rows)
    return dict(galleries=found, damage=damage) if found or damage else None


def gain_rows(study: StudyFiles) -> tuple[list[GainRow], str | None]:
    """The table of gains, and what is wrong with its file, if anything."""
    path = study.folder / "gains.parquet"
    if not path.exists():
        return [], None
    try:
        return read_table(path, GainRow), None
    except StudyError:
        return [], f"{path.name} is damaged: delete it, and `crossdistill study run` makes it again without training anything."


def galleries(study: StudyFiles, rows: Sequence[GainRow]) -> list[Gallery]:
    """The pairs, with pictures as far as there is room: those of first seeds, then those of further seeds."""
    found = {}
    for pair in study.pairs:
        of_pair = [row for row in rows if row.pair == pair.index]
        if of_pair:
            found[pair.index] = Gallery(pair, _table(of_pair, pair, summary=True), _table(of_pair, pair, summary=False), [], 0, [])
    room = ROOM
    arms = {method: place for pair in study.pairs for place, method in enumerate(pair.methods)}
    for record in sorted(study.records, key=lambda record: (record.seed, arms.get(record.arm, 0))):
        pair = next((pair for pair in study.pairs if _taught(record, pair) and pair.index in found), None)
        if pair is not None:
            room = _add(study, found[pair.index], record, room)
    return list(found.values())


def pictured(study: StudyFiles) -> set[str]:
    """The runs of which the page shows images here."""
    rows, _ = gain_rows(study)
    return {student.run for gallery in galleries(study, rows) for student in gallery.students}


def _taught(record: RunRecord, pair: PlannedPair) -> bool:
    return record.arm in pair.methods and (record.teacher, record.student) == (pair.teacher, pair.student)


def _add(study: StudyFiles, gallery: Gallery, record: RunRecord, room: int) -> int:
    """Add a student's sheets; returns the room that is left."""
    path = study.folder / "pictures" / record.run / "gains.json"
    if not path.exists():
        return room
    sheets = []
    try:
        stored = read_json(path)["sets"]
    except (StudyError, KeyError, TypeError):
        gallery.damaged.append(f"{record.run}/{path.name}")
        return room
    for number, of in enumerate(stored):
        try:
            sheet = _sheet(path.parent, record.run, number, of)
        except (OSError, KeyError, TypeError, ValueError, AttributeError):
            gallery.damaged.append(f"{record.run}/{of.get('file', path.name) if isinstance(of, dict) else path.name}")
            continue
        size = len(sheet.address) + sum(TILE_BYTES + len(tile.alt) for tile in sheet.tiles)
        if size <= room:
            sheets.append(sheet)
            room -= size
        else:
            gallery.left_out += 1
    if sheets:
        title = f"{record.arm} {record.student}, seed {record.seed}"
        gallery.students.append(Student(record.run, record.arm, record.seed, title, sheets, len(gallery.students) < UNFOLDED))
    return room


def _sheet(folder: Path, run: str, number: int, of: dict[str, Any]) -> Sheet:
    name = str(of["file"])
    if Path(name).name != name:
        raise ValueError(f"{name} is not a file of the run's own folder")
    address, size = picture_address(folder / name)
    width, height = int(of["tile"][0]), size[1]
    tiles = [_tile((width + int(of["gap"])) * place, image) for place, image in enumerate(of["images"])]
    title = ", ".join(part for part in (plain(of["probe"]), of["level"]) if part)
    return Sheet(f"sheet-{run}-{number}", str(of["probe"]), title, address, (width, height), size, tiles, int(of["found"]))


def _tile(left: int, image: dict[str, str]) -> Tile:
    label, alone = str(image["label"]), str(image["independent"])
    said = f"Image {image['id']}: {label}. Teacher and student say {label}, the independent says {alone}."
    return Tile(left, label, alone, said)


def _table(rows: Sequence[GainRow], pair: PlannedPair, *, summary: bool) -> Table:
    """Both directions beside each other: one row an arm, set and level; the summary has all levels of a probe together."""
    sets = {row.probe for row in rows if row.level == "auc"}
    chosen = [row for row in rows if (row.probe not in sets or row.level == "auc") == summary]
    lost = {(row.arm, row.probe, row.level): row for row in chosen if row.direction == "lost"}
    heads = [
        Column("Images"), Column("Student"), Column("Teacher right, independent wrong", "images"), Column("Student right there"),
        Column("By chance", UNTAUGHT), Column("Teacher wrong, independent right", "images"),
        Column("Student wrong there"), Column("By chance", UNTAUGHT),
    ]  # fmt: skip
    table = Table(f"Images on which {pair.title} differ from an independent{'' if summary else ', by level'}", heads)
    order = {of: place for place, of in enumerate(dict.fromkeys((row.probe, row.level) for row in rows))}
    for row in sorted((row for row in chosen if row.direction == "gained"), key=lambda row: order[row.probe, row.level]):
        other = lost[row.arm, row.probe, row.level]
        cells = [
            Cell(plain(row.probe), len(table.rows), level_name(row.level)),
            Cell(INDEPENDENTS.get(row.arm, row.arm), row.arm, count(row.n_runs, "run")),
        ]
        facts = {"method": row.arm.split("+")[0]} if row.arm.split("+")[0] in pair.methods else {}
        table.add([*cells, *_cells(table, row), *_cells(table, other)], probe=row.probe, pair=pair.index, **facts)
    return table


INDEPENDENTS = {"independent": "independent, own seed", "second_independent": "second independent"}

NO_MEASURE = "no independent stands in the student's place: that takes a second seed, or the arm second_independent"


def _cells(table: Table, row: GainRow) -> list[Cell]:
    of = Cell(f"{row.of:.1f}".removesuffix(".0"), row.of)
    if row.share is None:
        return [of, Cell(NO_NUMBER, None, footnote=table.footnote("there is no such image"), mark="muted"), Cell("")]
    limits = f"{percent(row.low).split(SPACE)[0]} to {percent(row.high).split(SPACE)[0]}" if known(row.low) and known(row.high) else ""
    share = Cell(percent(row.share), row.share, limits)
    if row.expected is not None:
        return [of, share, Cell(percent(row.expected), row.expected)]
    if row.arm in INDEPENDENTS:
        return [of, share, Cell("")]
    return [of, share, Cell(NO_NUMBER, None, footnote=table.footnote(NO_MEASURE), mark="muted")]
