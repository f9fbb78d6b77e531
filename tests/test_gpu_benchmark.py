"""The benchmark for a GPU machine, where there is none: it says so, and its dry run goes through."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    import gpu  # type: ignore[import-not-found]

    return gpu


def test_without_a_gpu_it_says_so_and_ends_with_code_2(
    gpu: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    assert gpu.main() == 2
    assert "needs a CUDA device" in capsys.readouterr().out


def test_its_dry_run_gives_every_figure_of_a_step(gpu: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--dry-run", "--only", "large"])
    assert gpu.main() == 0
    row = json.loads(capsys.readouterr().out)["large"]
    assert row["images_per_second"] == pytest.approx(8 / (row["milliseconds"] / 1e3))
    assert row["operations_per_step"] > 8 * 3 * 2e6  # three passes of the student's and more, over 2 million operations an image each
    assert row["fraction_of_peak"] is None  # of a CPU, whose peak nobody said


def test_a_card_is_known_by_name_and_any_other_by_what_is_given(gpu: Any) -> None:
    assert gpu.known_peak("NVIDIA H200", None) == 989e12
    assert gpu.known_peak("NVIDIA H200", 500.0) == 500e12
    assert gpu.known_peak("another", None) is None
