"""Networks that exist already: profiles and pairs of them, with what a study would have measured."""

from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from crossdistill.compare import ObservedRun, read_table
from crossdistill.core.records import PairRow, ResultRow
from crossdistill.images._splits import load_splits
from crossdistill.models._build import build_network, load_network, save_network
from crossdistill.observe import observe
from crossdistill.study import evaluate
from crossdistill.study.temperature import temperature

NAMES = ("a", "b", "c", "d")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes of 16 x 16 pixels, dark and light ones, 150 images each; 24 of all are validation images."""
    random = np.random.default_rng(0)
    for name, level in (("dark", 100), ("light", 150)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(150):
            pixels = np.clip(level + random.normal(0, 40) + random.normal(0, 30, (16, 16, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{i}.png")
    return tmp_path / "photos"


@pytest.fixture
def networks(tmp_path: Path) -> list[Path]:
    """Untrained ones: what they answer differs, which is all that is needed here."""
    found = []
    for seed, name in enumerate(NAMES):
        torch.manual_seed(seed)
        path = tmp_path / f"{name}.safetensors"
        save_network(build_network("small/resnet8", 2, (16, 16)), path, class_names=["dark", "light"])
        found.append(path)
    return found


def test_profiles_pairs_temperatures_and_measurements(
    photos: Path, networks: list[Path], command: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    seen: list[ObservedRun] = []
    write = evaluate.evaluated
    monkeypatch.setattr(evaluate, "evaluated", lambda runs, out: seen.extend(runs) or write(runs, out))
    out = tmp_path / "profiles"
    assert command("evaluate", *networks, "--images", f"folder:{photos}", "--out", out, "--probes", "scramble", "--quiet") == 0
    assert capsys.readouterr().out.splitlines()[-2:] == [str(out / "results.parquet"), str(out / "pairs.parquet")]

    validation = load_splits("folder", {"path": str(photos)}).validation
    assert [run.record.run for run in seen] == list(NAMES)
    for run, path in zip(seen, networks, strict=True):
        assert run.record.estimates["temperature"] == temperature(observe(load_network(path), validation, split="validation"))
        assert run.record.estimates["temperature"].n == len(validation) == 24
        assert {"features", "receptive_field"} <= run.measured.keys()

    results = read_table(out / "results.parquet", ResultRow)
    assert {row.run for row in results if row.metric == "js_invariance" and row.probe == "scramble"} == set(NAMES)
    pairs = read_table(out / "pairs.parquet", PairRow)
    assert {(row.a, row.b) for row in pairs} == set(combinations(NAMES, 2))
    assert {row.probe for row in pairs} == {"clean", "scramble"}
    assert "error_consistency" in {row.metric for row in pairs}


def test_one_network_has_no_pairs(photos: Path, networks: list[Path], command: Callable[..., int], tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "profile"
    assert command("evaluate", networks[0], "--images", f"folder:{photos}", "--out", out, "--probes", "hue", "--quiet") == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(out / "results.parquet")
    assert read_table(out / "pairs.parquet", PairRow) == []
