"""Cue conflict: the outline of one image's object filled with the texture of another class's object (after Geirhos et al., ICLR 2019, https://arxiv.org/abs/1811.12231).

The paper makes such images by style transfer. Here a square from inside the other object is repeated over the whole plane and cut out by
the outline: no network, exact bytes, and nothing left of either background. Repeating it adds seams, a lattice of lines as far apart as
the square is wide; laid out mirror-wise it would have none, but stripes would turn into lozenges, which is another texture.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np

from crossdistill.core.errors import ImageError
from crossdistill.core.registry import probe
from crossdistill.core.seeds import key
from crossdistill.core.types import UNLABELLED, ImageSet, ProbeImages
from crossdistill.probes._checks import check_choice, check_images
from crossdistill.probes._draws import below, raw_words
from crossdistill.probes._mask_rules import LARGEST_AREA, MOST_COMPONENTS, SMALLEST_AREA, check_masks, largest_squares, usable

Ground = Literal["white", "black", "grey"]
MaskOf = Callable[[ImageSet], np.ndarray]

GROUNDS: dict[Ground, int] = {"white": 255, "black": 0, "grey": 128}
PRESET: list[dict[str, Ground]] = [{"ground": "white"}, {"ground": "black"}]
REDRAWS = 256  # of a partner: fewer masks are looked at than all, unless hardly any is usable
AT_ONCE = 1024  # images whose masks are looked at together
SMALLEST_PATCH, LARGEST_PATCH = 8, 4  # an eighth to a quarter of the image's side: more would show the shape of what gave the texture


def patches(masks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(top, left, side) of each object's square of texture, int64 [images] each; side 0 where the object has no room for one.

    >>> patches(np.full((1, 32, 32), 255, np.uint8))
    (array([12]), array([12]), array([8]))
    """
    shortest = min(masks.shape[1:])
    top, left, side = largest_squares(masks, max(2, shortest // LARGEST_PATCH))
    return top, left, np.where(side >= max(2, shortest // SMALLEST_PATCH), side, 0)


def repeated(n: int, start: np.ndarray, side: np.ndarray) -> np.ndarray:
    """Where each of `n` positions reads a patch of `side` pixels from `start` that is laid out again and again: int64 [images, n].

    >>> repeated(7, np.array([10]), np.array([3])).tolist()
    [[10, 11, 12, 10, 11, 12, 10]]
    """
    return start[:, None] + np.arange(n) % side[:, None]


def filled(masks: np.ndarray, textures: np.ndarray, ground: int) -> np.ndarray:
    """Textures [images, 3, height, width] where the masks cover a pixel, the grey level `ground` elsewhere; rounded half up, once.

    >>> filled(np.array([[[0, 51, 255]]], np.uint8), np.full((1, 3, 1, 3), 100, np.uint8), 200)[0, 0].tolist()
    [[200, 180, 100]]
    """
    covered = masks[:, None].astype(np.int32)
    return ((2 * (covered * textures + (255 - covered) * ground) + 255) // 510).astype(np.uint8)


def textures_of(images: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Images of the same size, all of texture: each object's square, again and again as it stands there. Every object must have one."""
    top, left, side = patches(masks)
    rows, columns = repeated(images.shape[2], top, side), repeated(images.shape[3], left, side)
    image, channel = np.arange(len(images))[:, None, None, None], np.arange(3)[:, None, None]
    return images[image, channel, rows[:, None, :, None], columns[:, None, None, :]]


def of_other_classes(rows: np.ndarray, classes: np.ndarray, labels: np.ndarray, words: np.ndarray) -> np.ndarray:
    """One of `rows` for each label, chosen by its word among those whose class is another, -1 where there is none: int64 [images].

    `classes`, those of the rows, are sorted.

    >>> of_other_classes(np.array([7, 8, 9]), np.array([0, 1, 1]), np.array([0, 1]), np.array([2**63, 0], np.uint64)).tolist()
    [9, 7]
    """
    first, last = np.searchsorted(classes, labels), np.searchsorted(classes, labels, side="right")
    n_others = len(classes) - (last - first)
    place = below(words, n_others)  # type: ignore[arg-type] (an array of bounds works as well)
    place += np.where(place >= first, last - first, 0)  # the rows of the own class stand between
    return np.append(rows, -1)[np.where(n_others > 0, place, -1)]


class Partners:
    """Images of other classes that have a texture to give, drawn by key from the whole set."""

    def __init__(self, pool: ImageSet, mask_of: MaskOf, rules: tuple[float, float, int]) -> None:
        self.pool, self.mask_of, self.rules = pool, mask_of, rules
        labelled = np.flatnonzero(pool.labels != UNLABELLED)
        self.by_class = labelled[np.argsort(pool.labels[labelled], kind="stable")]
        self.known = {-1: False}  # row of the pool -> whether it has a texture to give

    def drawn(self, labels: np.ndarray, index: np.ndarray, seed: int) -> np.ndarray:
        """A row of the pool for each image, all that have a texture to give equally likely: int64 [images].

        Raises ImageError where no other class has a usable object.
        """
        rows, candidates = np.full(len(labels), -1), self.by_class
        for attempt in range(REDRAWS + 1):
            pending = np.flatnonzero(rows < 0)
            if not len(pending):
                break
            if attempt == REDRAWS:  # rare ones: look at all, once, and draw among those
                candidates = candidates[self._give_texture(candidates)]
            words = raw_words(key(seed, "partner", attempt), index[pending], 1)[:, 0]
            found = of_other_classes(candidates, self.pool.labels[candidates], labels[pending], words)
            rows[pending] = np.where(self._give_texture(found), found, -1)
        if len(alone := np.flatnonzero(rows < 0)):
            raise ImageError(
                f"cue_conflict fills the objects of a class with textures of others, and for class {labels[alone[0]]} there is none: "
                f"of {len(self.pool)} images no other class has a usable mask. Give better masks, or choose other images."
            )
        return rows

    def _give_texture(self, rows: np.ndarray) -> np.ndarray:
        new = np.array([row for row in np.unique(rows) if int(row) not in self.known], np.int64)
        for start in range(0, len(new), AT_ONCE):
            part = new[start : start + AT_ONCE]
            masks = self.mask_of(self.pool.subset(part))
            gives = usable(masks, *self.rules) & (patches(masks)[2] > 0)
            self.known |= dict(zip(part.tolist(), gives.tolist(), strict=True))
        return np.array([self.known[int(row)] for row in rows], bool)


@probe(
    isolates=(
        "Outline against texture: the outline of one object is filled with the texture of an object of another class, on a plain ground. "
        "A high accuracy means that the outline decides; shape_bias tells it from answers that name the texture."
    ),
    about=("shape", "texture"),
    quick=PRESET,
    full=PRESET,
    draws={"quick": 1, "full": 5},
    null=None,
    core=False,
    removes=("texture", "colour"),
    version=2,
)
def cue_conflict(
    images: np.ndarray,
    labels: np.ndarray,
    index: np.ndarray,
    seed: int,
    masks: np.ndarray,
    pool: ImageSet | None = None,
    mask_of: MaskOf | None = None,
    *,
    ground: Ground = "white",
    smallest_area: float = SMALLEST_AREA,
    largest_area: float = LARGEST_AREA,
    most_components: int = MOST_COMPONENTS,
) -> ProbeImages:
    """Images uint8 [kept, 3, height, width]: each object's outline, filled with a texture of another class, on a plain `ground`.

    "grey" is no level of the presets: many textures are about as light as it is, and their outlines fade.

    Kept are labelled images whose mask passes the rules of `silhouette`. The partner is drawn by key among all images of `pool` of
    another class whose mask passes them too and has room for a square of an eighth of the side; its patch carries its colours as well.
    `mask_of` gives the masks of any images of the pool; without it, or without a pool, partners are drawn among the images given, so
    that the bytes depend on their company. The same partner serves all grounds. No level gives the clean images.

    The label is that of the outline's image. Factors: `shape` and `texture`, the classes of the images that gave the two cues, for
    `shape_bias`; from a source that knows its objects their `texture`, and `colour`, are the partner's; `partner`, the row that gave
    the texture. Raises ImageError where no other class has a texture to give, and for a source whose labels are not the shapes.
    """
    check_images(images)
    check_choice("ground", ground, GROUNDS)
    check_masks(masks, images)
    rules = (smallest_area, largest_area, most_components)
    kept = np.flatnonzero(usable(masks, *rules) & (labels != UNLABELLED))
    rows = index
    if pool is None or mask_of is None:
        rows = np.arange(len(images))
        pool = ImageSet(images, labels, rows.astype(str), ())
        mask_of = lambda part: masks[part.ids.astype(np.int64)]  # noqa: E731 (two lines of a function say no more)
    _check_labels_are_shapes(pool)
    partners = Partners(pool, mask_of, rules).drawn(labels[kept], index[kept], seed)
    given = pool.subset(partners)
    made = filled(masks[kept], textures_of(given.images, mask_of(given)), GROUNDS[ground])
    factors = {
        "shape": pool.labels[rows[kept]],
        "texture": given.factors.get("texture", given.labels),
        "partner": partners,
    }
    if "colour" in given.factors:
        factors["colour"] = given.factors["colour"]
    return ProbeImages(made, kept, labels[kept], factors)


def _check_labels_are_shapes(pool: ImageSet) -> None:
    labelled = pool.labels != UNLABELLED
    if not np.array_equal(np.asarray(pool.factors.get("shape", pool.labels))[labelled], pool.labels[labelled]):
        raise ImageError(
            "cue_conflict shows the outline of each image's class, but the classes of these images are not their shapes: choose images "
            "whose label is the shape (trifeature: `label: shape`), or leave this probe out"
        )
