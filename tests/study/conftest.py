"""A study that trains in seconds, its own cache, and the command line in this process."""

from pathlib import Path
from typing import Any

import pytest

from crossdistill.study import pass_trials, trials
from crossdistill.study.trials import Trial

TINY = """\
name: tiny
images: {source: trifeature, n_values: 2, n_train: 160, n_test: 60, n_conflict: 40, side: 16}
networks:
  vit: {model: small/vit, width: 16, depth: 1, heads: 2}
  cnn: {model: small/resnet8}
teachers: {runs: 1, epochs: 2}
pairs:
  - {teacher: vit, student: cnn, methods: [kd]}
seeds: [0, 1]
training: {epochs: 2, batch_size: 16, threads: 1, precision: fp32}
probes: [{name: scramble, levels: [{grid: 2}, {grid: 4}, {grid: 8}]}, localized_noise]
signal_gate: off
observe: {instruments: []}
"""


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """One cache for all tests of a worker: teachers and images are made once."""
    cache = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("CROSSDISTILL_CACHE", str(cache))


SPEEDS = {"images_per_second": 100.0, "rows_per_second": 100.0, "seconds": 1.0, "seconds_per_image": 0.5}


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Trials of `study plan` that take no time, and which of them were made."""
    made: list[str] = []

    def replaced(module: Any, name: str) -> None:
        def trial(*_: Any, **__: Any) -> Trial:
            made.append(name)
            return Trial("20 steps", SPEEDS)

        monkeypatch.setattr(module, f"{name}_trial", trial)

    for name in ("training", "warm_up", "encoder"):
        replaced(trials, name)
    for name in ("answer", "observation", "instrument", "probe"):
        replaced(pass_trials, name)
    return made
