"""Metrics applied by name: each says with its parameters what it reads, and is applied wherever all of that exists."""

import inspect
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from crossdistill.core import registry
from crossdistill.core.types import Estimate


@dataclass(frozen=True)
class Reader:
    """A metric's function, the inputs it cannot do without, and all that it knows what to do with."""

    function: Callable[..., Any]
    needed: frozenset[str]
    known: frozenset[str]


def applicable(inputs: Collection[str]) -> set[str]:
    """The names of the metrics all of whose inputs are there."""
    return {name for name, reader in _readers().items() if reader.needed <= set(inputs)}


def needed_by(metric: str) -> frozenset[str]:
    """The inputs that a metric cannot do without."""
    return _readers()[metric].needed


def figures_of(metric: str, inputs: Mapping[str, Any]) -> dict[str, Estimate]:
    """What a metric makes of the inputs: one figure under its own name, several as `metric_figure`. Raises ValueError for NaN."""
    reader = _readers()[metric]
    result = reader.function(**{name: value for name, value in inputs.items() if name in reader.known})
    figures = {metric: result} if isinstance(result, Estimate) else {f"{metric}_{figure}": e for figure, e in result.items()}
    for name, estimate in figures.items():
        if any(math.isnan(number) for number in (estimate.value, estimate.low, estimate.high) if number is not None):
            raise ValueError(f"metric '{name}' returned NaN; return Estimate.not_measurable with the reason instead")
    return figures


@cache
def _readers() -> dict[str, Reader]:
    return {name: _reader(registry.get("metric", name).function) for name in registry.names("metric")}


def _reader(function: Callable[..., Any]) -> Reader:
    parameters = inspect.signature(function).parameters.values()
    return Reader(function, frozenset(p.name for p in parameters if p.default is p.empty), frozenset(p.name for p in parameters))
