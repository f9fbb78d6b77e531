import io
import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from crossdistill.core import registry
from crossdistill.core.errors import ImageError, SettingError, StudyError, UnknownNameError
from crossdistill.core.progress import Progress
from crossdistill.core.registry import as_plugin, probe
from crossdistill.core.store import locked
from crossdistill.core.types import ImageSet, ProbeImages
from crossdistill.probes import _build, _treatment
from crossdistill.probes._array_file import array_sha256
from crossdistill.probes._build import Supply, build_probe_set, open_probe_set, preview_probe, probe_key, probe_recipe
from crossdistill.probes._recipe import Order

FACTS = dict(isolates="nothing", quick=[{"shade": 1}, {"shade": 2}], full=[{"shade": 1}], draws={"quick": 1, "full": 2}, null=None)


@probe(**FACTS)
def darken_even_rows(images, labels, index, *, shade: int = 1):
    kept = np.flatnonzero(index % 2 == 0)
    return ProbeImages(images[kept] // (shade + 1), kept, labels[kept], {"shade": np.full(len(kept), shade)})


@probe(**FACTS)
def forget_labels(images, labels, *, shade: int = 1):
    return ProbeImages(images, np.arange(len(images)), np.roll(labels, 1))


@probe(**FACTS)
def keep_none(images, *, shade: int = 1):
    none = np.arange(0)
    return ProbeImages(images[none], none, none)


@probe(**FACTS)
def keep_as_told(images, labels, *, shade: int = 1):
    kept = np.arange(shade)
    return ProbeImages(images[kept], kept, labels[kept])


@probe(**FACTS)
def ask_for_masks(images, masks, *, shade: int = 1):
    raise AssertionError("never called")


@probe(**FACTS)
def keep_masked(images, labels, masks, *, shade: int = 1):
    return ProbeImages(images | masks[:, None], np.arange(len(images)), labels)


@probe(**FACTS)
def ask_for_the_moon(images, moon, *, shade: int = 1):
    raise AssertionError("never called")


@pytest.fixture
def use(monkeypatch):
    """Register a throw-away probe under its own name."""

    def register(function):
        monkeypatch.setattr(registry, "get", lambda kind, name: as_plugin(name, function))
        return function.__name__

    return register


def test_a_set_that_exists_is_opened_and_not_built_again(make_images, tmp_path, monkeypatch):
    first = build_probe_set("scramble", make_images(), folder=tmp_path)
    monkeypatch.setattr(_build, "_build", lambda *_: pytest.fail("built again"))
    second = build_probe_set("scramble", make_images(), folder=tmp_path)
    assert second == first
    assert [path.name for path in tmp_path.iterdir()] == [first.folder.name]


def test_the_folder_holds_the_documented_files(make_images, tmp_path):
    built = build_probe_set("scramble", make_images(), folder=tmp_path)
    assert built.folder == tmp_path / f"scramble-{probe_key('scramble', built.levels, 1, 0, make_images())}"
    assert sorted(path.name for path in built.folder.iterdir()) == [
        *["ids.npy", "images-0.npy", "images-1.npy", "kept_index.npy", "labels.npy"],
        *["manifest.json", "permutation-0.npy", "permutation-1.npy", "preview.png"],
    ]
    assert built.level_names == ("grid=2", "grid=4")
    level = built.manifest["levels"][1]
    assert level["sha256"] == array_sha256(np.load(built.folder / "images-1.npy"))
    assert json.loads((built.folder / "manifest.json").read_text()) == built.manifest


def test_images_come_with_clean_ids_and_factors_of_source_and_probe(make_images, tmp_path):
    clean = make_images()
    clean = ImageSet(clean.images, clean.labels, clean.ids, clean.class_names, factors={"colour": np.arange(8) * 3})
    built = build_probe_set("superpixel", clean, folder=tmp_path)
    read = built.images(0, 0)
    assert isinstance(read.images, np.memmap)
    assert np.array_equal(read.ids, clean.ids)
    assert read.class_names == clean.class_names
    assert np.array_equal(read.factors["colour"], np.arange(8) * 3)
    segments = read.factors["segments"]
    assert built.manifest["levels"][0]["factors"]["segments"]["median"] == np.median(segments)


def test_draws_stand_one_after_the_other(make_images, tmp_path):
    one = build_probe_set("scramble", make_images(), draws=1, folder=tmp_path)
    three = build_probe_set("scramble", make_images(), draws=3, folder=tmp_path)
    assert np.array_equal(one.images(1, 0).images, three.images(1, 0).images)
    assert not np.array_equal(three.images(1, 1).images, three.images(1, 2).images)
    with pytest.raises(IndexError, match="2 levels and 3 draws, got 1, 3"):
        three.images(1, 3)


def test_levels_may_differ_in_size(make_images, tmp_path):
    built = build_probe_set("scramble", make_images(), levels=[{"grid": 2}, {"grid": 7}], folder=tmp_path)
    assert [level["size"] for level in built.manifest["levels"]] == [[32, 32], [28, 28]]
    assert built.images(1, 0).size == (28, 28)


@pytest.mark.parametrize("name", ["localized_noise", "scramble", "superpixel"])
def test_blocks_do_not_show_in_the_bytes(make_images, tmp_path, monkeypatch, name):
    whole = build_probe_set(name, make_images(), folder=tmp_path / "whole")
    monkeypatch.setattr(_treatment, "BLOCK_BYTES", 3 * 3 * 32 * 32)
    assert build_probe_set(name, make_images(), folder=tmp_path / "blocks").manifest["sha256"] == whole.manifest["sha256"]


def test_rows_that_a_probe_drops_are_dropped_everywhere(make_images, tmp_path, monkeypatch, use):
    monkeypatch.setattr(_treatment, "BLOCK_BYTES", 3 * 3 * 32 * 32)  # blocks of 3 images, which start at even and odd rows
    clean = make_images(7)
    built = build_probe_set(use(darken_even_rows), clean, draws=2, folder=tmp_path)
    assert built.kept_index.tolist() == [0, 2, 4, 6]
    for draw in range(2):
        read = built.images(1, draw)
        assert np.array_equal(read.images, clean.images[::2] // 3)
        assert np.array_equal(read.labels, clean.labels[::2])
        assert np.array_equal(read.ids, clean.ids[::2])
        assert read.factors["shade"].tolist() == [2, 2, 2, 2]
    assert (built.manifest["n_images"], built.manifest["n_kept"]) == (7, 4)


def test_a_key_names_all_that_bytes_depend_on(make_images):
    clean = make_images()
    other_pixels = ImageSet(clean.images ^ 1, clean.labels, clean.ids, clean.class_names)
    other_labels = ImageSet(clean.images, clean.labels[::-1], clean.ids, clean.class_names)
    keys = [
        probe_key("scramble", [{"grid": 2}], 1, 0, clean),
        probe_key("scramble", [{"grid": 4}], 1, 0, clean),
        probe_key("scramble", [{"grid": 2}], 2, 0, clean),
        probe_key("scramble", [{"grid": 2}], 1, 1, clean),
        probe_key("scramble", [{"grid": 2}], 1, 0, other_pixels),
        probe_key("scramble", [{"grid": 2}], 1, 0, other_labels),
        probe_key("scramble", [{"grid": 2}], 1, 0, clean.subset(np.arange(7))),
        probe_key("superpixel", [{"n_segments": 2}], 1, 0, clean),
    ]
    assert len(set(keys)) == len(keys)
    assert probe_key("scramble", [{"grid": 2}], 1, 0, make_images()) == keys[0]


@pytest.mark.parametrize("file", ["images-1.npy", "labels.npy", "kept_index.npy", "ids.npy", "permutation-0.npy"])
def test_one_changed_byte_is_refused(make_images, tmp_path, file):
    built = build_probe_set("scramble", make_images(), folder=tmp_path)
    path = built.folder / file
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ImageError, match=f"{file} is not what was built"):
        build_probe_set("scramble", make_images(), folder=tmp_path)


def test_missing_and_foreign_folders_are_refused(make_images, tmp_path):
    with pytest.raises(ImageError, match=r"is no probe set: it has no manifest\.json"):
        open_probe_set(tmp_path)
    built = build_probe_set("scramble", make_images(), folder=tmp_path)
    (built.folder / "labels.npy").unlink()
    with pytest.raises(ImageError, match=r"labels\.npy is not what was built \(SHA-256 unreadable"):
        open_probe_set(built.folder)
    (built.folder / "manifest.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(ImageError, match="has format 99, this version reads"):
        open_probe_set(built.folder)


def test_equal_bytes_of_another_shape_or_type_are_refused(make_images, tmp_path):
    built = build_probe_set("scramble", make_images(8, 32, 64), folder=tmp_path)
    for file, change in {
        "images-0.npy": lambda values: values.reshape(8, 3, 64, 32),
        "labels.npy": lambda values: values.view(np.uint64),
    }.items():
        values = np.load(built.folder / file)
        np.save(built.folder / file, change(values))
        with pytest.raises(ImageError, match=rf"{file} is not what was built .*Delete the folder .*scramble-"):
            open_probe_set(built.folder)
        np.save(built.folder / file, values)
    assert open_probe_set(built.folder) == built


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "{}", '"text"', '{"format": 2}', "\udcff", "a class renamed", "none"])
def test_a_damaged_manifest_names_the_folder_to_delete(make_images, tmp_path, content):
    built = build_probe_set("scramble", make_images(), folder=tmp_path)
    path = built.folder / "manifest.json"
    if content == "none":
        path.unlink()
    else:
        content = path.read_text().replace('"ant"', '"bee"') if content == "a class renamed" else content
        path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(ImageError, match=f"Delete the folder {built.folder}, and the same command builds it again"):
        build_probe_set("scramble", make_images(), folder=tmp_path)


