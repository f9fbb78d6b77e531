"""Metrics applied by name: each says with its parameters what it reads, and is applied wherever all of that exists.

An input that ought to exist and does not stands as `Unavailable`, with the reason: what reads it is then not measurable, not missing.
"""

import inspect
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from crossdistill.core import registry
from crossdistill.core.types import Estimate


@dataclass(frozen=True)
class Unavailable:
    """In place of an input: why it is not there."""

    reason: str


@dataclass(frozen=True)
class Reader:
    """A metric's function, the inputs it cannot do without, all that it knows what to do with, and the unit that its decorator names."""

    function: Callable[..., Any]
    needed: frozenset[str]
    known: frozenset[str]
    unit: str


def applicable(inputs: Collection[str]) -> set[str]:
    """The names of the metrics all of whose inputs are there."""
    return {name for name, reader in _readers().items() if reader.needed <= set(inputs)}


def needed_by(metric: str) -> frozenset[str]:
    """The inputs that a metric cannot do without."""
    return _readers()[metric].needed


def figures_of(metric: str, inputs: Mapping[str, Any]) -> dict[str, Estimate]:
    """What a metric makes of the inputs: one figure under its own name, several as `metric_figure`. Raises ValueError for NaN.

    Where an input that it knows is `Unavailable`, even one that it could do without, its one figure is not measurable for that reason.
    """
    reader = _readers()[metric]
    read = {name: value for name, value in inputs.items() if name in reader.known}
    if lacking := next((value for value in read.values() if isinstance(value, Unavailable)), None):
        return {metric: Estimate.not_measurable(lacking.reason, unit=reader.unit)}
    result = reader.function(**read)
    figures = {metric: result} if isinstance(result, Estimate) else {f"{metric}_{figure}": e for figure, e in result.items()}
    for name, estimate in figures.items():
        if any(math.isnan(number) for number in (estimate.value, estimate.low, estimate.high) if number is not None):
            raise ValueError(f"metric '{name}' returned NaN; return Estimate.not_measurable with the reason instead")
    return figures


@cache
def _readers() -> dict[str, Reader]:
    plugins = [registry.get("metric", name) for name in registry.names("metric")]
    return {plugin.name: _reader(plugin.function, plugin.facts["unit"]) for plugin in plugins}


def _reader(function: Callable[..., Any], unit: str = "") -> Reader:
    parameters = inspect.signature(function).parameters.values()
    return Reader(function, frozenset(p.name for p in parameters if p.default is p.empty), frozenset(p.name for p in parameters), unit)
