"""Stylised images: local texture replaced by that of a style picture, optimised through an encoder (Gatys et al., CVPR 2016, https://arxiv.org/abs/1508.06576).

Stylized-ImageNet (Geirhos et al., ICLR 2019) asks the same with many styles. Bytes depend on the machine's arithmetic, so sets are
built once, in blocks of 64 images, and checked by SHA-256 from then on.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from crossdistill.core.errors import ImageError, SettingError
from crossdistill.core.registry import probe
from crossdistill.core.seeds import key
from crossdistill.core.types import UNLABELLED, ProbeImages
from crossdistill.probes._checks import check_images
from crossdistill.probes._draws import below, raw_words

SMALLEST_SIDE = 64  # pixels at which images are optimised at least: at 32 a texture has no room beside the shape


def working_scale(size: tuple[int, int], side: int) -> int:
    """How many times larger images of `size` (height, width) are optimised, so that the shorter side has about `side` pixels.

    >>> working_scale((32, 32), 64), working_scale((32, 32), 224), working_scale((224, 224), 64), working_scale((33, 47), 64)
    (2, 7, 1, 2)
    """
    return max(1, round(side / min(size)))


def chosen_styles(images: np.ndarray, index: np.ndarray, seed: int, styles: np.ndarray, possible: np.ndarray | None = None) -> np.ndarray:
    """A style for each image, int64 [images], the same at every level; the next one where an image would be its own style.

    `possible` bool [images, styles] says which styles an image may take, at least one each; None: all.
    """
    if possible is None:
        possible = np.ones((len(images), len(styles)), bool)
    counts, before = possible.sum(axis=1), np.cumsum(possible, axis=1)
    rank = below(raw_words(key(seed, "style"), index, 1)[:, 0], counts)  # type: ignore[arg-type] (an array of bounds works as well)
    chosen = np.argmax(before > rank[:, None], axis=1)
    if styles.shape[1:] == images.shape[1:]:
        itself = (styles[chosen] == images).all(axis=(1, 2, 3))
        chosen = np.where(itself, np.argmax(before > ((rank + 1) % counts)[:, None], axis=1), chosen)
    return chosen


def styles_of_other_classes(labels: np.ndarray, style_labels: np.ndarray) -> np.ndarray:
    """Which styles each image may take, bool [images, styles]: those of a known other class; all where its own is not known.

    Raises ImageError where an image has none.

    >>> styles_of_other_classes(np.array([0, -1]), np.array([0, 1, -1])).tolist()
    [[False, True, False], [True, True, True]]
    """
    other = (style_labels != labels[:, None]) & (style_labels != UNLABELLED) | (labels[:, None] == UNLABELLED)
    if not other.any(axis=1).all():
        raise ImageError(
            "stylized takes styles from images of other classes, but there are none beside these: give more classes, or other styles"
        )
    return other


@probe(
    isolates=(
        "Sufficiency of shape: every image takes on the local texture and colours of a style picture, drawn for it from many, while its "
        "larger shapes stay. A high accuracy means that the image's own texture is not needed."
    ),
    about=("shape", "texture"),
    quick=[{"alpha": 0.5}, {"alpha": 1.0}],
    full=[{"alpha": 0.25}, {"alpha": 0.5}, {"alpha": 1.0}],
    draws={"quick": 1, "full": 2},
    null={"alpha": 0.0},
    core=False,
    block=64,
    removes=("texture", "colour"),
    version=2,
)
def stylized(
    images: np.ndarray,
    labels: np.ndarray,
    index: np.ndarray,
    seed: int,
    encoder: Callable[[Any], Any],
    styles: np.ndarray,
    style_labels: np.ndarray | None = None,
    *,
    alpha: float = 1.0,
    style_weight: float = 5.0,
    steps: int = 60,
    side: int | None = None,
) -> ProbeImages:
    """Images uint8 [images, 3, height, width] in the style of one of `styles` (uint8 [styles, 3, h, w]) each; factor `style` is its row.

    `style_labels` int64 [styles] are the classes of styles that have any: an image then takes one of another class.
    `alpha`, 0 to 1, is the style's share in the Gram matrices asked for, the rest being the image's own: 0 gives the clean images.
    `style_weight` weighs them against the content, `steps` are those of Adam. Images are optimised enlarged to about `side` pixels a
    shorter side: by default what the encoder was made for, where it says so in an attribute `side`, and at least 64; larger images
    stay as they are. Raises SettingError for values out of range, ImageError where no style is of another class.
    """
    check_images(images)
    _check(alpha, style_weight, steps, side, styles)
    possible = None if style_labels is None else styles_of_other_classes(labels, style_labels)
    rows, chosen = np.arange(len(images)), chosen_styles(images, index, seed, styles, possible)
    if alpha == 0:
        return ProbeImages(np.array(images), rows, labels, {"style": chosen})
    from crossdistill.probes._gatys import stylised_pixels

    wanted = side or max(SMALLEST_SIDE, getattr(encoder, "side", 0))
    scale = working_scale((images.shape[2], images.shape[3]), wanted)
    made = stylised_pixels(images, styles, chosen, encoder, alpha=alpha, style_weight=style_weight, steps=steps, scale=scale)
    return ProbeImages(made, rows, labels, {"style": chosen})


def _check(alpha: float, style_weight: float, steps: int, side: int | None, styles: np.ndarray) -> None:
    if not 0 <= alpha <= 1:
        raise SettingError(f"alpha is the style's share, 0 to 1, got {alpha}")
    if not (style_weight > 0 and math.isfinite(style_weight)):
        raise SettingError(f"style_weight must be above 0, got {style_weight}")
    if steps < 1:
        raise SettingError(f"steps must be at least 1, got {steps}")
    if side is not None and side < 8:
        raise SettingError(f"side must be at least 8 pixels, got {side}")
    if styles.ndim != 4 or styles.dtype != np.uint8 or styles.shape[1] != 3 or not len(styles):
        raise SettingError(f"styles must be uint8 [styles, 3, height, width] with at least one, got {styles.dtype} {styles.shape}")