def test_names_that_are_no_utf_8_are_refused_before_any_work(make_images, tmp_path):
    clean = make_images(2)
    wrong_class = ImageSet(clean.images, clean.labels, clean.ids, ("ant", "caf\udce9"))
    wrong_id = ImageSet(clean.images, clean.labels, np.array(["a", "caf\udce9.png"]), ("ant", "bee"))
    for images, named in ((wrong_class, r"class 'caf\\udce9'"), (wrong_id, r"image 'caf\\udce9.png'")):
        with pytest.raises(ImageError, match=f"the name of {named} is no UTF-8.*rename it"):
            build_probe_set("scramble", images, folder=tmp_path)
        with pytest.raises(ImageError, match="is no UTF-8"):
            preview_probe("scramble", images)
    assert list(tmp_path.iterdir()) == []
    elsewhere = ImageSet(clean.images, clean.labels, clean.ids, ("a" * 300, "é"), {"path": "caf\udce9"})
    assert build_probe_set("scramble", elsewhere, folder=tmp_path).manifest["source"]["provenance"] == {"path": "caf?"}


@pytest.mark.parametrize("size", [(1, 400), (400, 1), (1, 1)])
def test_images_that_are_a_line_have_a_preview(make_images, tmp_path, size):
    built = build_probe_set("hue", make_images(3, *size), folder=tmp_path)
    with Image.open(built.folder / "preview.png") as page:
        assert page.height > 3 * 6
        assert page.width > 2 * 6


