"""Amplitude swap: the Fourier phase of one image with the amplitude of another of another class (after Chen et al., ICCV 2021, https://arxiv.org/abs/2108.08487).

Phase carries contours and their places, amplitude carries contrast, colour and the statistics of texture: a cue conflict that needs no
network. Where all of the amplitude is the other image's, `shape_bias` tells answers that follow the phase from those that follow the
amplitude, which takes the place of texture.
"""

import numpy as np

from crossdistill.core.errors import ImageError, SettingError
from crossdistill.core.registry import probe
from crossdistill.core.seeds import key
from crossdistill.core.types import UNLABELLED, ImageSet, ProbeImages
from crossdistill.probes._checks import check_images
from crossdistill.probes._draws import below, raw_words
from crossdistill.probes._spectrum import chunks, image_bytes, quantised, spectrum


def drawn_partners(rows: np.ndarray, pool_labels: np.ndarray, seed: int, index: np.ndarray | None = None) -> np.ndarray:
    """For each of `rows` of the pool another row, uniform over the labelled images of other classes: int64 [images].

    Draws are keyed by `index`, by the rows themselves where it is None. An unlabelled image draws from all other images. Raises
    ImageError where an image has no possible partner.
    """
    labels, order = pool_labels[rows], np.argsort(pool_labels, kind="stable")
    ordered, place = pool_labels[order], np.argsort(order)
    alone = labels == UNLABELLED
    # In the order of labels the partners of an image are all rows from `start` on but for those from `first` to before `after`.
    start = np.where(alone, 0, np.searchsorted(ordered, 0))
    first = np.where(alone, place[rows], np.searchsorted(ordered, labels))
    after = np.where(alone, first + 1, np.searchsorted(ordered, labels, side="right"))
    n_partners = len(ordered) - start - (after - first)
    if not (n_partners > 0).all():
        raise ImageError(
            f"amplitude_swap needs images of two classes or more, but {int((n_partners < 1).sum())} of these have no image of another "
            "class beside them: give more classes, or leave this probe out"
        )
    chosen = start + below(raw_words(seed, rows if index is None else index, 1)[:, 0], n_partners)  # type: ignore[arg-type] (an array of bounds works as well)
    return order[np.where(chosen >= first, chosen + (after - first), chosen)]


def swapped(images: np.ndarray, partners: np.ndarray, share: float) -> np.ndarray:
    """Images uint8 with the phase of `images` and, channel by channel, the amplitude (1 - share) own + share of the partner's.

    Where a coefficient of the image is zero it has no phase; it is given phase 0.
    """
    own, others = quantised(spectrum(images)), np.abs(quantised(spectrum(partners)))
    amplitude = np.abs(own)
    phase = np.divide(own, amplitude, out=np.ones_like(own), where=amplitude > 0)
    others *= share
    own *= 1 - share
    phase *= others
    own += phase
    return image_bytes(own, images.shape[2:])


@probe(
    isolates=(
        "Reliance on phase against amplitude: contours stay where they were while contrast, colour and the statistics of texture come "
        "from an image of another class. A high accuracy means that the answer follows the phase."
    ),
    about=("shape", "texture"),
    quick=[{"share": 0.5}, {"share": 1.0}],
    full=[{"share": 0.25}, {"share": 0.5}, {"share": 0.75}, {"share": 1.0}],
    draws={"quick": 1, "full": 5},
    null={"share": 0.0},
    removes=("texture", "colour"),
    version=2,
)
def amplitude_swap(
    images: np.ndarray, labels: np.ndarray, index: np.ndarray, seed: int, pool: ImageSet | None = None, *, share: float = 1.0
) -> ProbeImages:
    """Images uint8 [images, 3, height, width] in which a `share` (0 to 1; the paper's is 1) of the amplitude is another image's.

    `index` are the rows of the images in `pool`, from which partners are drawn; without a pool they are drawn from the images given.
    All shares have the same partners; the mean colour is part of the amplitude. Factors: `partner`, the row of the other image in the
    pool; `shape` and `texture`, the classes of the images that gave phase and amplitude, or what a source that knows its objects says
    of them. Below a share of 1, where both amplitudes show, and for an unlabelled image `texture` repeats `shape`, which the metrics
    read as no conflict. Raises SettingError for a share out of range, ImageError where an image has no partner.
    """
    check_images(images)
    if not 0 <= share <= 1:
        raise SettingError(f"share must be 0 to 1, got {share}")
    rows = index
    if pool is None:
        rows = np.arange(len(images))
        pool = ImageSet(images, labels, rows.astype(str), ())
    partner = drawn_partners(rows, pool.labels, key(seed, "partner"), index)
    result = np.empty(images.shape, np.uint8)
    for part in chunks(images):
        result[part] = swapped(images[part], pool.images[partner[part]], share)
    shape = np.asarray(pool.factors.get("shape", pool.labels))[rows]
    conflict = (labels != UNLABELLED) & (share == 1)
    texture = np.where(conflict, np.asarray(pool.factors.get("texture", pool.labels))[partner], shape)
    return ProbeImages(result, np.arange(len(images)), labels, {"partner": partner, "shape": shape, "texture": texture})
