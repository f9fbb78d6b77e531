"""How much of the image the centre of the last map really depends on (Luo et al., NeurIPS 2016, arXiv 1701.04128)."""

from functools import partial

import numpy as np

from crossdistill.core.registry import metric
from crossdistill.core.types import Estimate
from crossdistill.metrics._answers import finite, not_empty
from crossdistill.stats import paired_bootstrap

SHARES = {"side_50": 0.5, "side_99": 0.99}


@metric(source="Luo et al., NeurIPS 2016", unit="share of the side")
def effective_receptive_field(receptive_field: np.ndarray) -> dict[str, Estimate]:
    """`side_50`, `side_99`: the side, 0 to 1 of the image's, of the smallest centred square with 50 and 99 % of the mean gradient's mass.

    `receptive_field` is what the instrument of that name gave: [images, sides], the mass inside centred squares whose sides run
    evenly from 0 to 1, or [draws, images, sides]: draws are averaged inside an image first. The gradient is averaged over images
    before it is measured, so that images count by their gradient. Interval: percentile bootstrap over images. A gradient spread
    evenly over the image gives the square roots of 0.5 and 0.99.

    >>> even = np.linspace(0, 1, 257) ** 2
    >>> {name: round(e.value, 3) for name, e in effective_receptive_field(np.stack([even, even])).items()}
    {'side_50': 0.707, 'side_99': 0.995}
    """
    mass = finite(not_empty(np.asarray(receptive_field, dtype=np.float64), "receptive_field"), "receptive_field")
    if mass.ndim not in (2, 3):
        raise ValueError(f"receptive_field must be [images, sides], after draws where there are several, got {mass.shape}")
    mass = mass.mean(axis=0) if mass.ndim == 3 else mass
    return {name: _side(mass, name, share) for name, share in SHARES.items()}


def sides_holding(mass: np.ndarray, share: float) -> np.ndarray:
    """The side of the smallest square that holds `share` of all mass, for each row of [rows, sides]; NaN where there is no mass."""
    wanted = share * mass[:, -1:]
    after = np.minimum((mass < wanted).sum(axis=1), mass.shape[1] - 1)
    row = np.arange(len(mass))
    below, above = mass[row, after - 1], mass[row, after]
    steps = np.divide(wanted[:, 0] - below, above - below, out=np.full(len(mass), np.nan), where=above > below)
    return (after - 1 + steps) / (mass.shape[1] - 1)


def _side(mass: np.ndarray, name: str, share: float) -> Estimate:
    value = float(sides_holding(mass.mean(axis=0, keepdims=True), share)[0])
    if np.isnan(value):
        return Estimate.not_measurable("the centre of the last map depends on no pixel", n=len(mass), unit="share of the side")
    if len(mass) == 1:
        return Estimate(value, n=1, unit="share of the side")
    low, high = paired_bootstrap(mass, partial(sides_holding, share=share), "effective_receptive_field", name)
    return Estimate(value, min(low, value), max(high, value), n=len(mass), unit="share of the side")
