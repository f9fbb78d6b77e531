"""Heat maps of layers and pictures of where networks look, from invented tables and files."""

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from crossdistill.compare import write_table
from crossdistill.core.records import SimilarityRow
from crossdistill.report import charts
from crossdistill.report.page import render
from crossdistill.report.sections import looks
from crossdistill.report.sections.layers import heat_maps
from crossdistill.report.sections.looks import pair_strips
from crossdistill.report.study_files import read_study

LAYERS = ("stage1", "stage2", "pooled")
HOSTILE = "<script>alert(1)</script>"


def alike(a: str, b: str, layer_a: str, layer_b: str, value: float | None, **changes: Any) -> SimilarityRow:
    numbers = dict(value=value, low=None, high=None, n=256, status="ok", reason=None)
    return SimilarityRow.model_validate({**dict(a=a, b=b, layer_a=layer_a, layer_b=layer_b), **numbers, **changes})


def rows_of(a: str, b: str, base: float) -> list[SimilarityRow]:
    """Every layer beside every other, and grids, which the page leaves out."""
    pairs = [(x, y) for x in LAYERS for y in LAYERS]
    found = [alike(a, b, x, y, base + 0.1 * LAYERS.index(x) + 0.01 * LAYERS.index(y)) for x, y in pairs]
    return [*found, alike(a, b, "stage1_grid", "stage1_grid", 0.9), alike(a, b, "stage1_class_token", "stage1_class_token", 0.9)]


@pytest.fixture
def folder(study_folder: Path, tmp_path: Path) -> Path:
    """The study of two seeds with a table of similarity and pictures of the first pair's first seed."""
    folder = Path(shutil.copytree(study_folder, tmp_path / "study"))
    for name in ("results", "inheritance"):  # their charts take seconds, and are not looked at here
        (folder / f"{name}.parquet").unlink()
    rows = [*rows_of("kd-cnn-0", "teacher-vit-0", 0.2), *rows_of("kd-cnn-1", "teacher-vit-0", 0.4)]
    rows += [*rows_of("independent-cnn-0", "teacher-vit-0", 0.1), *rows_of("kd-cnn-0", "independent-cnn-0", 0.5)]
    write_table(rows, folder / "similarity.parquet", SimilarityRow)
    draw(folder / "pictures" / "images.webp", 0)
    for run in ("teacher-vit-0", "independent-cnn-0", "kd-cnn-0", "kd-cnn-1"):
        draw(folder / "pictures" / run / "grad_cam.webp", len(run))
    draw(folder / "pictures" / "teacher-vit-0" / "attention_rollout.webp", 7)
    return folder


def draw(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 16 * 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, format="WEBP")


def words(page: str) -> str:
    page = re.sub(r"<style>.*?</style>|<script>.*?</script>", "", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page)).replace("\u00a0", " ")


def test_layers_are_averaged_over_seeds_and_shown_as_chart_and_table(folder: Path) -> None:
    study = read_study(folder)
    maps = heat_maps(study, study.pairs[0])
    assert [item.title for item in maps] == [
        "independent cnn beside teacher vit",
        "kd cnn beside teacher vit",
        "kd cnn beside independent cnn",
    ]
    student = maps[1]
    assert student.remark == "mean over 2 pairs of runs"
    assert [column.name for column in student.table.columns] == ["Layer", *LAYERS]
    assert [[cell.text for cell in cells] for cells in student.table.rows] == [
        ["stage1", "0.30", "0.31", "0.32"],
        ["stage2", "0.40", "0.41", "0.42"],
        ["pooled", "0.50", "0.51", "0.52"],
    ]
    assert student.table.rows[0][1].small == "0.20 to 0.40"
    assert 'role="img"' in student.svg
    assert ">0.52<" in student.svg
    assert heat_maps(study, study.pairs[1]) == []


def test_a_table_that_names_the_runs_the_other_way_round_is_turned(folder: Path) -> None:
    write_table([alike("teacher-vit-0", "kd-cnn-0", "stage1", "pooled", 0.25)], folder / "similarity.parquet")
    study = read_study(folder)
    (item,) = heat_maps(study, study.pairs[0])
    assert [column.name for column in item.table.columns] == ["Layer", "stage1"]
    assert [cell.text for cell in item.table.rows[0]] == ["pooled", "0.25"]


def test_layers_without_a_figure_give_the_reason_and_never_a_number(folder: Path) -> None:
    none = alike("kd-cnn-0", "teacher-vit-0", "stage1", "pooled", None, status="not_measurable", reason="all features are alike")
    other = alike("kd-cnn-0", "teacher-vit-0", "stage2", "stage1", float("nan"))
    write_table([none, other], folder / "similarity.parquet")
    study = read_study(folder)
    (item,) = heat_maps(study, study.pairs[0])
    assert [[cell.text for cell in cells[1:]] for cells in item.table.rows] == [["not measurable"] * 2] * 2
    assert item.table.footnotes == ["all features are alike", "these layers were not compared"]
    assert not re.search(r"\bnan\b", words(render(study)), flags=re.IGNORECASE)


def test_a_run_that_could_not_be_compared_is_named_although_others_were(folder: Path) -> None:
    lost = alike("kd-cnn-1", "teacher-vit-0", "pooled", "pooled", None, status="not_measurable", reason="features-1.npz is damaged")
    write_table([*rows_of("kd-cnn-0", "teacher-vit-0", 0.2), lost], folder / "similarity.parquet")
    study = read_study(folder)
    (item,) = heat_maps(study, study.pairs[0])
    assert item.table.footnotes == []
    assert "1 comparison could not be made: features-1.npz is damaged" in words(render(study))


