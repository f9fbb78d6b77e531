"""Pictures of what students got from their teachers: which images, in which order, and what stands beside them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from crossdistill.compare import ObservedRun, Pair
from crossdistill.core.observations import save_measurement
from crossdistill.core.progress import Progress
from crossdistill.core.records import RunRecord
from crossdistill.core.study_file import read_study
from crossdistill.core.types import ImageSet, Observations, Splits
from crossdistill.study import inherited_images
from crossdistill.study.inherited_images import SHOWN, gains_file, write_gains
from crossdistill.study.instruments import measured
from crossdistill.study.tables import whole
from crossdistill.study.workshop import Workshop

N, SIDE = 40, 8
CLASSES = ("a", "b", "<script>alert(1)</script>")
LABELS = np.arange(N) % 2
PAIR = Pair(0, "vit", "cnn", ("kd",))


@dataclass(frozen=True)
class Built:
    """A probe set whose image of row r is r, everywhere."""

    level_names: tuple[str, ...] = ("grid=2", "grid=4")

    @property
    def kept_index(self) -> np.ndarray:
        return np.arange(0, N, 2)

    def factor(self, name: str, level: int, draw: int) -> np.ndarray:
        assert (name, draw) == ("images", 0)
        return plain(self.kept_index, 100 * (level + 1))


def plain(rows: np.ndarray, base: int = 0) -> np.ndarray:
    return np.broadcast_to((rows + base).astype(np.uint8)[:, None, None, None], (len(rows), 3, SIDE, SIDE)).copy()


@pytest.fixture
def shop(tiny: Path, tmp_path: Path) -> Workshop:
    test = ImageSet(plain(np.arange(N)), LABELS, np.array([f"image-{row}" for row in range(N)]), CLASSES, {"key": "made up"})
    splits: Any = Splits(test, test, test)
    sets: Any = {"scramble": Built()}
    out = tmp_path / "out"
    quiet = Progress(quiet=True)
    return Workshop(read_study(tiny), splits, out, tmp_path / "store", torch.device("cpu"), quiet, np.arange(N), probe_sets=sets)


def seen(decisions: np.ndarray, index: np.ndarray) -> Observations:
    logits = np.zeros((len(index), len(CLASSES)), np.float32)
    logits[np.arange(len(index)), decisions] = 5
    return Observations(logits, LABELS[index], index)


def run(arm: str, student: str, right: np.ndarray, seed: int = 0, teacher: str | None = None) -> ObservedRun:
    everywhere, kept = np.arange(N), np.arange(0, N, 2)
    decisions = np.where(right, LABELS, 2)
    answers = {("clean", "", 0): seen(decisions, everywhere)} | {
        ("scramble", level, 0): seen(decisions[kept], kept) for level in ("grid=2", "grid=4")
    }
    record = RunRecord(
        run=f"{arm}-{student}-{seed}", label=arm, arm=arm, method="kd" if arm == "kd" else None, teacher=teacher,
        teacher_run="teacher-vit-0" if teacher else None, student=student, model="small/resnet8", family="cnn", readout="class",
        seed=seed, parameters=1, training={}, history=[], estimates={}, timing={}, software={}, hardware={},
    )  # fmt: skip
    return ObservedRun(record, answers)


def runs(told: np.ndarray) -> list[ObservedRun]:
    """Teacher and student are right everywhere, the independents are wrong at the rows `told`."""
    everywhere = np.ones(N, bool)
    wrong = ~np.isin(np.arange(N), told)
    taught = run("kd", "cnn", everywhere, teacher="vit")
    return [run("teacher", "vit", everywhere), *(run("independent", "cnn", wrong, seed) for seed in (0, 1)), taught]


def sets(shop: Workshop) -> list[dict[str, Any]]:
    return json.loads(gains_file(shop.out, "kd-cnn-0").read_text())["sets"]


def test_all_images_are_shown_where_they_are_few(shop: Workshop) -> None:
    write_gains(shop, runs(np.array([4, 5, 30])), [PAIR])
    clean, *probed = sets(shop)
    assert (clean["probe"], clean["level"], clean["found"], clean["tile"]) == ("clean", "", 3, [SIDE, SIDE])
    assert sorted(image["id"] for image in clean["images"]) == ["image-30", "image-4", "image-5"]
    by_id = {image["id"]: image for image in clean["images"]}
    told = {"label": "b", "teacher": "b", "student": "b", "independent": CLASSES[2]}
    assert by_id["image-5"] == {"id": "image-5", **told}
    assert [(of["level"], sorted(image["id"] for image in of["images"])) for of in probed] == [
        (level, ["image-30", "image-4"]) for level in ("grid=2", "grid=4")
    ]


def test_a_sheet_holds_the_clean_images_above_what_was_shown(shop: Workshop) -> None:
    write_gains(shop, runs(np.array([4, 30])), [PAIR])
    of = sets(shop)[2]
    with Image.open(gains_file(shop.out, "kd-cnn-0").parent / of["file"]) as sheet:
        pixels = np.asarray(sheet.convert("L")).astype(int)
    width, height, gap = *of["tile"], of["gap"]
    assert pixels.shape == (2 * height + gap, 2 * width + gap)
    rows = [int(image["id"].removeprefix("image-")) for image in of["images"]]
    for place, row in enumerate(rows):
        left = place * (width + gap)
        assert abs(pixels[2:6, left + 2 : left + 6].mean() - row) < 6  # compressed
        assert abs(pixels[height + gap + 2 : height + gap + 6, left + 2 : left + 6].mean() - (row + 200)) < 6


def test_of_many_the_first_of_a_drawn_order_are_shown_whatever_they_look_like(shop: Workshop) -> None:
    many, fewer = np.arange(0, N), np.arange(0, N, 3)
    write_gains(shop, runs(many), [PAIR])
    shown = [image["id"] for image in sets(shop)[0]["images"]]
    assert (len(shown), sets(shop)[0]["found"]) == (SHOWN, N)
    write_gains(shop, runs(fewer), [PAIR])
    again = [image["id"] for image in sets(shop)[0]["images"]]
    allowed = {f"image-{row}" for row in fewer}
    assert [name for name in shown if name in allowed] == again[: len([name for name in shown if name in allowed])]
    other = shop.config.model_copy(update={"seed": 7})
    shop.config = other
    write_gains(shop, runs(many), [PAIR])
    assert [image["id"] for image in sets(shop)[0]["images"]] != shown


def test_what_is_not_shown_any_more_goes_and_equal_answers_leave_equal_files(shop: Workshop) -> None:
    write_gains(shop, runs(np.arange(8)), [PAIR])
    folder = gains_file(shop.out, "kd-cnn-0").parent
    assert len(list(folder.glob("gained-*.webp"))) == 3
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    write_gains(shop, runs(np.arange(8)), [PAIR])
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    write_gains(shop, runs(np.array([1])), [PAIR])  # no probe shows it
    assert [path.name for path in sorted(folder.iterdir())] == ["gained-0.webp", "gains.json"]
    (folder / "gained-0.webp").write_bytes(b"damaged")
    write_gains(shop, runs(np.array([1])), [PAIR])
    with Image.open(folder / "gained-0.webp") as sheet:
        assert sheet.format == "WEBP"


def test_nothing_to_show_leaves_a_list_without_pictures(shop: Workshop) -> None:
    write_gains(shop, runs(np.array([], int)), [PAIR])
    assert sets(shop) == []


def test_a_run_without_a_teacher_or_an_independent_has_no_pictures(shop: Workshop) -> None:
    teacher, first, second, taught = runs(np.arange(8))
    write_gains(shop, [first, second, taught], [PAIR])
    write_gains(shop, [teacher, taught], [PAIR])
    assert not shop.out.exists()


def test_a_damaged_measurement_becomes_a_reason_and_stops_no_table(tmp_path: Path) -> None:
    folder = tmp_path / "instruments" / "kd-cnn-0"
    save_measurement(folder / "features-1.npz", {"stage1": np.ones((3, 2))})
    (folder / "grad_cam-1.npz").write_bytes(b"damaged")
    found = whole(measured(tmp_path, "kd-cnn-0", {"features": "features-1.npz", "grad_cam": "grad_cam-1.npz"}), tmp_path)
    assert list(found) == ["features", "grad_cam"]
    assert isinstance(found["features"], dict)
    assert str(found["grad_cam"]).startswith("instruments/kd-cnn-0/grad_cam-1.npz is damaged")
    assert "Delete it, and the same command makes it again" in str(found["grad_cam"])


def test_the_number_of_pictures_is_said_on_the_page() -> None:
    template = Path(inherited_images.__file__).parents[1] / "report" / "sections" / "gallery.html.j2"
    assert {6: "the first six are shown"}[SHOWN] in template.read_text()
