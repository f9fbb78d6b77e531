"""Probe sets in the formats of other programs: read back with Pillow and through our own image sources, they are what was built."""

import csv
import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from crossdistill.core import registry
from crossdistill.core.errors import ImageError, StudyError, UnknownNameError
from crossdistill.core.store import locked
from crossdistill.core.types import ImageSet
from crossdistill.images._cache import decoded
from crossdistill.probes._build import build_probe_set, write_format
from crossdistill.probes._formats import class_folders


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("CROSSDISTILL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def built(make_images, tmp_path):
    clean = make_images(23)
    named = ImageSet(clean.images, clean.labels, clean.ids, clean.class_names, factors={"colour": np.arange(23) % 7})
    return build_probe_set("localized_noise", named, levels=[{"sigma": 0.1}, {"sigma": 0.5}], draws=2, folder=tmp_path / "sets")


def pixels(file):
    with Image.open(file) as image:
        assert image.format == "PNG"
        return np.asarray(image).transpose(2, 0, 1)


def table(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_back(source, path):
    plugin = registry.get("images", source)
    return decoded(source, plugin.version, plugin.function(path=path))["train"]


def test_a_zip_holds_padded_pngs_and_the_table_beside_it_their_labels(built):
    folder = write_format(built, "png-zip")
    assert sorted(path.name for path in folder.iterdir()) == [
        f"level0{level}-draw0{draw}.{kind}" for level in range(2) for draw in range(2) for kind in ("csv", "zip")
    ]
    for level, draw in [(0, 0), (1, 1)]:
        wanted, rows = built.images(level, draw), table(folder / f"level0{level}-draw0{draw}.csv")
        with zipfile.ZipFile(folder / f"level0{level}-draw0{draw}.zip") as file:
            assert file.namelist() == sorted(file.namelist()) == [row["file"] for row in rows] == [f"{row:02d}.png" for row in range(23)]
            found = np.stack([pixels(io.BytesIO(file.read(row["file"]))) for row in rows])
        assert np.array_equal(found, wanted.images)
        assert [int(row["label"]) for row in rows] == wanted.labels.tolist()
        assert [row["class"] for row in rows] == [wanted.class_names[label] for label in wanted.labels]
        assert [row["id"] for row in rows] == wanted.ids.tolist()
        assert [int(row["index"]) for row in rows] == built.kept_index.tolist()
        for factor in ("colour", "top", "left"):
            assert [int(row[factor]) for row in rows] == wanted.factors[factor].tolist()


def test_class_folders_read_back_through_the_folder_source(built):
    folder = write_format(built, "imagefolder")
    wanted = built.images(1, 1)
    rows = table(folder / "level01-draw01.csv")
    assert np.array_equal(np.stack([pixels(folder / "level01-draw01" / row["file"]) for row in rows]), wanted.images)
    assert [row["file"].split("/")[0] for row in rows] == [wanted.class_names[label] for label in wanted.labels]
    read = read_back("folder", folder / "level01-draw01")
    assert read.class_names == wanted.class_names
    row_of = {row["file"]: number for number, row in enumerate(rows)}
    order = [row_of[name] for name in read.ids]
    assert np.array_equal(read.images, wanted.images[order])
    assert np.array_equal(read.labels, wanted.labels[order])


def test_classes_that_do_not_sort_as_they_are_numbered_keep_their_numbers(built, make_images, tmp_path):
    clean = make_images(8)
    unsorted = ImageSet(clean.images, clean.labels, clean.ids, ("zebra", "ant/bee", "cat", "dog"))
    folder = write_format(build_probe_set("scramble", unsorted, folder=tmp_path / "unsorted"), "imagefolder")
    read = read_back("folder", folder / "level00-draw00")
    assert read.class_names == ("0-zebra", "1-ant_bee", "2-cat", "3-dog")
    assert read.labels.tolist() == np.sort(clean.labels).tolist()


def test_parquet_reads_back_through_the_parquet_source(built):
    import duckdb

    folder = write_format(built, "parquet")
    wanted = built.images(1, 0)
    read = read_back("parquet", folder / "level01-draw00.parquet")
    assert read.class_names == wanted.class_names
    assert np.array_equal(read.images, wanted.images)
    assert np.array_equal(read.labels, wanted.labels)
    query = "SELECT id, index, colour, top, img.path FROM read_parquet(?)"
    rows = duckdb.connect().execute(query, [str(folder / "level01-draw00.parquet")]).fetchall()
    columns = [wanted.ids, built.kept_index, wanted.factors["colour"], wanted.factors["top"], [f"{row:02d}.png" for row in range(23)]]
    assert [list(column) for column in zip(*rows, strict=True)] == [list(column) for column in columns]


def test_parquet_reads_back_through_hugging_face_datasets(built, tmp_path):
    datasets = pytest.importorskip("datasets")
    file = write_format(built, "parquet") / "level00-draw00.parquet"
    read = datasets.load_dataset("parquet", data_files=str(file), split="train", cache_dir=str(tmp_path / "hf"))
    wanted = built.images(0, 0)
    assert read.features["label"].names == list(wanted.class_names)
    assert read["label"] == wanted.labels.tolist()
    assert np.array_equal(np.stack([np.asarray(image).transpose(2, 0, 1) for image in read["img"]]), wanted.images)


@pytest.mark.parametrize("format", ["png-zip", "imagefolder", "parquet"])
def test_a_format_is_written_once_recorded_and_mended_where_a_file_is_lost(built, format):
    folder = write_format(built, format)
    record = json.loads((built.folder / f"{format}.json").read_text())
    per_draw = 1 if format == "parquet" else 2  # the others have a table beside each
    assert [facts["level"] for facts in record["files"].values()] == [name for name in built.level_names for _ in range(2 * per_draw)]
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert write_format(built, format) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    lost = folder / next(iter(record["files"]))
    lost.rename(built.folder / "elsewhere")
    write_format(built, format)
    assert lost.exists()
    if format != "parquet":  # duckdb does not promise equal bytes
        assert json.loads((built.folder / f"{format}.json").read_text()) == record
    assert not list(built.folder.glob(".*part"))


@pytest.mark.parametrize(
    ("format", "file"),
    [
        ("png-zip", "level00-draw00.zip"),
        ("png-zip", "level01-draw01.csv"),
        ("parquet", "level01-draw00.parquet"),
        ("imagefolder", "level00-draw01.csv"),
        ("imagefolder", "level00-draw01/bee/05.png"),
    ],
)
def test_a_file_that_was_changed_is_written_anew(built, format, file):
    path = write_format(built, format) / file
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    write_format(built, format)
    if format == "parquet":  # duckdb does not promise equal bytes
        assert path.read_bytes().endswith(b"PAR1")
    else:
        assert path.read_bytes() == content
    assert not list(built.folder.glob(".*part"))


@pytest.mark.parametrize("change", ["a picture moved to another class", "a picture too many", "a picture lost"])
def test_a_class_folder_that_was_changed_is_written_anew(built, change):
    folder = write_format(built, "imagefolder") / "level00-draw00"
    names = sorted(path.relative_to(folder) for path in folder.rglob("*.png"))
    picture = folder / "ant" / "00.png"
    if change == "a picture too many":
        (folder / "bee" / "extra.png").write_bytes(picture.read_bytes())
    elif change == "a picture lost":
        picture.unlink()
    else:
        picture.rename(folder / "bee" / "00.png")
    write_format(built, "imagefolder")
    assert sorted(path.relative_to(folder) for path in folder.rglob("*.png")) == names


@pytest.mark.parametrize("record", ["{", "[]", '{"files": {}}', '{"files": {"level00-draw00.zip": 1}}', "\udc80"])
def test_a_damaged_record_is_written_anew(built, record):
    folder = write_format(built, "png-zip")
    path = built.folder / "png-zip.json"
    whole = path.read_text()
    path.write_bytes(record.encode(errors="surrogateescape"))
    assert write_format(built, "png-zip") == folder
    assert path.read_text() == whole


def test_files_that_another_process_writes_are_left_alone(built):
    aside = built.folder / ".png-zip.part"
    write_format(built, "parquet")
    with locked(built.folder, "first"):
        aside.mkdir()
        (aside / "begun").touch()
        with pytest.raises(StudyError, match="are being written by another process: wait for it"):
            write_format(built, "png-zip")
        assert (aside / "begun").exists()
        write_format(built, "parquet")  # is there already
    # Its process has ended, or was killed: what it left is cleared away.
    folder = write_format(built, "png-zip")
    assert sorted({path.suffix for path in folder.iterdir()}) == [".csv", ".zip"]


def test_a_class_without_an_image_is_refused_where_readers_number_the_folders(make_images, tmp_path):
    clean = make_images(6)
    gap = ImageSet(clean.images, np.array([0, 2, 3, 0, 2, 3]), clean.ids, clean.class_names)
    built = build_probe_set("scramble", gap, folder=tmp_path)
    with pytest.raises(ImageError, match=r"1 of 4 classes have no image here \('bee'\).*choose png-zip or parquet"):
        write_format(built, "imagefolder")
    assert not list(built.folder.glob("*imagefolder*"))
    assert read_back("parquet", write_format(built, "parquet") / "level00-draw00.parquet").labels.tolist() == gap.labels.tolist()


@pytest.mark.parametrize("names", [("", "cat"), ("a" * 260, "é" * 200), (".", ".."), ("/etc", "a\0b"), ("cat", "cat")])
def test_unusual_class_names_stay_in_folders_of_their_own(make_images, tmp_path, names):
    clean = make_images(4)
    built = build_probe_set("scramble", ImageSet(clean.images, np.array([0, 1, 1, 0]), clean.ids, names), folder=tmp_path)
    assert class_folders(names) == sorted(set(class_folders(names)))
    folder = write_format(built, "imagefolder") / "level00-draw00"
    assert [len(list((folder / name).iterdir())) for name in class_folders(names)] == [2, 2]
    assert len(list(folder.iterdir())) == 2


def test_a_full_disk_under_the_database_is_the_usual_sentence(built, monkeypatch):
    import duckdb

    class Full:
        def __getattr__(self, name):
            raise duckdb.IOException("IO Error: No space left on device")

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(duckdb, "connect", lambda path: Full())
    with pytest.raises(StudyError, match="cannot write .*No space left on device. Free some space, then give the same command again"):
        write_format(built, "parquet")
    assert not list(built.folder.glob("*parquet*"))


def test_what_cannot_be_written_is_told(make_images, tmp_path):
    clean = make_images(4)
    unlabelled = ImageSet(clean.images, np.array([0, -1, 1, -1]), clean.ids, clean.class_names)
    built = build_probe_set("scramble", unlabelled, folder=tmp_path)
    with pytest.raises(ImageError, match="2 of 4 images have no label, so no class folder: choose png-zip or parquet"):
        write_format(built, "imagefolder")
    assert not list(built.folder.glob("*imagefolder*"))
    assert [row["class"] for row in table(write_format(built, "png-zip") / "level00-draw00.csv")] == ["ant", "", "bee", ""]
    with pytest.raises(UnknownNameError, match="no format is called 'zip'. Did you mean 'png-zip'?"):
        write_format(built, "zip")
