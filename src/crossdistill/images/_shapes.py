"""Ten shapes as masks, for `trifeature`: distinct under rotations of 45 degrees either way and under mirroring.

Each takes the coordinates (u to the right, v downwards) of any array of points in the object's own frame, where the object fills
the unit circle, and returns which points lie inside.
"""

from collections.abc import Callable

import numpy as np

Mask = Callable[[np.ndarray, np.ndarray], np.ndarray]


def circle(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return u**2 + v**2 < 0.88**2


def triangle(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """The equilateral triangle on the unit circle, tip up.

    >>> triangle(np.array([0.0, 0.0, 0.9]), np.array([-0.99, 0.51, 0.4])).tolist()
    [True, False, False]
    """
    return (v < 0.5) & (np.sqrt(3) * np.abs(u) - v < 1)


def cross(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return (np.minimum(np.abs(u), np.abs(v)) < 0.3) & (np.maximum(np.abs(u), np.abs(v)) < 0.95)


def ring(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    radius = u**2 + v**2
    return (radius < 1) & (radius > 0.5**2)


def crescent(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return (u**2 + v**2 < 1) & ((u - 0.55) ** 2 + v**2 > 0.75**2)


def square(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.maximum(np.abs(u), np.abs(v)) < 0.72


def star(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Five points on the unit circle, the notches between them at 0.48."""
    sector = np.pi / 5
    angle = np.abs(np.mod(np.arctan2(u, -v) + sector, 2 * sector) - sector)  # 0 at a point, `sector` at a notch
    radius = np.hypot(u, v)
    along, aside = radius * np.cos(angle), radius * np.sin(angle)
    notch_along, notch_aside = 0.48 * np.cos(sector), 0.48 * np.sin(sector)
    # The edge runs from the point (1, 0) to the notch; inside is the side of the origin.
    return notch_aside * (along - 1) + (1 - notch_along) * aside < 0


def bar(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return (np.abs(u) < 0.95) & (np.abs(v) < 0.38)


def hourglass(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return (np.abs(v) < 0.8) & (np.abs(u) < 0.1 + 0.85 * np.abs(v))


def heart(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """The curve (x^2 + y^2 - 1)^3 = x^2 y^3, drawn to fill the unit circle."""
    x, y = 1.22 * u, 0.1 - 1.22 * v
    return (x**2 + y**2 - 1) ** 3 < x**2 * y**3


SHAPES: dict[str, Mask] = {
    shape.__name__: shape for shape in (circle, triangle, cross, ring, crescent, square, star, bar, hourglass, heart)
}