def test_the_software_that_ran_a_network_is_named(make_images, tmp_path, use):
    plain = build_probe_set("scramble", make_images(), folder=tmp_path)
    assert not {"torch", "torchvision"} & plain.manifest["software"].keys()
    masks = np.zeros((8, 32, 32), np.uint8)
    use(keep_masked)
    for kind, named in (("network", {"torch", "torchvision"}), ("folder", set())):
        supplies = {"masks": Supply(lambda block: masks[: len(block)], kind, {"kind": kind})}
        built = build_probe_set("keep_masked", make_images(), folder=tmp_path, supplies=supplies)
        assert {"torch", "torchvision"} & built.manifest["software"].keys() == named


def test_a_set_that_another_process_builds_is_waited_for(make_images, tmp_path, capsys):
    levels = probe_recipe("scramble", (32, 32)).levels
    part = tmp_path / f".scramble-{probe_key('scramble', levels, 1, 0, make_images())}.part"
    with ThreadPoolExecutor(1) as other:
        with locked(part, "first"):
            building = other.submit(build_probe_set, "scramble", make_images(), folder=tmp_path, progress=Progress())
            time.sleep(0.3)
            assert not building.done()
        assert building.result(timeout=60).folder.exists()
    assert "waiting: another process is building the probe set" in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_is_told(make_images, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StudyError, match="cannot write"):
        build_probe_set("scramble", make_images(), folder=tmp_path / "file" / "probes")


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ({"name": "scrambel"}, UnknownNameError, "Did you mean 'scramble'"),
        ({"preset": "fast"}, UnknownNameError, "no preset is called 'fast'"),
        ({"levels": [{"gird": 2}]}, UnknownNameError, "no setting 'gird'. Did you mean 'grid'"),
        ({"levels": [{"grid": "many"}]}, SettingError, "setting 'grid' of probe 'scramble'"),
        ({"levels": [{"grid": 2}, {"grid": 2}]}, SettingError, "given a level twice: grid=2; grid=2"),
        ({"levels": []}, SettingError, "at least one level and one draw, got 0 and 1"),
        ({"draws": 0}, SettingError, "at least one level and one draw, got 2 and 0"),
    ],
)
def test_a_recipe_that_cannot_be_built_is_refused(asked, error, message):
    with pytest.raises(error, match=message):
        probe_recipe(**{"name": "scramble", "size": (32, 32)} | asked)


