"""Golden values: losses and gradients that the authors' own code gave on fixed inputs (tests/goldens/), and how closely ours must agree."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

GOLDENS = Path(__file__).parent.parent / "goldens"
SUFFIX = {torch.float64: "f64", torch.float32: "f32"}
# Relative to the largest entry of the reference: float64 leaves only the order of summation, float32 its 24 bits over long sums.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-4}


class Golden:
    """One file of golden values, read at one precision."""

    def __init__(self, name: str, dtype: torch.dtype) -> None:
        self.arrays = dict(np.load(GOLDENS / f"{name}.npz"))
        self.dtype = dtype

    def input(self, name: str, *, grad: bool = False) -> Tensor:
        """An input array as a fresh tensor: floating point at this precision, integers as they are."""
        values = torch.from_numpy(self.arrays[name])
        return values.to(self.dtype).requires_grad_(grad) if values.is_floating_point() else values

    def setting(self, name: str) -> Any:
        """A hyper-parameter, as a plain number or text."""
        return self.arrays[name].item()

    def expected(self, name: str) -> Tensor:
        """What the reference gave at this precision."""
        return torch.from_numpy(self.arrays[f"{name}__{SUFFIX[self.dtype]}"])

    def check(self, name: str, value: Tensor | None) -> None:
        """Assert that `value` is what the reference gave."""
        expected = self.expected(name)
        assert value is not None, f"{name}: no value (a gradient that was never computed?)"
        assert value.shape == expected.shape, f"{name}: {tuple(value.shape)}, the reference has {tuple(expected.shape)}"
        if not expected.is_floating_point():
            assert torch.equal(value, expected), name
            return
        assert value.dtype == self.dtype, f"{name}: computed in {value.dtype}"
        error = (value.detach() - expected).abs().max() / expected.abs().max().clamp(min=torch.finfo(self.dtype).tiny)
        assert error <= TOLERANCE[self.dtype], f"{name}: off by {float(error):.1e} of its largest entry"


@pytest.fixture(params=[torch.float64, torch.float32], ids=["float64", "float32"])
def golden(request: pytest.FixtureRequest) -> Callable[[str], Golden]:
    """Opens a golden file: `golden("kd")`, once in float64 and once in float32."""
    return lambda name: Golden(name, request.param)
