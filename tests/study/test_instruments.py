"""Instruments in a study: the images that they see, what is kept of what they gave, and what is done again after a stop."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from crossdistill.compare import read_table
from crossdistill.core import registry
from crossdistill.core.config import StudyConfig
from crossdistill.core.errors import SettingError, StudyError
from crossdistill.core.observations import load_measurement, save_measurement
from crossdistill.core.progress import Progress
from crossdistill.core.recipe import TrainingConfig
from crossdistill.core.records import ResultRow, RunRecord, SimilarityRow
from crossdistill.core.study_file import parse_study, read_study
from crossdistill.core.types import ImageSet, Splits
from crossdistill.instruments.grad_cam import grad_cam
from crossdistill.metrics.cka import cka
from crossdistill.models._build import build_network
from crossdistill.ops.network import Network
from crossdistill.study import instruments
from crossdistill.study.instruments import copy_measured, instrument_files, measure, measured, measured_of, narrowed, unmeasured
from crossdistill.study.plan import Training
from crossdistill.study.workshop import Workshop

CPU = torch.device("cpu")
CLASSES = ("a", "b", "c")
RUN = Training("teacher", "cnn", 0, TrainingConfig(threads=1), "0123456789abcdef")
ALL = ["attention_distance", "attention_rollout", "features", "grad_cam", "receptive_field"]


def image_set(n: int) -> ImageSet:
    images = np.random.default_rng(n).integers(0, 256, (n, 3, 16, 16), dtype=np.uint8)
    return ImageSet(images, np.arange(n) % len(CLASSES), np.arange(n).astype(str), CLASSES, {"key": f"{n} images"})


TEST = image_set(45)


def network(name: str, **settings: Any) -> Network:
    torch.manual_seed(0)
    return build_network(name, len(CLASSES), (16, 16), settings=settings).eval().requires_grad_(False)


CNN, VIT = network("small/resnet8"), network("small/vit", width=16, depth=2, heads=2)


def observing(config: StudyConfig, **changed: Any) -> StudyConfig:
    return config.model_copy(update={"observe": config.observe.model_copy(update=changed)})


@pytest.fixture
def tiny(tiny: Path) -> Path:
    """The study with the instruments, which other tests do without."""
    tiny.write_text(tiny.read_text().replace("observe: {instruments: []}\n", ""))
    return tiny


@pytest.fixture
def config(tiny: Path) -> StudyConfig:
    return observing(read_study(tiny), instrument_images=20)


@pytest.fixture
def shop(config: StudyConfig, tmp_path: Path) -> Workshop:
    splits = Splits(image_set(12), image_set(6), TEST)
    return Workshop(config, splits, tmp_path / "out", tmp_path / "store", CPU, Progress(quiet=True), np.arange(9))


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# --- features in fewer columns ---


@pytest.mark.parametrize("shift", [0, 100])
def test_features_in_fewer_columns_have_the_same_inner_products_and_the_same_cka(shift: float) -> None:
    random = np.random.default_rng(0)
    wide = (random.normal(size=(30, 8, 4, 4)) + shift).astype(np.float32)
    other = (wide.reshape(30, -1)[:, :20] + random.normal(size=(30, 20))).astype(np.float32)
    few = narrowed(wide)
    assert (few.shape, few.dtype) == ((30, 30), np.float32)
    rows = wide.reshape(30, -1).astype(np.float64)
    rows -= rows.mean(axis=0)
    np.testing.assert_allclose(few.astype(np.float64) @ few.T, rows @ rows.T, atol=1e-5 * (rows @ rows.T).max())
    for a, b in ((few, other), (other, few)):
        before = cka(wide, other) if b is other else cka(other, wide)
        assert cka(a, b).value == pytest.approx(before.value, abs=1e-5)
        assert (cka(a, b).low, cka(a, b).high) == pytest.approx((before.low, before.high), abs=1e-5)


def test_cka_over_minibatches_does_not_see_the_fewer_columns_either() -> None:
    random = np.random.default_rng(1)
    wide = random.normal(size=(520, 600)).astype(np.float32)
    other = (wide[:, :50] + random.normal(size=(520, 50))).astype(np.float32)
    assert cka(narrowed(wide), other).value == pytest.approx(cka(wide, other).value, abs=1e-5)


def test_features_that_are_narrow_already_come_back_as_they_are_and_copies_of_one_image_stay_copies() -> None:
    narrow = np.random.default_rng(0).normal(size=(30, 30)).astype(np.float32)
    assert narrowed(narrow) is narrow
    wide = np.random.default_rng(0).normal(size=(5, 40)).astype(np.float32)[[0, 1, 1, 2, 2, 3, 4]]  # fewer directions than images
    assert np.isfinite(narrowed(wide)).all()
    np.testing.assert_allclose(narrowed(wide)[1], narrowed(wide)[2], atol=1e-5)


# --- on disk ---


@pytest.mark.parametrize("found", [np.ones((3, 2), np.float32), {"stage1": np.ones((3, 2)), "reason": np.zeros(3)}, "it has no patches"])
def test_what_was_measured_is_read_as_it_was_written(tmp_path: Path, found: Any) -> None:
    save_measurement(tmp_path / "a.npz", found)
    again = load_measurement(tmp_path / "a.npz")
    assert type(again) is type(found)
    if isinstance(again, dict):
        assert {name: values.tolist() for name, values in again.items()} == {name: values.tolist() for name, values in found.items()}
    else:
        assert np.array_equal(again, found)


@pytest.mark.parametrize("damage", [lambda content: content[:100], lambda content: b"", lambda content: b"text"])
def test_a_damaged_file_says_what_to_do(shop: Workshop, damage: Callable[[bytes], bytes]) -> None:
    measure(shop, RUN, "run", VIT)
    names = instrument_files(shop.config, TEST)
    path = shop.out / "instruments" / "run" / names["features"]
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(StudyError, match=r"features-\w+.npz is damaged .* Delete it, and the same command makes it again"):
        measured(shop.out, "run", names)["features"]
    assert isinstance(measured(shop.out, "run", names)["receptive_field"], np.ndarray)  # the others are there


# --- which instruments see which images ---


def test_a_file_is_named_by_the_instrument_its_version_and_its_images(config: StudyConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    before = instrument_files(config, TEST)
    assert list(before) == ALL
    assert instrument_files(config, TEST) == before
    more = instrument_files(observing(config, instrument_images=21), TEST)
    assert {name for name in ALL if more[name] != before[name]} == {"attention_distance", "features", "receptive_field"}
    assert all(instrument_files(config.model_copy(update={"seed": 1}), TEST)[name] != before[name] for name in ALL)
    assert list(instrument_files(observing(config, instruments=("features",)), TEST)) == ["features"]
    assert instrument_files(observing(config, instruments=()), TEST) == {}
    newer = replace(registry.get("instrument", "features"), version=99)
    monkeypatch.setattr(instruments.registry, "get", lambda kind, name: newer)
    assert instrument_files(observing(config, instruments=("features",)), TEST)["features"] != before["features"]


def test_images_are_a_fixed_subset_that_keeps_the_share_of_each_class() -> None:
    plugin = registry.get("instrument", "receptive_field")
    shown = instruments._shown(plugin, TEST, 21, 0)
    assert np.bincount(shown.labels).tolist() == [7, 7, 7]
    assert (shown.ids == instruments._shown(plugin, TEST, 21, 0).ids).all()
    assert len(instruments._shown(plugin, TEST, 100, 0)) == len(TEST)
    assert len(instruments._shown(registry.get("instrument", "grad_cam"), TEST, 21, 0)) == 12


def test_what_is_measured_in_batches_is_what_each_image_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("attention_distance", "receptive_field"):
        whole = measured_of(VIT, TEST, device=CPU, names=[name])[name]
        parts = measured_of(VIT, TEST, device=CPU, names=[name], batch_size=7)[name]
        direct = registry.get("instrument", name).function(VIT, torch.from_numpy(TEST.images))
        assert isinstance(whole, np.ndarray)
        np.testing.assert_allclose(whole, direct, rtol=1e-4, atol=1e-5 * np.abs(direct).max())
        np.testing.assert_allclose(parts, direct, rtol=1e-4, atol=1e-5 * np.abs(direct).max())


def test_grad_cam_is_asked_for_the_class_that_the_image_shows() -> None:
    shown = instruments._shown(registry.get("instrument", "grad_cam"), TEST, 20, 0)
    images = torch.from_numpy(shown.images)
    found = measured_of(CNN, TEST, device=CPU, count=20, names=["grad_cam"])["grad_cam"]
    np.testing.assert_allclose(found, grad_cam(CNN, images, torch.from_numpy(shown.labels)), atol=1e-5)
    assert np.abs(found - grad_cam(CNN, images)).max() > 0.1  # what it answers is another class for some


def test_wide_features_are_stored_narrow_and_mean_the_same() -> None:
    found = measured_of(CNN, TEST, device=CPU, names=["features"])["features"]
    direct = registry.get("instrument", "features").function(CNN, torch.from_numpy(TEST.images))
    assert isinstance(found, dict)
    assert set(found) == set(direct)
    assert direct["stage4_grid"].shape[1:] == (64, 4, 4)
    assert found["stage4_grid"].shape == (45, 45)
    for name, values in direct.items():
        assert cka(found[name], values).value == pytest.approx(1, abs=1e-5)
        assert cka(found[name], direct["stage2"]).value == pytest.approx(cka(values, direct["stage2"]).value, abs=1e-5)


def test_a_network_that_has_lost_its_numbers_is_told_so_and_gives_no_nan() -> None:
    broken = network("small/resnet8")
    with torch.no_grad():
        next(broken.parameters()).fill_(torch.nan)
    for name, found in measured_of(broken, TEST, device=CPU, names=["features", "receptive_field"]).items():
        assert found == f"{name} gave values that are not finite"


# --- in a study's folder ---


def test_a_refusal_is_kept_with_its_reason_and_not_asked_for_again(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    measure(shop, RUN, "run", CNN)
    found = measured(shop.out, "run", instrument_files(shop.config, TEST))
    for name in ("attention_distance", "attention_rollout"):
        assert "no patches that could attend to one another" in found[name]
    assert unmeasured(shop, RUN, "run") == {}
    monkeypatch.setattr(instruments, "_measured", lambda *arguments: pytest.fail("it was measured again"))
    measure(shop, RUN, "run", CNN)


def test_what_a_stop_or_a_deleted_file_left_out_is_done_again_to_the_byte(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    measure(shop, RUN, "run", VIT)
    before = files(shop.out)
    assert [name for name in before if name.startswith("pictures")] == [
        "pictures/images.webp", "pictures/run/attention_rollout.webp", "pictures/run/grad_cam.webp",
    ]  # fmt: skip
    assert all(len(content) < 100_000 for name, content in before.items() if name.startswith("pictures"))
    missing = instrument_files(shop.config, TEST)["grad_cam"]
    (shop.out / "instruments" / "run" / missing).unlink()
    (shop.out / "pictures" / "run" / "grad_cam.webp").unlink()
    assert list(unmeasured(shop, RUN, "run")) == ["grad_cam"]
    made: list[str] = []
    real = instruments._measured
    monkeypatch.setattr(instruments, "_measured", lambda plugin, *rest: made.append(plugin.name) or real(plugin, *rest))
    measure(shop, RUN, "run", VIT)
    assert made == ["grad_cam"]
    assert files(shop.out) == before


def test_a_map_is_drawn_before_its_file_says_that_all_is_done(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any) -> None:
        raise StudyError("the disk is full")

    monkeypatch.setattr(instruments, "write_strip", full)
    with pytest.raises(StudyError, match="full"):
        measure(shop, RUN, "run", VIT)
    assert {"attention_rollout", "grad_cam"} <= set(unmeasured(shop, RUN, "run"))


def test_maps_lie_over_the_images_of_the_other_strip(shop: Workshop) -> None:
    from PIL import Image

    measure(shop, RUN, "run", VIT)
    sizes = {Image.open(path).size for path in shop.out.rglob("*.webp")}
    assert sizes == {(12 * 64 + 11 * 4, 64)}
    strip = np.asarray(Image.open(shop.out / "pictures" / "images.webp").convert("RGB")).astype(int)
    shown = instruments._shown(registry.get("instrument", "grad_cam"), TEST, 20, 0)
    for number in (0, 11):
        tile = strip[:, number * 68 : number * 68 + 64].reshape(16, 4, 16, 4, 3).mean(axis=(1, 3))
        assert np.corrcoef(tile.ravel(), shown.images[number].transpose(1, 2, 0).ravel())[0, 1] > 0.8


def test_ceilings_are_not_measured(shop: Workshop) -> None:
    ceiling = Training("ceiling", "cnn", 0, TrainingConfig(), "0" * 16, probe="scramble")
    assert unmeasured(shop, ceiling, ceiling.run) == {}
    measure(shop, ceiling, ceiling.run, CNN)
    assert not shop.out.exists()


def test_what_was_measured_of_the_very_same_network_is_copied(shop: Workshop) -> None:
    measure(shop, RUN, "own", VIT)
    copy_measured(shop, "own", "control")
    assert unmeasured(shop, RUN, "control") == {}
    found = files(shop.out)
    assert all(content == found[name.replace("/own/", "/control/")] for name, content in found.items())
    copy_measured(shop, "nothing there", "nothing here")
    assert not (shop.out / "instruments" / "nothing here").exists()


def test_memory_that_ends_is_told_with_what_to_lower(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    def spent(network: Network, images: Tensor) -> np.ndarray:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(instruments, "_chosen", lambda names: [registry.get("instrument", "features")])
    plugin = replace(registry.get("instrument", "features"), function=spent)
    monkeypatch.setattr(instruments.registry, "get", lambda kind, name: plugin)
    expected = r"teacher: cnn, seed 0: out of memory while features measured it, 32 images at a time: lower `observe: \{batch_size\}`"
    with pytest.raises(SettingError, match=expected):
        measure(shop, RUN, "run", VIT)
    assert "features" in unmeasured(shop, RUN, "run")


def test_an_instrument_that_does_not_exist_is_refused_with_the_line_and_the_nearest(tiny: Path) -> None:
    text = tiny.read_text() + "observe:\n  instruments: [features, receptive_fields]\n"
    with pytest.raises(LookupError, match=r"line 14: observe.instruments.1: no instrument .*Did you mean 'receptive_field'\?"):
        parse_study(text)
    assert parse_study(text.replace("receptive_fields", "receptive_field")).observe.instruments == ("features", "receptive_field")


def test_a_study_measures_every_network_and_compares_their_layers(
    tiny: Path, command: Callable[..., int], tmp_path: Path, without_timing: Callable[[Path], dict[str, Any]]
) -> None:
    out = tmp_path / "out"
    text = tiny.read_text().replace("[{grid: 2}, {grid: 4}, {grid: 8}]}, localized_noise]", "[{grid: 4}]}]")
    tiny.write_text(text.replace("epochs: 2", "epochs: 1"))
    arguments = ("study", "run", tiny, "--out", out, "--quiet")
    assert command(*arguments) == 0
    runs = {path.name: RunRecord.load(path) for path in (out / "runs").iterdir()}
    names = sorted(instrument_files(read_study(tiny), image_set(60)))
    for run in runs:
        assert sorted(path.name.partition("-")[0] for path in (out / "instruments" / run).iterdir()) == names
    pictured = {path.parent.name for path in out.glob("pictures/*/grad_cam.webp")}
    assert pictured == set(runs)

    similar = read_table(out / "similarity.parquet", SimilarityRow)
    (teacher,) = (run for run, record in runs.items() if record.arm == "teacher")
    students = {record.seed: run for run, record in runs.items() if record.arm == "kd"}
    alone = {record.seed: run for run, record in runs.items() if record.arm == "independent"}
    expected = {two for s in (0, 1) for two in ((students[s], teacher), (alone[s], teacher), (students[s], alone[s]))}
    assert {(row.a, row.b) for row in similar} == expected
    assert {row.n for row in similar if row.status == "ok"} == {60}

    results = read_table(out / "results.parquet", ResultRow)
    distances = [row for row in results if row.metric.startswith("mean_attention_distance")]
    assert {row.run for row in distances if row.status == "ok"} == {teacher}
    assert {row.run for row in distances if "no patches" in (row.reason or "")} == {*students.values(), *alone.values()}
    fields = [row for row in results if row.metric == "effective_receptive_field_side_50"]
    assert {row.run for row in fields} == set(runs)
    assert all(0 < row.value < 1 for row in fields)

    before = without_timing(out)
    for path in out.glob(f"instruments/{students[0]}/features-*.npz"):
        path.unlink()
    assert command(*arguments) == 0
    assert without_timing(out) == before
