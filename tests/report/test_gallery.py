"""What students got from their teachers, on the page: counts with their controls, and pictures that were stored."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from crossdistill.compare import write_table
from crossdistill.core.records import GainRow
from crossdistill.report.page import render
from crossdistill.report.sections import gallery
from crossdistill.report.sections.gallery import Gallery, gain_rows, galleries
from crossdistill.report.study_files import read_study

HOSTILE = '"><script>alert(1)</script>'
ARMS = ("kd", "independent", "second_independent")
LEVELS = (("clean", ""), ("scramble", "grid=2"), ("scramble", "grid=4"), ("scramble", "auc"))


def gain(arm: str, direction: str, probe: str, level: str, **changes: Any) -> GainRow:
    expected = 0.2 if arm == "kd" else None
    numbers = dict(n_runs=2, n_images=300, count=12.5, of=50.0, share=0.25, low=0.15, high=0.38, expected=expected)
    about = dict(pair=0, teacher="vit", student="cnn", arm=arm, direction=direction, probe=probe, level=level)
    return GainRow.model_validate({**about, **numbers, **changes})


@pytest.fixture
def folder(study_folder: Path, tmp_path: Path) -> Path:
    """The study of two seeds with a table of gains and the pictures of the first pair's students."""
    folder = Path(shutil.copytree(study_folder, tmp_path / "study"))
    for name in ("results", "inheritance"):  # their charts take seconds, and are not looked at here
        (folder / f"{name}.parquet").unlink()
    rows = [gain(arm, way, *place) for arm in ARMS for place in LEVELS for way in ("gained", "lost")]
    write_table(rows, folder / "gains.parquet", GainRow)
    for seed in (0, 1):
        store(folder / "pictures" / f"kd-cnn-{seed}")
    return folder


def store(folder: Path, label: str = "circle", sets: tuple[tuple[str, str], ...] = LEVELS[:3]) -> None:
    folder.mkdir(parents=True)
    stored = []
    for number, (probe, level) in enumerate(sets):
        pixels = np.random.default_rng(number).integers(0, 256, (8 if probe == "clean" else 18, 28, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"gained-{number}.webp", format="WEBP")
        image = {"id": "17", "label": label, "teacher": label, "student": label, "independent": "ring"}
        of = {"probe": probe, "level": level, "found": 9, "file": f"gained-{number}.webp", "tile": [8, 8], "gap": 2}
        stored.append({**of, "images": [image, image, image]})
    (folder / "gains.json").write_text(json.dumps({"format": 1, "sets": stored}), encoding="utf-8")


def drawn(folder: Path) -> Gallery:
    study = read_study(folder)
    (found,) = galleries(study, gain_rows(study)[0])
    return found


def words(page: str) -> str:
    page = re.sub(r"<style>.*?</style>|<script>.*?</script>", "", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page)).replace("\u00a0", " ")


def test_both_directions_stand_beside_what_chance_and_independents_give(folder: Path) -> None:
    found = drawn(folder)
    assert [[cell.text.replace("\u00a0", " ") for cell in row] for row in found.summary.rows[:2]] == [
        ["clean", "kd", "50", "25.0 %", "20.0 %", "50", "25.0 %", "20.0 %"],
        ["clean", "independent, own seed", "50", "25.0 %", "", "50", "25.0 %", ""],  # they are what chance is taken from
    ]
    assert found.summary.rows[0][3].small == "15.0 to 38.0"
    assert [row[0].small for row in found.summary.rows] == [""] * 3 + ["all levels"] * 3
    assert [row[0].small for row in found.levels.rows] == ["grid=2"] * 3 + ["grid=4"] * 3
    assert found.summary.facts[3] == {"probe": "scramble", "pair": "0", "method": "kd"}
    assert "method" not in found.summary.facts[4]


def test_without_independents_in_the_students_place_chance_is_not_known_and_says_why(folder: Path) -> None:
    write_table([gain("kd", way, "clean", "", expected=None) for way in ("gained", "lost")], folder / "gains.parquet", GainRow)
    found = drawn(folder).summary
    assert [cell.text for cell in (found.rows[0][4], found.rows[0][7])] == ["not measurable"] * 2
    assert found.footnotes == [gallery.NO_MEASURE]


