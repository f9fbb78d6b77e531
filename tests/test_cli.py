"""The command line: exit codes, messages, and a start that imports nothing heavy."""

import importlib.util
import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest


@pytest.mark.parametrize("arguments", [["--help"], ["study", "run", "--help"], ["list", "methods"], ["list", "probes"]])
def test_help_and_list_import_nothing_heavy(arguments: list[str]) -> None:
    script = (
        "import sys\nfrom crossdistill.cli import main\n"
        f"sys.argv = ['crossdistill', *{arguments!r}]\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "heavy = {'torch', 'torchvision', 'timm', 'scipy', 'skimage', 'altair', 'duckdb'} & sys.modules.keys()\nassert not heavy, heavy"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("kind", ["methods", "probes", "metrics", "instruments", "models", "images"])
def test_every_plugin_is_listed_and_described(command: Any, capsys: Any, kind: str) -> None:
    assert command("list", kind, "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows
    assert all(row["summary"].endswith(".") for row in rows)
    for row in rows[:2] if kind == "methods" else rows:  # the gallery's test describes every method
        assert command("list", kind, row["name"], "--json") == 0
        assert json.loads(capsys.readouterr().out)["name"] == row["name"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["list", "method"], "no kind is called 'method'. Did you mean 'methods'?"),
        (["list", "methods", "kdd"], "no method is called 'kdd'. Did you mean 'kd'?"),
        (["study", "run", "nowhere.yaml", "--out", "x"], "cannot read the study file nowhere.yaml"),
        (["study", "status", "nowhere"], "nowhere holds no study"),
        (["report", "nowhere"], "nowhere holds no study"),
        (["evaluate", "small/nothing", "--images", "trifeature", "--out", "x"], "nothing"),
        (["evaluate", "gone.safetensors", "--images", "trifeature", "--out", "x"], "there is no network at gone.safetensors"),
        (["evaluate", "small/vit", "--images", "trifeature", "--out", "x", "--probes", "scramb"], "Did you mean 'scramble'?"),
        (["probes", "build", "--images", "trifeature", "--out", "x", "--probes", "nois"], "no probe is called 'nois'"),
        (["probes", "build", "--images", "folder:/nowhere", "--out", "x"], "/nowhere"),
        (
            [
                "distill",
                "--teacher",
                "small/vit",
                "--student",
                "small/resnet8",
                "--images",
                "trifeature",
                "--out",
                "x",
                "--method",
                "fitnets",
            ],
            "'fitnet'",
        ),
        (["doctor", "--jsn"], "No such option"),
    ],
)
def test_what_the_user_can_mend_is_one_message_and_exit_code_2(
    command: Any, capsys: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command(*arguments) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert "Traceback" not in errors


def test_the_doctor_names_versions_device_and_cache(command: Any, capsys: Any) -> None:
    assert command("doctor", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    extras = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {"python", "torch", "timm", "device", "precision auto", "cache folder"} <= facts.keys()
    assert {name.removeprefix("extra ") for name in facts if name.startswith("extra ")} == set(extras)


def test_the_doctor_says_how_to_get_an_extra(command: Any, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "onnxscript" else found(name, *rest))
    assert command("doctor", "--json") == 0
    assert json.loads(capsys.readouterr().out)["extra onnx"] == "missing onnxscript: pip install 'crossdistill[onnx]'"


def test_probe_sets_are_built_without_a_study(command: Any, capsys: Any, tmp_path: Path) -> None:
    assert (
        command("probes", "build", "--images", "trifeature", "--out", tmp_path, "--probes", "scramble", "--preset", "quick", "--quiet") == 0
    )
    folder = Path(capsys.readouterr().out.strip())
    assert folder.parent == tmp_path
    assert json.loads((folder / "manifest.json").read_text())["probe"] == "scramble"
    assert (folder / "preview.png").exists()


def test_distill_then_evaluate_what_came_out(command: Any, capsys: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = tmp_path / "photos"
    _two_classes(images)
    monkeypatch.setattr("crossdistill.study.execute.possible_ceilings", lambda *_: ())  # six more trainings, which test_gates looks at
    out = tmp_path / "out"
    arguments = ["--teacher", "small/vit", "--student", "small/resnet8", "--images", f"folder:{images}", "--epochs", 1]
    assert command("distill", *arguments, "--out", out, "--quiet") == 0
    student = next((out / "runs").glob("kd-*"))
    assert (
        command("evaluate", student, "--images", f"folder:{images}", "--out", tmp_path / "profile", "--probes", "scramble", "--quiet") == 0
    )
    shown = capsys.readouterr().out
    assert "scramble" in shown
    assert (tmp_path / "profile" / "results.parquet").exists()


def test_a_printed_table_cuts_no_name(capsys, monkeypatch) -> None:
    from crossdistill.cli_tables import print_table

    monkeypatch.setenv("COLUMNS", "40")
    print_table(("network", "figure"), [["resnet50-" + "x" * 60 + end, "accuracy"] for end in ("one", "two")])
    shown = "".join(capsys.readouterr().out.split())
    assert "…" not in shown
    assert "one" in shown
    assert "two" in shown


def _two_classes(folder: Path) -> None:
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    for name, level in (("dark", 40), ("light", 200)):
        (folder / name).mkdir(parents=True)
        for i in range(30):
            pixels = np.clip(level + random.integers(-30, 30, (16, 16, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
