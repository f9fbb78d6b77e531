"""The raw ratio probe / clean accuracy that earlier work printed. Not to be trusted; kept so that readers can compare."""

import numpy as np

from crossdistill.core.registry import metric
from crossdistill.core.types import Estimate
from crossdistill.metrics._answers import NOT_TRUSTED, not_empty, per_image


@metric(source="the project that this one grew from", unit=NOT_TRUSTED)
def seed_ratio(probe_correct: np.ndarray, clean_correct: np.ndarray) -> Estimate:
    """Probe accuracy divided by clean accuracy, without chance, gate or interval: NOT TO BE TRUSTED, for the record only.

    A network that always gives the same answer scores a perfect 1. Use `retention`. It has no interval on purpose, so that
    nobody takes it for a measurement, and no conclusion is drawn from it.

    >>> seed_ratio(np.array([True, False]), np.array([True, True])).value
    0.5
    """
    probe, clean = per_image(not_empty(np.asarray(probe_correct), "probe_correct")), per_image(clean_correct)
    if probe.shape != clean.shape:
        raise ValueError(f"probe_correct and clean_correct must cover the same images, got {len(probe)} and {len(clean)}")
    if not clean.any():
        return Estimate.not_measurable("no clean image was answered rightly: the ratio divides by zero", n=len(clean), unit=NOT_TRUSTED)
    return Estimate(float(probe.mean() / clean.mean()), n=len(clean), unit=NOT_TRUSTED)