def test_a_share_of_no_image_is_not_measurable(folder: Path) -> None:
    none = dict(of=0.0, count=0.0, share=None, low=None, high=None, expected=None)
    write_table([gain("kd", way, "clean", "", **none) for way in ("gained", "lost")], folder / "gains.parquet")
    found = drawn(folder)
    assert found.summary.rows[0][3].text == "not measurable"
    assert found.summary.footnotes == ["there is no such image"]


def test_pictures_are_shown_one_by_one_with_what_was_answered(folder: Path) -> None:
    page = render(read_study(folder))
    sheets = re.findall(r'<figure class="sheet" ([^>]*)>', page)
    assert sheets[0] == 'data-pair="0" data-method="kd" data-seed="0" data-probe="clean"'
    assert len(sheets) == 2 * 3
    tiles = re.findall(r'<svg class="tile" viewBox="([^"]*)" role="img" aria-label="([^"]*)"', page)
    assert [box for box, _ in tiles[:3]] == ["0 0 8 8", "10 0 8 8", "20 0 8 8"]
    assert tiles[3][0] == "0 0 8 18"  # the clean image above the probe's
    assert tiles[0][1] == "Image 17: circle. Teacher and student say circle, the independent says ring."
    used = re.findall(r'<use href="#([^"]*)"', page)
    assert set(used) == set(re.findall(r'<image id="([^"]*)"', page))
    text = words(page)
    assert "clean 3 of 9" in text
    assert "circle not ring" in text
    assert "They were not chosen by how they look" in text


def test_the_first_student_is_open_and_seeds_follow_one_another(folder: Path) -> None:
    students = drawn(folder).students
    assert [(student.title, student.unfolded) for student in students] == [("kd cnn, seed 0", True), ("kd cnn, seed 1", False)]


def test_sheets_that_find_no_room_are_counted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = drawn(folder)
    sheet = whole.students[0].sheets[0]
    monkeypatch.setattr(gallery, "ROOM", len(sheet.address) + 3 * (gallery.TILE_BYTES + len(sheet.tiles[0].alt)))
    found = drawn(folder)
    assert ([student.title for student in found.students], len(found.students[0].sheets), found.left_out) == (["kd cnn, seed 0"], 1, 5)
    assert "5 more sheets found no room on this page" in words(render(read_study(folder)))


@pytest.mark.parametrize("damage", [b"no picture", b"", None])
def test_damaged_pictures_are_named_and_stop_nothing(folder: Path, damage: bytes | None) -> None:
    path = folder / "pictures" / "kd-cnn-0" / "gained-1.webp"
    path.write_bytes(path.read_bytes()[:60] if damage is None else damage)
    (folder / "pictures" / "kd-cnn-1" / "gains.json").write_text('{"sets": [{"probe": 3}, 7]}')
    found = drawn(folder)
    assert len(found.students[0].sheets) == 2
    assert found.damaged == ["kd-cnn-0/gained-1.webp", "kd-cnn-1/gains.json", "kd-cnn-1/gains.json"]
    assert "Damaged pictures are not shown: kd-cnn-0/gained-1.webp" in words(render(read_study(folder)))


def test_a_damaged_list_or_table_is_named_and_stops_nothing(folder: Path) -> None:
    (folder / "pictures" / "kd-cnn-0" / "gains.json").write_text("{")
    assert drawn(folder).damaged == ["kd-cnn-0/gains.json"]
    (folder / "gains.parquet").write_bytes(b"no table")
    text = words(render(read_study(folder)))
    assert "gains.parquet is damaged: delete it, and `crossdistill study run` makes it again" in text


def test_without_a_table_there_is_no_section(folder: Path) -> None:
    (folder / "gains.parquet").unlink()
    assert "What students got from their teachers" not in render(read_study(folder))


def test_hostile_labels_levels_and_files_stay_text_and_inside_the_folder(folder: Path) -> None:
    shutil.rmtree(folder / "pictures" / "kd-cnn-0")
    store(folder / "pictures" / "kd-cnn-0", label=HOSTILE, sets=((HOSTILE, HOSTILE),))
    page = render(read_study(folder))
    assert page.count("<script") == 1
    stored = json.loads((folder / "pictures" / "kd-cnn-0" / "gains.json").read_text())
    stored["sets"][0]["file"] = "../kd-cnn-1/gained-0.webp"
    (folder / "pictures" / "kd-cnn-0" / "gains.json").write_text(json.dumps(stored))
    assert drawn(folder).damaged == ["kd-cnn-0/../kd-cnn-1/gained-0.webp"]
