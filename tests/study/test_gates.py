"""The signal gate in a study: which ceilings are trained, on which images, and what their failure or absence leaves."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from crossdistill.compare import read_table
from crossdistill.compare.gates import SignalGate
from crossdistill.core.config import NOT_METHODS
from crossdistill.core.errors import ImageError, SettingError
from crossdistill.core.progress import Progress
from crossdistill.core.records import InheritanceRow, ResultRow, RunRecord
from crossdistill.core.store import read_json
from crossdistill.core.study_file import parse_study
from crossdistill.core.types import ImageSet
from crossdistill.probes._build import build_probe_set
from crossdistill.study import gates
from crossdistill.study.ceilings import CeilingSchedule
from crossdistill.study.execute import refuse_unseen_probes, run_study
from crossdistill.study.folder import resolved
from crossdistill.study.foreseen import foreseen_probe_sets
from crossdistill.study.gates import is_needed, possible_ceilings, probed, shared_out, training_images, without_masks
from crossdistill.study.keys import KeyMaker
from crossdistill.study.plan import Training
from crossdistill.study.probes import study_recipe
from crossdistill.study.status import _is_decided

# Noise of 50 times the full range on every pixel leaves black and white dots; noise of none leaves the image as it is.
GATED = """\
name: gated
images: {source: trifeature, n_values: 2, n_train: 160, n_test: 60, n_conflict: 40, side: 16}
networks:
  vit: {model: small/vit, width: 16, depth: 1, heads: 2}
  cnn: {model: small/resnet8}
teachers: {runs: 1, epochs: 2}
pairs:
  - {teacher: vit, student: cnn, methods: [kd]}
