"""Invariance of the whole prediction: 1 - E JS(p(x), p(tx)) / E JS(p(x), p(x')), JS in bits (Lin, IEEE Trans. Inf. Theory 1991)."""

import numpy as np

from crossdistill.core import seeds
from crossdistill.core.registry import metric
from crossdistill.core.types import Estimate
from crossdistill.metrics._answers import finite, not_empty
from crossdistill.metrics._temperature import probabilities
from crossdistill.stats import mean_interval

PAIRS = 100_000
"""About how many ordered pairs of images the spread between images is read from; all of them where there are no more than that."""

FEWEST_PARTNERS = 8
"""How many other images each image is paired with at least."""

LEAST_SPREAD = 1e-3
"""The spread between images, in bits, below which a network answers every image alike."""


def js_divergence(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Jensen-Shannon divergence in bits, 0 to 1, of probabilities over the last axis: H((p + q) / 2) - (H(p) + H(q)) / 2."""
    return np.maximum(_entropy((p + q) / 2) - (_entropy(p) + _entropy(q)) / 2, 0.0)  # rounding can leave -1e-16


def spread_between_images(p: np.ndarray) -> np.ndarray:
    """Each image's mean JS divergence from other images, in bits: [images, classes] -> [images]. Their mean estimates E JS(p(x), p(x')).

    The mean over all pairs has no shortcut (each pair takes an entropy of its own), so that an image meets those within `PAIRS` / images
    places of it, on a ring in a keyed random order of the sorted rows. That order does not depend on the order of the images; shifting
    the images as they come would pair those of one class where a source is sorted by class.
    """
    n = len(p)
    if n < 2:
        return np.zeros(n)  # there is no other image
    order = np.array(sorted(range(n), key=[row.tobytes() for row in p].__getitem__))[seeds.permutation(n, "js_invariance", "partners")]
    rows, entropies = p[order], _entropy(p[order])
    shifts = min(n - 1, max(FEWEST_PARTNERS, PAIRS // n))
    total = np.zeros(n)
    for shift in range(1, shifts + 1):
        partners = np.roll(rows, -shift, axis=0)
        divergence = np.maximum(_entropy((rows + partners) / 2) - (entropies + np.roll(entropies, -shift)) / 2, 0.0)
        total += divergence + np.roll(divergence, shift)  # a pair counts for both its images
    spread = np.empty(n)
    spread[order] = total / (2 * shifts)
    return spread


@metric(source="Lin, IEEE Transactions on Information Theory 1991", unit="share")
def js_invariance(
    clean_logits: np.ndarray, probe_logits: np.ndarray, clean_spread: np.ndarray | None = None, *, temperature: float = 1.0
) -> Estimate:
    """1 where no prediction changes, 0 where it changes as much as from one image to another; below 0 where it changes more.

    `clean_logits` [images, classes] and `probe_logits` [images, classes] or [draws, images, classes] are the answers to the same images
    before and after a change; draws are averaged inside an image first. Both are divided by `temperature`, which should be the
    network's own, fitted on clean held-out images: a network that is never sure looks invariant otherwise. Not measurable where a
    network answers every image alike, within a thousandth of a bit. Interval over images: Student's t on the first-order influence
    of each image on the ratio, through its own change and through its distance from the others.

    >>> certain = np.array([[50.0, 0.0], [0.0, 50.0]] * 2)
    >>> js_invariance(certain, certain[[0, 1, 2, 0]]).value  # 1/4 of the images change by 1 bit, 2/3 of the pairs differ by 1 bit
    0.625
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    clean = finite(not_empty(np.asarray(clean_logits), "clean_logits"), "clean_logits")
    probe = finite(not_empty(np.asarray(probe_logits), "probe_logits"), "probe_logits")
    if clean.ndim != 2 or probe.ndim not in (2, 3) or probe.shape[-2:] != clean.shape:
        raise ValueError(f"clean_logits must be [images, classes] and probe_logits answer the same, got {clean.shape} and {probe.shape}")
    n = len(clean)
    if clean_spread is not None and np.shape(clean_spread) != (n,):
        raise ValueError(f"clean_spread must be one number for each of the {n} images, got {np.shape(clean_spread)}")
    if n < 2:
        return Estimate.not_measurable("1 image has no other to be told from", n=n, unit="share")
    p, draws = probabilities(clean, temperature), probe.reshape(-1, *clean.shape)
    change = np.mean([js_divergence(p, probabilities(draw, temperature)) for draw in draws], axis=0)
    between = spread_between_images(p) if clean_spread is None else clean_spread
    spread = float(between.mean())
    if spread < LEAST_SPREAD:
        return Estimate.not_measurable(
            f"the predictions for two images differ by {spread:.2g} bits on average: every image is answered alike", n=n, unit="share"
        )
    ratio = float(change.mean()) / spread
    # A pair has two images, so that an image counts twice in the mean over pairs.
    influence = (change - change.mean() - 2 * ratio * (between - spread)) / spread
    low, high = mean_interval(1 - ratio - influence)
    return Estimate(1 - ratio, low, min(high, 1.0), n=n, unit="share")


def _entropy(p: np.ndarray) -> np.ndarray:
    """Entropy in bits over the last axis."""
    from scipy.special import entr

    return entr(p).sum(axis=-1) / np.log(2)
