"""Chance-corrected share of clean accuracy that survives a probe: (probe - chance) / (clean - chance), behind an accuracy gate."""

import numpy as np

from crossdistill.core.registry import metric
from crossdistill.core.types import Estimate
from crossdistill.metrics._answers import not_empty, per_image
from crossdistill.metrics._gates import accuracy_gate
from crossdistill.stats import paired_bootstrap


def chance_corrected_ratio(probe: np.ndarray, clean: np.ndarray, chance: float) -> np.ndarray:
    """(probe - chance) / (clean - chance), NaN where clean accuracy is not above chance; not clipped."""
    above = np.asarray(clean - chance)
    return np.divide(probe - chance, above, out=np.full(above.shape, np.nan), where=above > 0)


@metric(source="effective accuracy above chance, as in Cohen's kappa", unit="retention")
def retention(probe_correct: np.ndarray, clean_correct: np.ndarray, *, chance: float) -> Estimate:
    """Probe accuracy above chance divided by clean accuracy above chance; 1: nothing lost, 0: down to chance. Not clipped.

    `probe_correct` [images] or [draws, images] and `clean_correct` [images] are right or wrong on the same images. Not
    measurable unless the lower 95 % bound of clean - chance exceeds 0.1 (1 - chance), nor where chance is 1. Interval: percentile bootstrap
    over images, the same resampled images for both; it has no width where both are right on every image.

    >>> clean = np.repeat([True, False], [90, 10])
    >>> probe = np.repeat([True, False], [50, 50])
    >>> round(retention(probe, clean, chance=0.1).value, 3)  # (0.5 - 0.1) / (0.9 - 0.1)
    0.5
    """
    probe, clean = per_image(not_empty(np.asarray(probe_correct), "probe_correct")), np.asarray(clean_correct, dtype=bool)
    if probe.shape != clean.shape:
        raise ValueError(f"probe_correct and clean_correct must cover the same images, got {len(probe)} and {clean.shape}")
    if not 0 <= chance <= 1:
        raise ValueError(f"chance must be a share, 0 to 1, got {chance}")
    if chance == 1:  # a probe may leave images of one class only
        refusal = "all images have one class: a constant answer is always right, so that nothing can be above chance"
        return Estimate.not_measurable(refusal, n=len(clean), unit="retention")
    if refusal := accuracy_gate(clean, chance):
        return Estimate.not_measurable(refusal, n=len(clean), unit="retention")
    value = float(chance_corrected_ratio(probe.mean(), clean.mean(), chance))
    low, high = paired_bootstrap(
        np.stack([probe, clean], axis=1), lambda means: chance_corrected_ratio(means[:, 0], means[:, 1], chance), "retention"
    )
    return Estimate(value, min(low, value), max(high, value), n=len(clean), unit="retention")
