"""Corruptions by weather and light: snow, frost, fog, brightness."""

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from crossdistill.core.errors import SettingError
from crossdistill.probes._corruptions_blur import angles_between
from crossdistill.probes._corruptions_linear import ZOOM_BITS, mirror_edge, streaked, zoomed
from crossdistill.probes._corruptions_noise import Draw, normal_quantiles
from crossdistill.probes._noise import QUANTILE_BITS

FROST_PICTURES = ("frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg")  # of six, those that the published sets use


def snow(images: np.ndarray, shape: tuple[int, int, int, int, int, float, int], draw: Draw) -> np.ndarray:
    """A whitened image under flakes that are blown about.

    `shape`: mean and standard deviation of the noise that flakes are made of (percent of white), its magnification (percent), the
    threshold above which it shows (percent of white), radius and sigma of the smear in pixels, and the share of the image that is not
    whitened (percent).
    """
    mean, spread, zoom, threshold, radius, sigma, kept = shape
    n, _, height, width = images.shape
    draws = draw(1 + height * width)
    noise = mean * 2**QUANTILE_BITS + spread * normal_quantiles()  # percent of white, in units of 2**-QUANTILE_BITS
    flakes = (noise >> 2 * ZOOM_BITS)[draws[:, 1:]].reshape(n, 1, height, width)
    flakes = zoomed(flakes, zoom)  # in the units of the noise again
    flakes = np.clip(flakes * (flakes >= threshold << QUANTILE_BITS), 0, 100 << QUANTILE_BITS)
    layer = ((flakes * 255 + (50 << QUANTILE_BITS)) // (100 << QUANTILE_BITS)).astype(np.uint8)
    layer = streaked(layer, angles_between(draws[:, 0], -135, -45), radius, sigma).astype(np.int32)

    values = images.astype(np.int32)
    luma = (values * np.array([299, 587, 114], np.int32)[:, None, None]).sum(axis=1, keepdims=True)
    whitened = np.maximum(2000 * values, 3 * luma + 255_000)  # 1.5 luma + half of white, in units of 1/2000 of a grey level
    veiled = (kept * 2000 * values + (100 - kept) * whitened + 100_000) // 200_000
    return np.minimum(veiled + layer + layer[..., ::-1, ::-1], 255).astype(np.uint8)


def frost_folder() -> Path | None:
    """Where the package imagecorruptions keeps its photographs of frost, without importing it; None where it is not installed."""
    found = find_spec("imagecorruptions")
    folders = found.submodule_search_locations if found else None
    return Path(folders[0]) / "frost" if folders else None


def require_frost() -> None:
    """Raises SettingError where the photographs of frost are not installed."""
    if frost_folder() is None:
        raise SettingError("frost needs photographs that come with another package: pip install 'crossdistill[corruptions]'")


@lru_cache(maxsize=2)
def frost_pictures(step: int) -> list[np.ndarray]:
    """The photographs, every `step`-th pixel of them: uint8 [3, height, width] each."""
    from PIL import Image

    require_frost()
    folder = frost_folder()
    assert folder is not None
    pictures = [np.asarray(Image.open(folder / name).convert("RGB")).transpose(2, 0, 1) for name in FROST_PICTURES]
    return [picture[:, step // 2 :: step, step // 2 :: step] for picture in pictures]


def frost(images: np.ndarray, shape: tuple[int, int, int], draw: Draw) -> np.ndarray:
    """A part of a photograph of frost laid over the image; `shape`: percent of the image, percent of the frost, and the latter's step.

    A photograph that is smaller than the image goes on as its mirror image.
    """
    image_percent, frost_percent, step = shape
    height, width = images.shape[2:]
    pictures = frost_pictures(step)
    draws = draw(3).astype(np.int64)
    frosted = np.empty(images.shape, np.uint8)
    for row, (which, top, left) in enumerate(draws):
        picture = pictures[which * len(pictures) >> 16]
        free = [max(side - wanted, 0) + 1 for side, wanted in zip(picture.shape[1:], (height, width), strict=True)]
        rows = mirror_edge((top * free[0] >> 16) + np.arange(height), picture.shape[1])
        columns = mirror_edge((left * free[1] >> 16) + np.arange(width), picture.shape[2])
        part = picture[:, rows[:, None], columns].astype(np.int32)
        frosted[row] = np.minimum((image_percent * images[row].astype(np.int32) + frost_percent * part + 50) // 100, 255)
    return frosted


def plasma(draws: np.ndarray, side: int, decay: float) -> np.ndarray:
    """Clouds by the diamond-square algorithm on a torus, 0 to 1: float64 [images, side, side] from uint16 [images, side * side].

    `side` is a power of two. Each octave is rougher than the one above by 1 / decay**2. Only basic arithmetic, value by value, which is
    exact to the last bit everywhere.
    """
    uniform = (2.0 * draws + 1) / 2**16 - 1
    clouds = np.zeros((len(draws), side, side))
    step, roughness, used = side, 1.0, 0
    while step >= 2:
        half, cells = step // 2, (side // step) ** 2
        noise = roughness * uniform[:, used : used + 3 * cells].reshape(len(draws), 3, side // step, side // step)
        corners = clouds[:, ::step, ::step]
        across, down = np.roll(corners, -1, axis=2), np.roll(corners, -1, axis=1)
        centres = (corners + across + down + np.roll(across, -1, axis=1)) / 4 + noise[:, 0]
        clouds[:, half::step, half::step] = centres
        clouds[:, ::step, half::step] = (corners + across + centres + np.roll(centres, 1, axis=1)) / 4 + noise[:, 1]
        clouds[:, half::step, ::step] = (corners + down + centres + np.roll(centres, 1, axis=2)) / 4 + noise[:, 2]
        step, roughness, used = half, roughness / (decay * decay), used + 3 * cells
    clouds -= clouds.min(axis=(1, 2), keepdims=True)
    highest = clouds.max(axis=(1, 2), keepdims=True)
    return clouds / np.where(highest > 0, highest, 1)


def fog(images: np.ndarray, shape: tuple[float, float], draw: Draw) -> np.ndarray:
    """Clouds over the image, which keeps its brightest value; `shape`: thickness (1 = white), and how fast clouds grow smooth."""
    thickness, decay = shape
    height, width = images.shape[2:]
    side = 1 << (max(height, width) - 1).bit_length()
    clouds = plasma(draw(side * side), side, decay)[:, None, :height, :width]
    brightest = images.max(axis=(1, 2, 3), keepdims=True).astype(np.float64)
    fogged = (images + 255 * thickness * clouds) * (brightest / (brightest + 255 * thickness))
    return np.floor(fogged + 0.5).astype(np.uint8)


def brightness(images: np.ndarray, percent: int, draw: Draw) -> np.ndarray:
    """The value of HSV raised by `percent` % of white; hue and saturation stay, hence all channels grow in one ratio."""
    values = images.astype(np.int32)
    value = values.max(axis=1, keepdims=True)
    raised = np.minimum(100 * value + 255 * percent, 25_500)  # in hundredths
    ratio_of = 100 * np.maximum(value, 1)
    coloured = (2 * values * raised + ratio_of) // (2 * ratio_of)
    return np.where(value == 0, (raised + 50) // 100, coloured).astype(np.uint8)  # black has no hue: it becomes grey
