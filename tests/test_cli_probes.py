"""The commands `crossdistill probes build` and `preview`, and the probes of `evaluate`."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from crossdistill.core.config import core_probes


@pytest.fixture
def photos(tmp_path: Path) -> str:
    random = np.random.default_rng(0)
    for name, level in (("dark", 40), ("light", 200)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(30):
            pixels = np.clip(level + random.integers(-30, 30, (32, 32, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{i}.png")
    return f"folder:{tmp_path / 'photos'}"


def test_a_set_is_built_with_a_format_inside(command: Any, capsys: Any, photos: str, tmp_path: Path) -> None:
    arguments = [
        "--images",
        photos,
        "--probes",
        "scramble,superpixel",
        "--preset",
        "quick",
        "--format",
        "png-zip",
        "--out",
        tmp_path / "sets",
    ]
    assert command("probes", "build", *arguments) == 0
    output = capsys.readouterr()
    folders = [Path(line) for line in output.out.splitlines()]
    assert [folder.name for folder in folders] == ["png-zip", "png-zip"]
    assert [folder.parent.name.split("-")[0] for folder in folders] == ["scramble", "superpixel"]
    assert (folders[0] / "level01-draw00.zip").exists()
    assert "scramble: 2 levels, 1 draws, 12 images" in output.err


def test_a_preview_is_a_picture_of_each_probe_and_builds_nothing(command: Any, capsys: Any, photos: str, tmp_path: Path) -> None:
    assert command("probes", "preview", "--images", photos, "--probes", "scramble, hue", "--rows", 2, "--out", tmp_path / "look") == 0
    assert [Path(line) for line in capsys.readouterr().out.splitlines()] == [
        tmp_path / "look" / f"{name}.png" for name in ("scramble", "hue")
    ]
    assert sorted(path.name for path in (tmp_path / "look").iterdir()) == ["hue.png", "scramble.png"]
    assert command("probes", "preview", "--images", photos, "--probes", "scramble", "--rows", 4, "--out", tmp_path / "one.png") == 0
    with Image.open(tmp_path / "look" / "scramble.png") as two, Image.open(tmp_path / "one.png") as four:
        assert two.width == four.width
        assert four.height - two.height == 2 * (96 + 6)  # two more rows of 32-px images, magnified three times


def test_every_core_probe_is_previewed_where_none_is_named(command: Any, photos: str, tmp_path: Path) -> None:
    assert command("probes", "preview", "--images", photos, "--preset", "quick", "--out", tmp_path / "look", "--quiet") == 0
    assert sorted(path.stem for path in (tmp_path / "look").iterdir()) == sorted(core_probes())


def test_masks_are_taken_from_the_folder_that_was_named(command: Any, capsys: Any, photos: str, tmp_path: Path) -> None:
    disc = np.hypot(*np.mgrid[-15.5:16, -15.5:16]) < 10
    for name in ("dark", "light"):
        (tmp_path / "masks" / name).mkdir(parents=True)
        for i in range(0, 30, 2):
            Image.fromarray((disc * 255).astype(np.uint8)).save(tmp_path / "masks" / name / f"{i}.png")
    arguments = ["--images", photos, "--probes", "silhouette", "--out", tmp_path / "sets", "--quiet"]
    assert command("probes", "build", *arguments, "--masks", tmp_path / "masks") == 0
    manifest = json.loads((Path(capsys.readouterr().out.strip()) / "manifest.json").read_text())
    assert 0 < manifest["n_kept"] < manifest["n_images"] == 12, "images without a mask are dropped"
    assert manifest["supplies"]["masks"]["kind"] == "folder"
    assert command("probes", "build", *arguments, "--masks", tmp_path / "nowhere") == 2
    assert "masks cannot come from" in capsys.readouterr().err


def test_all_probes_are_those_that_the_images_allow(command: Any, capsys: Any, photos: str, tmp_path: Path, monkeypatch: Any) -> None:
    from crossdistill.study import probes

    monkeypatch.setattr(probes, "chosen_probes", lambda text: ["scramble", "texture_swap"])
    arguments = ["--images", photos, "--preset", "quick", "--out", tmp_path / "look"]
    assert command("probes", "preview", *arguments, "--probes", "all") == 0
    output = capsys.readouterr()
    assert output.out.splitlines() == [str(tmp_path / "look" / "scramble.png")]
    assert "left out: texture_swap needs images that their source can draw" in output.err
    assert command("probes", "preview", *arguments, "--probes", "texture_swap") == 2


@pytest.fixture
def two_probes(monkeypatch: Any) -> None:
    """`all` stands for two probes, one of which folders of photographs cannot be given to."""
    from crossdistill.study import probes

    monkeypatch.setattr(probes, "chosen_probes", lambda text: ["texture_swap", "silhouette"] if text == "all" else [text])


def test_what_is_left_out_is_told_however_quiet(command: Any, capsys: Any, photos: str, tmp_path: Path, two_probes: None) -> None:
    arguments = ["--images", photos, "--preset", "quick", "--out", tmp_path / "look", "--probes", "all", "--quiet"]
    masks = tmp_path / "masks" / "dark"
    masks.mkdir(parents=True)
    disc = np.hypot(*np.mgrid[-15.5:16, -15.5:16]) < 10
    for i in range(30):
        Image.fromarray((disc * 255).astype(np.uint8)).save(masks / f"{i}.png")
    assert command("probes", "preview", *arguments, "--masks", masks.parent) == 0
    output = capsys.readouterr()
    assert output.out.splitlines() == [str(tmp_path / "look" / "silhouette.png")]
    assert output.err.startswith("left out: texture_swap needs images that their source can draw")
    assert len(output.err.splitlines()) == 1


@pytest.mark.parametrize("masks", ["nowhere", "empty", "damaged"])
def test_a_mistake_in_what_was_named_is_told_with_all_too(
    command: Any, capsys: Any, photos: str, tmp_path: Path, two_probes: None, masks: str
) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("dark", "light"):
        (tmp_path / "damaged" / name).mkdir(parents=True)
        for i in range(30):
            (tmp_path / "damaged" / name / f"{i}.png").write_bytes(b"no picture")
    message = {"nowhere": "masks cannot come from", "empty": "holds no mask for any of", "damaged": "cannot be read"}[masks]
    arguments = ["--images", photos, "--out", tmp_path / "sets", "--probes", "all", "--quiet", "--masks", tmp_path / masks]
    assert command("probes", "build", *arguments) == 2
    assert message in capsys.readouterr().err


def test_a_damaged_set_is_told_with_all_too(command: Any, capsys: Any, photos: str, tmp_path: Path, monkeypatch: Any) -> None:
    from crossdistill.study import probes

    monkeypatch.setattr(probes, "chosen_probes", lambda text: ["hue"])
    arguments = ["--images", photos, "--preset", "quick", "--out", tmp_path / "sets", "--probes", "all", "--quiet"]
    assert command("probes", "build", *arguments) == 0
    (Path(capsys.readouterr().out.strip()) / "labels.npy").write_bytes(b"")
    assert command("probes", "build", *arguments) == 2
    assert "labels.npy is not what was built" in capsys.readouterr().err


def test_a_network_named_twice_is_refused(command: Any, capsys: Any, photos: str, tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "run").mkdir()
    file = tmp_path / "run" / "network.safetensors"
    file.touch()
    monkeypatch.chdir(tmp_path)
    for twins in (["small/vit", "small/vit"], [file, "run"], ["run", "./run/"]):
        assert command("evaluate", *twins, "--images", photos, "--out", tmp_path / "x") == 2
        assert "is named twice" in capsys.readouterr().err
    assert command("evaluate", "small/vit", "--images", photos, "--out", tmp_path / "x", "--masks", "grabcut") == 2
    assert "--masks grabcut is for" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["build", "--probes", "scramb"], "Did you mean 'scramble'?"),
        (["build", "--probes", ","], "no probe is named in ','"),
        (["build", "--preset", "ful"], "no preset is called 'ful'. Did you mean 'full'?"),
        (["build", "--format", "zip"], "no format is called 'zip'. Did you mean 'png-zip'?"),
        (["build", "--workers", "0"], "Invalid value for '--workers'"),
        (["preview", "--probes", "scramble,hue", "--out", "x.png"], "x.png is one file for 2 probes: name a folder, or one probe"),
        (["preview", "--rows", "0"], "Invalid value for '--rows'"),
        (
            ["build", "--probes", "scramble", "--masks", "x"],
            "--masks x is for cue_conflict, silhouette, and none of them is among the probes",
        ),
        (["preview", "--encoder", "x"], "--encoder x is for stylized"),
        (["preview", "--probes", "stylized", "--encoder", "gone.safetensors"], "gone.safetensors"),
        (["preview", "--probes", "stylized", "--styles", "nowhere", "--encoder", "small/vgg"], "nowhere"),
    ],
)
def test_what_the_user_can_mend_is_one_message_and_exit_code_2(
    command: Any, capsys: Any, photos: str, tmp_path: Path, arguments: list[str], message: str
) -> None:
    out = [] if "--out" in arguments else ["--out", tmp_path / "x"]
    assert command("probes", *arguments, "--images", photos, *out) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "x").exists()


def test_ctrl_c_ends_with_130_and_the_same_command_goes_on(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for name in ("one", "two"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(50):
            Image.fromarray(random.integers(0, 256, (128, 128, 3), np.uint8)).save(tmp_path / "photos" / name / f"{i}.png")
    environment = {**os.environ, "CROSSDISTILL_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    arguments = ["--images", f"folder:{tmp_path / 'photos'}", "--probes", "superpixel", "--out", tmp_path / "sets", "--workers", "1"]
    line = [sys.executable, "-m", "crossdistill", "probes", "build", *map(str, arguments)]
    stopped = subprocess.Popen(line, env=environment, stderr=subprocess.PIPE, text=True)
    for _ in range(3000):
        if any(journal.stat().st_size for journal in (tmp_path / "sets").glob(".superpixel-*.part/journal.jsonl")):  # one of eight blocks
            break
        time.sleep(0.02)
    stopped.send_signal(signal.SIGINT)
    assert "the same command goes on from there" in stopped.communicate(timeout=60)[1]
    assert stopped.returncode == 130
    assert not list((tmp_path / "sets").glob("superpixel-*"))
    ended = subprocess.run(line, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert "probe superpixel: going on with what" in ended.stderr
    assert Path(ended.stdout.strip()).is_dir()
