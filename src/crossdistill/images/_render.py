"""Renders the objects of `trifeature`: many images at once, supersampled, then averaged over each pixel's area."""

from dataclasses import dataclass

import numpy as np

from crossdistill.core.seeds import bits
from crossdistill.images._shapes import SHAPES
from crossdistill.images._textures import TEXTURES

SAMPLES = 4  # per pixel and axis
MAX_TURN = np.pi / 4  # of the shape, either way, as in the paper
MAX_TEXTURE_TURN = np.pi / 30  # 6 degrees: no texture turns into another
SHADE = 0.35  # of the colour, where the texture is dark
UNITS = 32  # textures are drawn in 1/32 of the side, so that a larger image shows the same picture

# Ten hues of about equal luma (130 of 255), so that a grey copy keeps shape and texture but not colour.
COLOURS = {
    "red": (240, 75, 70),
    "green": (30, 190, 30),
    "blue": (85, 130, 255),
    "yellow": (165, 145, 0),
    "magenta": (235, 60, 205),
    "cyan": (0, 180, 190),
    "orange": (235, 105, 0),
    "violet": (165, 100, 255),
    "brown": (165, 115, 80),
    "grey": (135, 135, 135),
}


@dataclass(frozen=True)
class Scenes:
    """Uniform draws in [0, 1), one row an image, and whole-number salts; nothing here depends on the factors."""

    draws: np.ndarray  # float64 [images, 12]; columns 0..2 choose factors, 3..10 place things
    salts: np.ndarray  # uint64 [images]


def scenes(seed: int, split: str, rows: np.ndarray) -> Scenes:
    """What chance decides about the images `rows` of a split: image i is the same whatever else is drawn."""
    raw = np.stack([bits("images", "trifeature", seed, split, int(row)).random_raw(13) for row in rows])
    return Scenes((raw[:, :12] >> np.uint64(11)) * 2.0**-53, raw[:, 12])


def _geometry(scene: Scenes, side: int) -> tuple[np.ndarray, ...]:
    """Position on the supersampled grid, in the object's frame: u, v float32 [images, rows, columns]; radius in sides [images].

    The object's circle is 58 to 80 % of the side wide (the circle's own shape 51 to 70 %) and lies wholly inside the image.
    """
    across, down, width, turn = scene.draws[:, 3:7].T
    radius = 0.29 + 0.11 * width
    centre_x, centre_y = (radius + (1 - 2 * radius) * at for at in (across, down))
    angle = MAX_TURN * (2 * turn - 1)
    at = (np.arange(side * SAMPLES) + 0.5) / (side * SAMPLES)
    x = at[None, None, :] - centre_x[:, None, None]
    y = at[None, :, None] - centre_y[:, None, None]
    cos, sin = (f(angle)[:, None, None] / radius[:, None, None] for f in (np.cos, np.sin))
    return (cos * x + sin * y).astype(np.float32), (cos * y - sin * x).astype(np.float32)


def _masks(scene: Scenes, shape: np.ndarray, side: int) -> np.ndarray:
    """bool [images, rows, columns] on the supersampled grid."""
    u, v = _geometry(scene, side)
    inside = np.empty(u.shape, bool)
    for value, mask in enumerate(SHAPES.values()):
        rows = shape == value
        inside[rows] = mask(u[rows], v[rows])
    return inside


def _patterns(scene: Scenes, texture: np.ndarray, side: int) -> np.ndarray:
    """bool [images, rows, columns] on the supersampled grid: True where the texture is light."""
    turn, right, down = scene.draws[:, 7:10].T
    angle = MAX_TEXTURE_TURN * (2 * turn - 1)
    cos, sin = (f(angle)[:, None, None].astype(np.float32) for f in (np.cos, np.sin))
    at = ((np.arange(side * SAMPLES) + 0.5) * (UNITS / (side * SAMPLES))).astype(np.float32)
    # One period of every texture divides or is shorter than 64, so the offset leaves nothing of the grid to learn.
    x = cos * at[None, None, :] + sin * at[None, :, None] + (64 * right[:, None, None]).astype(np.float32)
    y = cos * at[None, :, None] - sin * at[None, None, :] + (64 * down[:, None, None]).astype(np.float32)
    light = np.empty(x.shape, bool)
    for value, pattern in enumerate(TEXTURES.values()):
        rows = texture == value
        light[rows] = pattern(x[rows], y[rows], scene.salts[rows])
    return light


def _area_mean(samples: np.ndarray, side: int) -> np.ndarray:
    """Mean over each pixel's samples: float32 [images, side, side]."""
    return samples.reshape(-1, side, SAMPLES, side, SAMPLES).mean(axis=(2, 4), dtype=np.float32)


def coverage(scene: Scenes, shape: np.ndarray, side: int) -> np.ndarray:
    """Share of each pixel that the object covers, exactly as it is rendered: float32 [images, side, side], 0 to 1."""
    return _area_mean(_masks(scene, shape, side), side)


def render(scene: Scenes, shape: np.ndarray, texture: np.ndarray, colour: np.ndarray, side: int) -> np.ndarray:
    """Images of one object each on a plain, light ground: uint8 [images, 3, side, side]. Factors are int64 [images]."""
    inside = _masks(scene, shape, side)
    covered = _area_mean(inside, side)[:, None]
    light = _area_mean(inside & _patterns(scene, texture, side), side)[:, None]
    paint = np.array(list(COLOURS.values()), np.float32)[colour][:, :, None, None]  # images channels 1 1
    ground = (205 + 40 * scene.draws[:, 10]).astype(np.float32)[:, None, None, None]
    return np.rint(ground * (1 - covered) + paint * (SHADE * covered + (1 - SHADE) * light)).astype(np.uint8)
