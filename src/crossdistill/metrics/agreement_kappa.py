"""Invariance without labels: agreement of the answers before and after a change, corrected for chance (Cohen's kappa, 1960)."""

import math

import numpy as np

from crossdistill.core.registry import metric
from crossdistill.core.types import Estimate
from crossdistill.metrics._answers import as_decisions, per_image, same, share
from crossdistill.metrics._marginals import class_shares, coded
from crossdistill.stats import mean_interval

ROUNDING = 1e-12  # a chance level is a sum of shares


@metric(source="Cohen, Educational and Psychological Measurement 1960", unit="kappa")
def agreement_kappa(clean_decisions: np.ndarray, probe_decisions: np.ndarray) -> Estimate:
    """(A - A0) / (1 - A0): 1 where no answer changes, 0 where answers agree as often as blind ones with the same class shares would.

    The answers to the same images before and after a change: integers or text, [images] or [draws, images] (draws of the change, or of
    both); floating logits, with a last axis of classes, are taken as well. A is the mean agreement, draws averaged inside an image
    first; A0 = sum over classes of q q', with q and q' the class's share among the answers before and after, in each draw, then
    averaged. A constant answer agrees always and proves nothing: 0 / 0, not measurable. Interval over images: 1 - kappa is the ratio
    of observed to chance disagreement, so Student's t is taken on its logarithm (to first order the law of resampled images, and
    never above 1); where no answer changes, Wilson's lower bound of A takes its place.

    >>> before = np.array([0, 0, 1, 1])
    >>> agreement_kappa(before, np.array([0, 0, 1, 0])).value  # A = 3/4, A0 = 1/2 * 3/4 + 1/2 * 1/4 = 1/2
    0.5
    """
    before, after = np.atleast_2d(as_decisions(clean_decisions)), np.atleast_2d(as_decisions(probe_decisions))
    if len(before) not in (1, len(after)):
        raise ValueError(f"clean_decisions must have one draw or those of probe_decisions, got {len(before)} and {len(after)}")
    agrees, n = per_image(same(after, before)), before.shape[1]
    expected = _agreement_by_chance(before, after)
    agreement, chance = float(agrees.mean()), float(expected.mean()) / 2
    if chance > 1 - ROUNDING:
        return Estimate.not_measurable("every answer is the same class, so that agreement proves nothing", n=n, unit="kappa")
    kappa = (agreement - chance) / (1 - chance)
    if agreement > 1 - ROUNDING:
        lowest = share(np.ones(n, dtype=bool)).low
        assert lowest is not None
        return Estimate(1.0, (lowest - chance) / (1 - chance), 1.0, n=n, unit="kappa")
    if n < 2:
        return Estimate.not_measurable("agreement on 1 image has no interval", n=n, unit="kappa")
    # First-order influence of an image on log((1 - A) / (1 - A0)).
    influence = (expected - 2 * chance) / (1 - chance) - (agrees - agreement) / (1 - agreement)
    low, high = mean_interval(math.log1p(-kappa) + influence)
    return Estimate(kappa, -math.expm1(high), -math.expm1(low), n=n, unit="kappa")


def _agreement_by_chance(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """How often each image's two answers are given to other images, q'(its answer before) + q(its answer after); the mean is 2 A0."""
    (before, after), n_classes = coded(before, after)
    shares = np.stack([class_shares(draw, n_classes) for draw in before])
    shares_after = np.stack([class_shares(draw, n_classes) for draw in after])
    draws, draws_before = np.arange(len(after)), np.arange(len(after)) % len(before)  # all zero where there is one draw before
    of_draws = shares_after[draws[:, None], before[draws_before]] + shares[draws_before[:, None], after]
    return of_draws.mean(axis=0)