def test_a_heat_map_keeps_its_inks_in_the_dark(folder: Path) -> None:
    study = read_study(folder)
    style = (Path(charts.__file__).parent / "style.css").read_text(encoding="utf-8")
    fills = set(re.findall(r'<text[^>]*fill="(#[0-9a-f]{6})"[^>]*>\d\.\d\d</text>', heat_maps(study, study.pairs[0])[1].svg))
    assert fills == {"#101820", "#ffffff"}
    assert not any(f'fill="{fill}"' in style for fill in fills)


def test_the_first_seed_of_each_pair_shows_where_it_looks(folder: Path) -> None:
    (pair,) = pair_strips(read_study(folder))
    assert [strip.title for strip in pair.strips] == [
        "Images",
        "teacher vit: Grad-CAM",
        "independent cnn: Grad-CAM",
        "kd cnn: Grad-CAM",
        "teacher vit: attention rollout",
    ]
    assert {strip.size for strip in pair.strips} == {(192, 16)}
    assert all(strip.address.startswith("data:image/webp;base64,") for strip in pair.strips)
    assert len({strip.alt for strip in pair.strips}) == 5
    assert pair.left_out == 0


def test_maps_of_an_instrument_that_is_not_named_anywhere_follow_the_others(folder: Path) -> None:
    draw(folder / "pictures" / "kd-cnn-0" / "a_new_map.webp", 9)
    (pair,) = pair_strips(read_study(folder))
    assert [strip.title for strip in pair.strips][-2:] == ["teacher vit: attention rollout", "kd cnn: a new map"]


def test_sections_are_on_the_page_with_their_links(folder: Path) -> None:
    page = render(read_study(folder))
    text = words(page)
    assert "How alike the layers are" in text
    assert "Where they look" in text
    assert 'href="#layers"' in page
    assert 'href="#looks"' in page
    assert 'alt="Grad-CAM of teacher vit: the same images, coloured by how much the answer rests on each place."' in page


def test_pictures_that_find_no_room_are_counted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks, "ROOM", 1)
    study = read_study(folder)
    (pair,) = pair_strips(study)
    assert ([strip.title for strip in pair.strips], pair.left_out) == (["Images"], 4)
    assert "4 more found no room on this page and are in the folder pictures." in words(render(study))


def test_without_images_or_maps_there_is_no_section(folder: Path) -> None:
    for path in folder.glob("pictures/*/*.webp"):
        path.unlink()
    assert pair_strips(read_study(folder)) == []
    (folder / "pictures" / "images.webp").unlink()
    assert pair_strips(read_study(folder)) == []


def test_a_damaged_picture_is_named_with_what_to_do(folder: Path) -> None:
    (folder / "pictures" / "kd-cnn-0" / "grad_cam.webp").write_bytes(b"no picture")
    whole = (folder / "pictures" / "teacher-vit-0" / "grad_cam.webp").read_bytes()
    (folder / "pictures" / "independent-cnn-0" / "grad_cam.webp").write_bytes(whole[: len(whole) // 2])
    (pair,) = pair_strips(read_study(folder))
    assert [strip.title for strip in pair.strips] == ["Images", "teacher vit: Grad-CAM", "teacher vit: attention rollout"]
    assert pair.damaged == ["independent-cnn-0/grad_cam.webp", "kd-cnn-0/grad_cam.webp"]
    text = words(render(read_study(folder)))
    assert "Damaged pictures are not shown: independent-cnn-0/grad_cam.webp, kd-cnn-0/grad_cam.webp. Delete the folders" in text


def test_damaged_images_and_maps_of_one_pair_are_named_and_the_section_stays(folder: Path) -> None:
    for path in folder.glob("pictures/**/*.webp"):
        path.write_bytes(b"no picture")
    (pair,) = pair_strips(read_study(folder))
    assert (pair.strips, pair.damaged[0], len(pair.damaged)) == ([], "images.webp", 5)


def test_the_first_groups_are_open_and_the_others_folded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks, "UNFOLDED", 1)
    page = render(read_study(folder))
    assert re.findall(r'<details class="looks"( open)?>\s*<summary>([^<]*)</summary>', page) == [
        (" open", "Grad-CAM"),
        ("", "attention rollout"),
    ]


def test_strips_and_heat_maps_say_which_pair_and_method_they_belong_to(folder: Path) -> None:
    page = render(read_study(folder))
    assert '<figure class="strip" data-pair="0" data-seed="0" data-method="kd"><figcaption>kd cnn: Grad-CAM' in page
    assert '<figure data-pair="0" data-method="kd"><figcaption>kd cnn beside teacher vit' in page
    assert '<figure data-pair="0"><figcaption>independent cnn beside teacher vit' in page


def test_the_cells_of_a_heat_map_say_their_figures(folder: Path) -> None:
    study = read_study(folder)
    labels = re.findall(r'aria-label="(kd[^"]*)"', heat_maps(study, study.pairs[0])[1].svg)
    assert labels[0] == "kd cnn stage1, teacher vit stage1: 0.30 (0.20 to 0.40)"
    assert len(labels) == len(LAYERS) ** 2


def test_hostile_layers_stay_text(folder: Path) -> None:
    write_table([alike("kd-cnn-0", "teacher-vit-0", HOSTILE, HOSTILE, 0.5, reason=HOSTILE)], folder / "similarity.parquet")
    assert render(read_study(folder)).count("<script") == 1