seeds: [0]
training: {epochs: 3, batch_size: 16, threads: 1, precision: fp32}
probes: [{name: localized_noise, levels: [{fraction: 1, sigma: 0}, {fraction: 1, sigma: 50}]}]
observe: {instruments: []}
"""
CLEAR, DROWNED = "fraction=1.0,sigma=0.0", "fraction=1.0,sigma=50.0"
CEILING = "ceiling: localized_noise: cnn, seed 0"
ALONE = f"ceiling: localized_noise at {DROWNED}: cnn, seed 0"
NEVER = f"ceiling: localized_noise at {CLEAR}: cnn, seed 0"


@pytest.fixture
def gated(tmp_path: Path) -> Path:
    path = tmp_path / "gated.yaml"
    path.write_text(GATED)
    return path


def arms(out: Path) -> list[str]:
    return sorted(RunRecord.load(path.parent).arm for path in out.glob("runs/*/record.json"))


def gate_of(out: Path) -> dict[tuple[str, str], str]:
    return {(row.probe, row.level): row.signal_gate for row in read_table(out / "results.parquet", ResultRow)}


def states(command: Callable[..., int], out: Path, capsys: Any) -> dict[str, str]:
    import json

    capsys.readouterr()
    assert command("study", "status", out, "--json") == 0
    return {row["label"]: row["state"] for row in json.loads(capsys.readouterr().out)}


def test_what_no_network_passes_gets_a_ceiling_and_what_it_cannot_read_is_no_bias(
    gated: Path, command: Callable[..., int], tmp_path: Path, capsys: Any
) -> None:
    out = tmp_path / "out"
    assert command("study", "run", gated, "--out", out, "--quiet") == 0
    assert arms(out) == ["ceiling", "ceiling", "independent", "kd", "teacher"]
    assert gate_of(out)["localized_noise", CLEAR] == "passed"
    assert gate_of(out)["localized_noise", DROWNED] == "failed"
    assert (gate_of(out)["clean", ""], gate_of(out)["conflict", ""]) == ("", "")
    rows = [row for row in read_table(out / "results.parquet", ResultRow) if row.level == DROWNED]
    assert {row.status for row in rows if row.metric == "retention"} == {"not_measurable"}
    assert all(row.value is not None for row in rows if row.metric == "accuracy")
    assert {row.arm for row in rows if row.metric == "accuracy"} == {"ceiling", "independent", "kd", "teacher"}
    contrasts = [row for row in read_table(out / "inheritance.parquet", InheritanceRow) if row.level_or_auc == DROWNED]
    assert {(row.verdict, row.difference, row.teacher_gap, row.signal_gate) for row in contrasts} == {
        ("not_measurable", None, None, "failed")
    }
    found = states(command, out, capsys)
    assert (found[CEILING], found[ALONE], found[NEVER]) == ("done", "done", "not needed")

    before = {path: path.stat().st_mtime_ns for path in out.glob("runs/*/network.safetensors")}
    assert command("study", "run", gated, "--out", out, "--quiet") == 0
    assert before == {path: path.stat().st_mtime_ns for path in out.glob("runs/*/network.safetensors")}


def test_a_gate_that_is_off_trains_no_ceiling_and_says_not_run(gated: Path, command: Callable[..., int], tmp_path: Path) -> None:
    gated.write_text(GATED + "signal_gate: off\n")
    out = tmp_path / "out"
    assert command("study", "run", gated, "--out", out, "--quiet") == 0
    assert "ceiling" not in arms(out)
    assert gate_of(out)["localized_noise", CLEAR] == "passed"
    assert gate_of(out)["localized_noise", DROWNED] == "not run"
    assert read_json(out / "plan.json")["ceilings"] == []


def test_a_ceiling_that_fails_is_told_and_stops_nothing(
    gated: Path, command: Callable[..., int], tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any) -> ImageSet:
        raise ImageError("no image of the training split can be treated")

    monkeypatch.setattr(gates, "shared_out", refuse)
    out = tmp_path / "out"
    assert command("study", "run", gated, "--out", out, "--quiet") == 1
    assert f"failed: {CEILING}" in capsys.readouterr().err
    assert gate_of(out)["localized_noise", DROWNED] == "not run"
    assert states(command, out, capsys)[CEILING] == "failed"
    monkeypatch.undo()
    monkeypatch.setenv("CROSSDISTILL_CACHE", str(tmp_path / "cache"))
    assert command("study", "run", gated, "--out", out, "--quiet") == 0
    assert gate_of(out)["localized_noise", DROWNED] == "failed"


def test_ceilings_wait_until_every_network_is_observed(gated: Path, command: Callable[..., int], tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "out"
    assert command("study", "run", gated, "--out", out, "--quiet", "--only", "independent") == 0
    assert arms(out) == ["independent"]
    assert states(command, out, capsys)[CEILING] == "waiting"


def test_the_plan_says_which_ceilings_may_become_necessary(gated: Path, command: Callable[..., int], capsys: Any) -> None:
    assert command("study", "plan", gated) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "signal gate: up to 3 more trainings" in said
    assert "localized_noise: cnn on all levels at once; then on each of 2 levels alone" in said
    assert "comes on top and is not counted" in said


def test_the_plan_counts_the_trainings_that_the_run_may_ask_for(images: ImageSet, tmp_path: Path) -> None:
    text = GATED.replace("probes: [", "probes: [{name: scramble, levels: [{grid: 3}, {grid: 4}, {grid: 5}]}, ")
    config = parse_study(text)
    splits: Any = SimpleNamespace(train=images, validation=images, test=images)
    built = {
        probe.name: build_probe_set(probe.name, images, levels=study_recipe(probe, config, (16, 16)).levels, draws=1, folder=tmp_path)
        for probe in config.chosen_probes
    }
    counted = ceilings(text, foreseen_probe_sets(config, splits, tmp_path / "empty store"))
    assert [(ceiling.label, ceiling.key) for ceiling in counted] == [(ceiling.label, ceiling.key) for ceiling in ceilings(text, built)]
    assert len(counted) == 3 + 3  # scrambles of three sizes; the noise on both levels and on each


def test_off_may_be_written_bare_and_comes_back_as_it_was() -> None:
    config = parse_study(GATED + "signal_gate: off\n")
    assert config.signal_gate == "off"
    assert resolved(config)["signal_gate"] == "off"
    assert parse_study(GATED).signal_gate == "auto"
    with pytest.raises(SettingError, match="signal_gate: input should be 'auto' or 'off', got True"):
        parse_study(GATED + "signal_gate: on\n")


def test_no_method_may_be_called_like_a_ceiling() -> None:
    assert "ceiling" in NOT_METHODS
    with pytest.raises(SettingError, match="two arms of this pair are called 'ceiling'"):
        parse_study(GATED.replace("[kd]", "[{name: kd, label: ceiling}]"))


@pytest.fixture
def images() -> ImageSet:
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (30, 3, 16, 16), dtype=np.uint8)
    return ImageSet(pixels, np.arange(30) % 3, np.array([f"image {i}" for i in range(30)]), ("a", "b", "c"))


def scrambled(images: ImageSet, folder: Path, *grids: int) -> dict[str, Any]:
    return {"scramble": build_probe_set("scramble", images, levels=[{"grid": grid} for grid in grids], draws=1, folder=folder)}


def ceilings(text: str, probe_sets: dict[str, Any]) -> tuple[Training, ...]:
    config = parse_study(text)
    return possible_ceilings(config, KeyMaker(config, "images", torch.device("cpu")), probe_sets)


def test_levels_of_one_size_share_a_ceiling_before_each_has_its_own(images: ImageSet, tmp_path: Path) -> None:
    assert [c.label for c in ceilings(GATED, scrambled(images, tmp_path, 2))] == ["ceiling: scramble: cnn, seed 0"]
    assert [c.label for c in ceilings(GATED, scrambled(images, tmp_path, 2, 4))] == [
        "ceiling: scramble: cnn, seed 0",
        "ceiling: scramble at grid=2: cnn, seed 0",
        "ceiling: scramble at grid=4: cnn, seed 0",
    ]
    # A grid of 3 crops 16 pixels to 15.
    assert [c.label for c in ceilings(GATED, scrambled(images, tmp_path, 3, 4))] == [
        "ceiling: scramble at grid=3: cnn, seed 0",
        "ceiling: scramble at grid=4: cnn, seed 0",
    ]


def test_every_student_of_a_pair_has_its_ceilings_whatever_the_seeds(images: ImageSet, tmp_path: Path) -> None:
    both = GATED.replace("methods: [kd]}", "methods: [kd]}\n  - {teacher: cnn, student: vit, methods: [kd]}")
    probe_sets = scrambled(images, tmp_path, 2, 4)
    assert [c.network for c in ceilings(both, probe_sets)] == ["cnn"] * 3 + ["vit"] * 3
    more = both.replace("seeds: [0]", "seeds: [3, 4]")
    assert [c.key for c in ceilings(more, probe_sets)] == [c.key for c in ceilings(both, probe_sets)]


def test_a_ceilings_key_names_its_levels_and_its_recipe(images: ImageSet, tmp_path: Path) -> None:
    texts = (GATED, GATED.replace("epochs: 3", "epochs: 4"))
    keys = [ceilings(text, scrambled(images, tmp_path, *grids))[0].key for text in texts for grids in ((2, 4), (2, 8))]
    assert len(set(keys)) == 4


def gate(status: str, floor: float = 0.5) -> SignalGate:
    return SignalGate(status, 0.6, floor, "someone")  # type: ignore[arg-type]


def test_a_ceiling_is_needed_for_its_own_levels_that_have_not_passed_and_could(images: ImageSet, tmp_path: Path) -> None:
    whole, second, _ = ceilings(GATED, scrambled(images, tmp_path, 2, 4))
    assert is_needed(second, {("scramble", "grid=2"): gate("not run")})
    assert not is_needed(second, {("scramble", "grid=2"): gate("passed"), ("scramble", "grid=4"): gate("not run")})
    third, fourth = ceilings(GATED, scrambled(images, tmp_path, 3, 4))
    one_left = {("scramble", "grid=3"): gate("passed"), ("scramble", "grid=4"): gate("not run"), ("mosaic", ""): gate("not run")}
    assert [is_needed(ceiling, one_left) for ceiling in (whole, third, fourth)] == [True, False, True]
    assert is_needed(whole, {("scramble", "grid=4"): gate("failed")})  # another student may do better
    assert not is_needed(whole, {("scramble", "grid=4"): gate("failed", floor=0.9)})  # nobody can
    assert not is_needed(whole, {})


def test_training_images_stand_at_one_level_each_and_levels_are_shared_out_evenly(images: ImageSet, tmp_path: Path) -> None:
    probe_sets = scrambled(images, tmp_path, 2, 4, 8)
    config = parse_study(GATED.replace("{name: localized_noise, levels: [{fraction: 1, sigma: 0}, {fraction: 1, sigma: 50}]}", "scramble"))
    splits = SimpleNamespace(train=images, validation=images.subset(np.arange(6)))
    shop: Any = SimpleNamespace(
        config=config, probe_sets=probe_sets, store=tmp_path / "store", progress=Progress(quiet=True), splits=splits, device=None
    )
    levels = probe_sets["scramble"].levels
    shown = shared_out(shop, "scramble", "train", images, levels)
    assert sorted(shown.ids) == sorted(images.ids)
    labels = dict(zip(images.ids, images.labels, strict=True))
    assert [labels[name] for name in shown.ids] == shown.labels.tolist()
    # A scrambled image has the same pixels in another order, but no longer the image's own rows.
    own = dict(zip(images.ids, images.images, strict=True))
    for name, pixels in zip(shown.ids, shown.images, strict=True):
        assert (np.sort(pixels, axis=None) == np.sort(own[name], axis=None)).all()
        assert (pixels != own[name]).any()
    sides = [tile_side(own[name], pixels) for name, pixels in zip(shown.ids, shown.images, strict=True)]
    assert {side: sides.count(side) for side in (8, 4, 2)} == {8: 10, 4: 10, 2: 10}
    pairs = list(zip(sides, shown.labels.tolist(), strict=True))
    assert {pairs.count((side, label)) for side in (8, 4, 2) for label in range(3)} == {3, 4}  # ten of a class on three levels
    again = shared_out(shop, "scramble", "train", images, levels)
    assert (again.images == shown.images).all()

    trained, validated = training_images(shop, ceilings(GATED, probe_sets)[0])
    assert (trained.images == shown.images).all()
    assert {tile_side(own[name], pixels) for name, pixels in zip(validated.ids, validated.images, strict=True)} == {4}
    assert validated.ids.tolist() == images.ids[:6].tolist()


def test_the_noise_of_a_training_image_says_nothing_of_a_test_image(images: ImageSet, tmp_path: Path) -> None:
    ordered = images.subset(np.argsort(images.labels, kind="stable"))  # so that rows of training and test images have one class
    level = {"fraction": 1.0, "sigma": 50.0}
    tested = build_probe_set("localized_noise", ordered, levels=[level], draws=1, seed=0, folder=tmp_path).images(0, 0)
    shop: Any = SimpleNamespace(
        config=parse_study(GATED), store=tmp_path / "store", progress=Progress(quiet=True), splits=None, device=None
    )
    shown = {split: probed(shop, "localized_noise", split, ordered, level).images for split in ("train", "validation")}
    for noise in ((shown["train"], shown["validation"]), (shown["train"], tested.images), (shown["validation"], tested.images)):
        # Black and white dots, nearly: of two independent pictures about half the values agree.
        assert 0.4 < np.mean((noise[0] < 128) == (noise[1] < 128)) < 0.6
    near = np.abs(tested.images[:, None].astype(int) - shown["train"][None]).sum((2, 3, 4)).argmin(1)
    assert np.mean(ordered.labels[near] == tested.labels) < 0.7  # three classes; the leak made it 1


def test_a_probe_of_which_nothing_would_be_seen_is_refused_in_a_sentence(images: ImageSet, tmp_path: Path) -> None:
    seen = {"silhouette": SimpleNamespace(kept_index=np.array([3, 5]))}
    shop: Any = SimpleNamespace(probe_sets=seen, probed_rows=np.array([0, 1]), splits=SimpleNamespace(test=images))
    with pytest.raises(ImageError, match=r"can treat 2 of the 30 test images, and none of these is among the 2 that are to be probed"):
        refuse_unseen_probes(shop)
    shop.probed_rows = np.array([0, 3])
    refuse_unseen_probes(shop)


def test_masks_of_the_test_images_alone_leave_the_ceiling_out_before_training(images: ImageSet, tmp_path: Path) -> None:
    from PIL import Image

    folder = tmp_path / "masks"
    folder.mkdir()
    Image.new("L", (16, 16), 255).save(folder / "image 0.png")
    config = parse_study(GATED.replace("probes: [", f"probes: [{{name: silhouette, masks: '{folder}'}}, "))
    others = ImageSet(images.images, images.labels, np.array([f"other {i}" for i in range(30)]), images.class_names)
    splits: Any = SimpleNamespace(train=others, validation=images)
    reasons = without_masks(config, splits)
    assert list(reasons) == ["silhouette"]
    assert reasons["silhouette"].startswith("no masks for the training images")
    assert without_masks(config, SimpleNamespace(train=images, validation=images)) == {}  # type: ignore[arg-type]
    found = possible_ceilings(config, KeyMaker(config, "images", torch.device("cpu")), scrambled(images, tmp_path, 2), ["scramble"])
    assert found == ()


def test_a_kill_in_a_ceiling_leaves_tables_and_a_true_page(
    gated: Path, command: Callable[..., int], tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException): ...

    def kill(*arguments: Any) -> None:
        raise Killed

    monkeypatch.setattr(CeilingSchedule, "announced", kill)  # as the first of them begins
    out = tmp_path / "out"
    with pytest.raises(Killed):
        run_study(parse_study(GATED), out, store=tmp_path / "store", device=torch.device("cpu"), progress=Progress(quiet=True))
    assert gate_of(out)["localized_noise", DROWNED] == "not run"
    assert "gate not run" in (out / "report.html").read_text(encoding="utf-8")
    found = states(command, out, capsys)
    assert (found[CEILING], found[ALONE], found[NEVER]) == ("waiting", "waiting", "not needed")


def test_a_waiting_ceiling_is_not_needed_where_its_level_passed_or_nobody_could_pass() -> None:
    task = {"probe": "hue", "level": "a"}
    assert _is_decided(task, {("hue", "a"): "passed", ("hue", "b"): "not run"}, trained=True)
    assert not _is_decided({**task, "level": None}, {("hue", "a"): "passed", ("hue", "b"): "not run"}, trained=True)
    assert _is_decided(task, {("hue", "a"): "failed"}, trained=False)  # the largest class leaves too little to all images
    assert not _is_decided(task, {("hue", "a"): "failed"}, trained=True)  # the next student may pass
    assert not _is_decided(task, {}, trained=False)


def tile_side(image: np.ndarray, scrambled: np.ndarray) -> int:
    """The side of the largest first tile that stands whole in the image, on its grid."""

    def holds(side: int) -> bool:
        corners = [(y, x) for y in range(0, 16, side) for x in range(0, 16, side)]
        return any((image[:, y : y + side, x : x + side] == scrambled[:, :side, :side]).all() for y, x in corners)

    return next(side for side in (8, 4, 2) if holds(side))
