"""Texture swap: the same object in the same scene, drawn in another texture (cue conflict after Hermann & Lampinen, NeurIPS 2020).

Exact, and only for a source that draws its images itself (trifeature): shape, colour, place and ground keep their bytes' meaning, the
texture alone becomes that of another class.
"""

import numpy as np

from crossdistill.core import registry
from crossdistill.core.errors import ImageError, SettingError
from crossdistill.core.registry import probe
from crossdistill.core.seeds import key
from crossdistill.core.types import ImageSet, ProbeImages
from crossdistill.probes._checks import check_images
from crossdistill.probes._draws import below, raw_words

SHARE_BITS = 8  # shares are whole 256ths, so that mixing is exact


def other_textures(own: np.ndarray, labels: np.ndarray, words: np.ndarray, n_values: int) -> np.ndarray:
    """A texture for each image, int64 [images]: neither its own nor the one that names its class; the latter where no third is left.

    >>> words = np.array([0, 2**63, 2**64 - 1], np.uint64)
    >>> other_textures(np.array([0, 0, 0]), np.array([1, 1, 1]), words, 4).tolist()
    [2, 3, 3]
    """
    values = np.arange(n_values)
    allowed = (values != own[:, None]) & (values != labels[:, None])
    allowed |= ~allowed.any(axis=1, keepdims=True) & (values != own[:, None])
    counts = allowed.sum(axis=1)
    # `below` takes one bound, and there are at most two: the number of values less one or two.
    rank = np.where(counts == n_values - 1, below(words, n_values - 1), below(words, max(n_values - 2, 1)))
    return np.argmax(np.cumsum(allowed, axis=1) > rank[:, None], axis=1)


def mixed(images: np.ndarray, others: np.ndarray, share: float) -> np.ndarray:
    """`share` of the other images and the rest of the first, uint8, rounded half up; the share is rounded to 256ths."""
    weight = round(share * 2**SHARE_BITS)
    total = images.astype(np.uint32) * (2**SHARE_BITS - weight) + others.astype(np.uint32) * weight
    return ((total + 2 ** (SHARE_BITS - 1)) >> SHARE_BITS).astype(np.uint8)


@probe(
    isolates=(
        "Shape against texture, exactly: the same object in the same place and colour takes on the texture of another class. A high "
        "accuracy means that the shape decides; answers that name the new texture's class mean that the texture does."
    ),
    about=("shape", "texture"),
    quick=[{"share": 0.5}, {"share": 1.0}],
    full=[{"share": 0.25}, {"share": 0.5}, {"share": 0.75}, {"share": 1.0}],
    draws={"quick": 1, "full": 5},
    null={"share": 0.0},
    core=False,
    version=2,
)
def texture_swap(
    images: np.ndarray, labels: np.ndarray, index: np.ndarray, seed: int, image_set: ImageSet, *, share: float = 1.0
) -> ProbeImages:
    """Images uint8 [images, 3, height, width] with `share` (0 to 1) of another texture and the rest of their own.

    The new texture is drawn from those that name neither the image's own texture nor its class, the same at every level; factor
    `swapped_in` says which. Factors `shape` and `texture` are the two cues: at a share of 1 `texture` is the new one. Below that both
    textures show, so that no answer would tell which cue decided: there `texture` repeats `shape`, which the metrics read as no
    conflict. Raises ImageError for images whose source cannot draw them in another texture, SettingError for a share out of range.
    """
    check_images(images)
    if not 0 <= share <= 1:
        raise SettingError(f"share is the part of the other texture, 0 to 1, got {share}")
    retextured = _retextured_by(image_set)
    shape, own = image_set.factors["shape"], image_set.factors["texture"]
    new = other_textures(own, labels, raw_words(key(seed, "texture"), index, 1)[:, 0], image_set.n_classes)
    swapped = mixed(images, retextured(image_set, new), share) if share > 0 else np.array(images)
    factors = {"shape": shape, "texture": new if share == 1 else shape, "swapped_in": new}
    return ProbeImages(swapped, np.arange(len(images)), labels, factors)


def _retextured_by(images: ImageSet):
    source = str(images.provenance.get("source", "elsewhere"))
    known = source in registry.names("images")
    redraw = registry.get("images", source).facts["retextured"] if known else None
    if redraw is None or not {"shape", "texture"} <= images.factors.keys():
        raise ImageError(
            f"texture_swap needs images that their source can draw in another texture (trifeature), these come from {source}: "
            "choose another image source, or the probe stylized"
        )
    return redraw