def test_no_images_are_refused(make_images, tmp_path):
    with pytest.raises(ImageError, match="was given no images"):
        build_probe_set("scramble", make_images(0), folder=tmp_path)


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        (forget_labels, ValueError, "labels that are not those of the images it kept"),
        (keep_none, ImageError, "could treat none of the 8 images"),
        (keep_as_told, ValueError, "kept other images at another level or draw"),
        (ask_for_the_moon, TypeError, "asks for moon; what can be supplied: images, labels, index, seed"),
    ],
)
def test_a_probe_that_breaks_its_contract_is_refused(make_images, tmp_path, use, function, error, message):
    with pytest.raises(error, match=message):
        build_probe_set(use(function), make_images(), folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_long_build_says_now_and_then_how_far_it_is(make_images, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(_treatment, "BLOCK_BYTES", 3 * 4 * 32 * 32)  # two blocks of four images
    monkeypatch.setattr(_build, "SECONDS_BETWEEN_LINES", -1)
    build_probe_set("scramble", make_images(), folder=tmp_path, progress=Progress())
    shares = [line.split(": ")[1].split(" after")[0] for line in capsys.readouterr().err.splitlines()]
    assert shares == ["0%", "0%", "25%", "50%", "75%", "100%"]  # the first two: what the levels had done already


def test_masks_that_take_their_time_are_counted_as_they_are_made(make_images, tmp_path, monkeypatch, capsys, use):
    monkeypatch.setattr(_build, "SUPPLIED_AT_ONCE", 3)
    monkeypatch.setattr(_build, "SECONDS_BETWEEN_LINES", -1)
    use(keep_masked)
    seen = []

    def of(block):
        seen.append(len(block))
        return np.full((len(block), 32, 32), 255, np.uint8)

    build_probe_set("keep_masked", make_images(), folder=tmp_path, supplies={"masks": Supply(of, "all", {})}, progress=Progress())
    lines = [line for line in capsys.readouterr().err.splitlines() if line.endswith("masks")]
    assert seen[:3] == [3, 3, 2]
    assert [line.split(": ")[1].split(" after")[0] for line in lines] == ["0%", "12%", "25%", "33%"]  # the rest: the two levels


def test_what_a_probe_needs_is_said_before_anything_is_built(make_images, tmp_path, use):
    with pytest.raises(SettingError, match="needs masks: give --masks DIR"):
        build_probe_set(use(ask_for_masks), make_images(), folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "gone"),
    [
        ("edges", {"texture", "colour"}),
        ("superpixel", {"texture"}),
        ("mosaic", {"texture"}),
        ("grayscale", {"colour"}),
        ("hue", {"colour"}),
        ("shift", set()),
    ],
)
def test_factors_that_the_images_no_longer_show_are_left_out(name, gone, make_images, tmp_path):
    clean = make_images()
    factors = {cue: np.arange(8) + place for place, cue in enumerate(("shape", "texture", "colour"))}
    known = ImageSet(clean.images, clean.labels, clean.ids, clean.class_names, factors=factors)
    built = build_probe_set(name, known, folder=tmp_path)
    shown = built.images(0, 0).factors
    assert factors.keys() - shown.keys() == gone
    assert all(np.array_equal(shown[cue], factors[cue]) for cue in factors.keys() - gone)
    assert set(built.manifest["removes"]) == gone


@pytest.mark.parametrize("name", ["silhouette", "amplitude_swap", "stylized", "cue_conflict"])
def test_probes_that_replace_texture_and_colour_say_so(name):
    assert set(registry.get("probe", name).facts["removes"]) == {"texture", "colour"}


def test_a_set_from_before_shows_all_factors(make_images, tmp_path):
    clean = make_images()
    known = ImageSet(clean.images, clean.labels, clean.ids, clean.class_names, factors={"colour": np.arange(8)})
    built = build_probe_set("hue", known, folder=tmp_path)
    manifest = {name: value for name, value in built.manifest.items() if name != "removes"}
    assert "colour" in replace(built, manifest=manifest).images(0, 0).factors


@pytest.mark.parametrize("name", [name for name in registry.names("probe") if registry.get("probe", name).facts["control_of"]])
def test_a_control_draws_as_the_probe_that_it_controls(name, make_images):
    seeds = {
        each: Order(probe_recipe(each, (32, 32)), make_images(), 3, "", {}).draw_seed(1) for each in (name, "scramble", "localized_noise")
    }
    controlled = registry.get("probe", name).facts["control_of"]
    assert all((seeds[each] == seeds[name]) == (each in (name, controlled)) for each in seeds)


def test_the_preview_shows_clean_images_and_every_level(make_images, tmp_path):
    built = build_probe_set("localized_noise", make_images(10, 48, 64), folder=tmp_path)
    with Image.open(built.folder / "preview.png") as page:
        pixels = np.asarray(page)
    # Cells of 48 x 64 px are magnified twice (96 / 64, rounded); four columns and six rows of them, with names and gaps.
    assert pixels.shape[0] > 6 * 96
    assert pixels.shape[1] > 4 * 128
    clean = make_images(10, 48, 64).images[0].transpose(1, 2, 0).repeat(2, axis=0).repeat(2, axis=1)
    windows = np.lib.stride_tricks.sliding_window_view(pixels[:160, :200], clean.shape)
    assert (windows[:, :, 0] == clean).all(axis=(2, 3, 4)).any(), "the first clean image is not on the page"


def test_the_preview_of_large_images_with_crops_and_long_names_fits(make_images, tmp_path):
    clean = make_images(3, 224, 224)
    long = ImageSet(clean.images, np.full(3, -1), clean.ids, ("a class with a very long name",))
    built = build_probe_set("scramble", long, levels=[{"grid": 28}, {"grid": 100}], folder=tmp_path)
    with Image.open(built.folder / "preview.png") as page:
        assert 3 * 160 < page.width < 3 * 160 + 200
        assert 3 * 160 < page.height < 3 * 160 + 100


def test_many_levels_stand_in_bands_below_one_another(make_images, tmp_path):
    levels = [{"fraction": 0.1, "sigma": (n + 1) / 100} for n in range(30)]
    ten = build_probe_set("localized_noise", make_images(6), levels=levels[:10], folder=tmp_path)
    thirty = build_probe_set("localized_noise", make_images(6), levels=levels, folder=tmp_path)
    with Image.open(ten.folder / "preview.png") as two_bands, Image.open(thirty.folder / "preview.png") as three_bands:
        # Two bands of five levels, three of eight, each beside the clean images; cells of 32 px are magnified three times.
        assert 6 * 102 < two_bands.width < 7 * 102
        assert 9 * 102 < three_bands.width < 10 * 102
        assert 2 * 6 * 102 < two_bands.height < 2 * 7 * 102
        assert 3 * 6 * 102 < three_bands.height < 3 * 7 * 102


def test_a_preview_without_a_set_shows_what_the_set_would(make_images, tmp_path):
    built = build_probe_set("scramble", make_images(40), folder=tmp_path)
    assert preview_probe("scramble", make_images(40)) == (built.folder / "preview.png").read_bytes()


def test_a_preview_shows_images_that_the_probe_can_treat(make_images, use):
    name = use(darken_even_rows)
    page = preview_probe(name, make_images(40), n_rows=3)
    assert Image.open(io.BytesIO(page)).height == Image.open(io.BytesIO(preview_probe(name, make_images(3), n_rows=2))).height + 102
    with pytest.raises(ImageError, match="could treat none of the 8 images that were tried for the preview"):
        preview_probe(use(keep_none), make_images(40), n_rows=2)
    with pytest.raises(SettingError, match="at least one row, got 0"):
        preview_probe("scramble", make_images(40), n_rows=0)
