"""Shape x texture x colour: rendered objects whose three cues are known exactly (Hermann & Lampinen, NeurIPS 2020, https://arxiv.org/abs/2006.12433).

One object on a plain, light ground: position, size, turn (the shape by up to 45 degrees, the texture by up to 6, so that the class
of its stripes stays readable) and the texture's offset vary. The paper draws 224-pixel images; here any side, the same picture.
"""

from functools import partial
from typing import Any, Literal, cast

import numpy as np

from crossdistill.core.errors import ImageError, SettingError
from crossdistill.core.registry import image_source
from crossdistill.core.types import ImageSet
from crossdistill.images._raw import RawContents, RawImages, RawSplit, ranges
from crossdistill.images._render import COLOURS, SAMPLES, Scenes, coverage, render, scenes
from crossdistill.images._shapes import SHAPES
from crossdistill.images._textures import TEXTURES

Feature = Literal["shape", "texture", "colour"]

VALUES: dict[str, tuple[str, ...]] = {"shape": tuple(SHAPES), "texture": tuple(TEXTURES), "colour": tuple(COLOURS)}
POINTS = 2**21  # supersampled points rendered at once, about 100 MB


def object_coverage(images: ImageSet) -> np.ndarray:
    """How much of each pixel the object covers: uint8 [images, height, width], 255 for all of it, exactly as it was drawn.

    Any subset in any order will do: an image's id says where its drawing came from. Raises ValueError for images that `trifeature`
    did not make.
    """
    settings = images.provenance.get("settings", {})
    if images.provenance.get("source") != "trifeature":
        raise ValueError(f"masks are known for trifeature images only, these come from {images.provenance.get('source', 'elsewhere')}")
    covered = np.empty((len(images), settings["side"], settings["side"]), np.uint8)
    for rows in ranges(len(images), _rows_at_once(settings["side"])):
        scene = _scenes_of(images.ids[rows], settings["seed"])
        # Shares are whole sixteenths, so that halves are exact; they round up, to 128.
        covered[rows] = np.floor(coverage(scene, images.factors["shape"][rows], settings["side"]) * 255 + 0.5)
    return covered


def retextured(images: ImageSet, textures: np.ndarray) -> np.ndarray:
    """The same objects in the same scenes, drawn in other textures (int64 [images], values of the factor): uint8 as the images.

    With their own textures they are the very bytes of `images`. Raises ImageError for images that `trifeature` did not make and for those
    whose class is their texture.
    """
    settings = images.provenance.get("settings", {})
    if images.provenance.get("source") != "trifeature":
        raise ImageError(f"trifeature draws its own images only, these come from {images.provenance.get('source', 'elsewhere')}")
    if settings["label"] == "texture":
        raise ImageError("the class of these images is their texture, which is not to be changed: set `label: shape` or `label: colour`")
    drawn = np.empty(images.images.shape, np.uint8)
    for rows in ranges(len(images), _rows_at_once(settings["side"])):
        scene = _scenes_of(images.ids[rows], settings["seed"])
        shape, colour = images.factors["shape"][rows], images.factors["colour"][rows]
        drawn[rows] = render(scene, shape, textures[rows], colour, side=settings["side"])
    return drawn


@image_source(example="trifeature", masks=object_coverage, retextured=retextured)
def trifeature(
    *,
    side: int = 32,
    n_values: int = 10,
    label: Feature = "shape",
    correlated: Feature | None = "texture",
    correlation: float = 0.9,
    n_train: int = 4000,
    n_test: int = 1000,
    n_conflict: int = 500,
    seed: int = 0,
) -> RawImages:
    """Images of `n_values` shapes, textures and colours, `side` pixels wide and high; `label` says which of them is the class.

    In training and test images the `correlated` feature takes the class's value with probability `correlation` and each other
    value equally often; the third feature is independent. The set "conflict" (absent without a correlated feature) holds images
    whose correlated feature never takes the class's value. Value k of any feature belongs to class k.
    """
    settings = dict(locals())
    _check(settings)
    counts = {"train": n_train, "test": n_test} | ({"conflict": n_conflict} if correlated else {})

    def read() -> RawContents:
        splits = {split: _split(split, count, settings) for split, count in counts.items()}
        return RawContents(VALUES[label][:n_values], splits)

    return RawImages({"drawing": 1, **settings}, read, {"settings": settings})


def object_masks(images: ImageSet) -> np.ndarray:
    """Exact masks of images that `trifeature` made: bool [images, height, width], True where the object covers at least half a pixel.

    Raises ValueError for other images.
    """
    return object_coverage(images) >= 128


def _check(settings: dict[str, Any]) -> None:
    if settings["label"] == settings["correlated"]:
        raise SettingError(f"correlated must be another feature than the label, both are '{settings['label']}'")
    if not 0 <= settings["correlation"] <= 1:
        raise SettingError(f"correlation is a probability, 0 to 1, got {settings['correlation']}")
    if not 2 <= settings["n_values"] <= 10:
        raise SettingError(f"n_values must be 2 to 10, got {settings['n_values']}")
    if settings["side"] < 16:
        raise SettingError(f"side must be at least 16 pixels for the textures to be seen, got {settings['side']}")
    for name in ("n_train", "n_test", "n_conflict"):
        if settings[name] < 1:
            raise SettingError(f"{name} must be at least 1, got {settings[name]}")


def _split(split: str, count: int, settings: dict[str, Any]) -> RawSplit:
    scene = scenes(settings["seed"], split, np.arange(count))
    factors = _factors(scene.draws, split, settings)

    def decode(rows: slice) -> np.ndarray:
        part = Scenes(scene.draws[rows], scene.salts[rows])
        return render(part, *(factors[name][rows] for name in VALUES), side=settings["side"])

    ids = np.array([f"{split}-{row}" for row in range(count)])
    return RawSplit(factors[settings["label"]], ids, partial(ranges, count, _rows_at_once(settings["side"])), decode, factors)


def _factors(draws: np.ndarray, split: str, settings: dict[str, Any]) -> dict[str, np.ndarray]:
    """The three factors of the first images of a split: int64 [images] each. Classes alternate, so that they are balanced."""
    n_values, label, correlated = settings["n_values"], settings["label"], settings["correlated"]
    classes = np.arange(len(draws)) % n_values
    factors = {name: (draws[:, 0] * n_values).astype(np.int64) for name in VALUES}
    factors[label] = classes
    if correlated:
        agrees = draws[:, 1] < (0 if split == "conflict" else settings["correlation"])
        other = (classes + 1 + (draws[:, 2] * (n_values - 1)).astype(np.int64)) % n_values
        factors[correlated] = np.where(agrees, classes, other)
    else:
        independent = next(name for name in VALUES if name != label)
        factors[independent] = (draws[:, 2] * n_values).astype(np.int64)
    return factors


def _rows_at_once(side: int) -> int:
    return max(1, POINTS // (side * SAMPLES) ** 2)


def _scenes_of(ids: np.ndarray, seed: int) -> Scenes:
    """The scenes of images by their ids, SPLIT-ROW, whatever split they were moved to since."""
    split_and_row = [str(name).rsplit("-", 1) for name in ids]
    return _joined([scenes(seed, split, np.array([int(row)])) for split, row in split_and_row])


def _joined(parts: list[Scenes]) -> Scenes:
    return Scenes(*(cast(np.ndarray, np.concatenate(column)) for column in zip(*((p.draws, p.salts) for p in parts), strict=True)))
