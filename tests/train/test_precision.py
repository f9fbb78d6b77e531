"""Kernels with a fixed order of sums: on a GPU where they are asked for, and nowhere else."""

import os
from collections.abc import Iterator

import pytest
import torch

from crossdistill.train.precision import DETERMINISTIC, settle_kernels


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")  # what the test sets is taken away with it
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize(
    ("device", "asked", "settled"), [("cuda", "1", True), ("cuda", "0", False), ("cuda", "", False), ("cpu", "1", False)]
)
def test_a_gpu_is_held_to_fixed_sums_where_that_is_asked_for(
    device: str, asked: str, settled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DETERMINISTIC, asked)
    settle_kernels(torch.device(device))
    assert torch.are_deterministic_algorithms_enabled() == settled
    assert os.environ.get("CUBLAS_WORKSPACE_CONFIG") == (":4096:8" if settled else None)
