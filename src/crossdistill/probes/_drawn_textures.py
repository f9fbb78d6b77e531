"""Drawn textures, as many as are asked for: ten families, each number with its own scale, direction, offset and three colours.

All arithmetic is on integers, so the bytes are equal on every machine. Coordinates count in 1/1024 of the picture, so that a larger
picture shows the same texture.
"""

from collections.abc import Callable

import numpy as np

from crossdistill.core.seeds import bits

FRAME = 1024  # units across a picture
LEVELS = 1024  # a pattern's values are 0 to 1023; a palette makes colours of them

Draw = Callable[[int, int], int]
"""(low, high) -> the next whole number from low to high, both included."""
Pattern = Callable[[np.ndarray, np.ndarray, Draw], np.ndarray]


def drawn_texture(number: int, side: int) -> np.ndarray:
    """Texture `number` (0, 1, ...), uint8 [3, side, side]; the first ten are one of each family.

    >>> drawn_texture(3, 64).shape, bool((drawn_texture(3, 64) == drawn_texture(13, 64)).all())
    ((3, 64, 64), False)
    """
    draw = _draws(number)
    at = (2 * np.arange(side) + 1) * FRAME // (2 * side)
    across, down = _direction(draw)
    offset_x, offset_y = draw(0, FRAME), draw(0, FRAME)
    x, y = (at + offset_x)[None, :], (at + offset_y)[:, None]
    turned_x, turned_y = (across * x - down * y) >> 8, (down * x + across * y) >> 8
    family = list(FAMILIES.values())[number % len(FAMILIES)]
    return _coloured(family(turned_x, turned_y, draw), draw)


def texture_name(number: int) -> str:
    """Its family and number.

    >>> texture_name(12)
    'dots-12'
    """
    return f"{list(FAMILIES)[number % len(FAMILIES)]}-{number}"


def _draws(number: int) -> Draw:
    stream = bits("drawn texture", number)

    def draw(low: int, high: int) -> int:
        return low + int(stream.random_raw() >> 32) * (high - low + 1) // 2**32

    return draw


def _direction(draw: Draw) -> tuple[int, int]:
    """A direction as 256 times (cosine, sine), from a table of right-angled triangles: no library's sine enters."""
    a, b, c = ((1, 0, 1), (3, 4, 5), (5, 12, 13), (8, 15, 17), (7, 24, 25), (20, 21, 29))[draw(0, 5)]
    if draw(0, 1):
        a, b = b, a
    return 256 * a // c, (256 * b // c) * (1 if draw(0, 1) else -1)


def _wave(phase: np.ndarray, period: int) -> np.ndarray:
    """A triangle wave of the period, 0 to 1023."""
    return np.abs((phase % period) * 2 * LEVELS // period - LEVELS).clip(0, LEVELS - 1)


def _hard(values: np.ndarray, share: int = LEVELS // 2) -> np.ndarray:
    """0 or 1023 as the value is below `share`, with a narrow ramp between."""
    return ((values - share) * 8 + LEVELS // 2).clip(0, LEVELS - 1)


def stripes(x: np.ndarray, y: np.ndarray, draw: Draw) -> np.ndarray:
    wave = _wave(x, draw(70, 220))
    return _hard(wave, draw(300, 700)) if draw(0, 1) else wave


def checks(x: np.ndarray, y: np.ndarray, draw: Draw) -> np.ndarray:
    period = draw(110, 260)
    return np.where((x % period < period // 2) == (y % period < period // 2), LEVELS - 1, 0)


def dots(x: np.ndarray, y: np.ndarray, draw: Draw) -> np.ndarray:
    period, row = draw(90, 230), draw(0, 1)
    shifted = x + row * (y // period % 2) * (period // 2)
    distance = (shifted % period - period // 2) ** 2 + (y % period - period // 2) ** 2
    return LEVELS - 1 - _hard(distance * LEVELS * 2 // period**2, draw(100, 260))


def waves(x: np.ndarray, y: np.ndarray, draw: Draw) -> np.ndarray:
    bend = _wave(y, draw(150, 400)) * draw(40, 140) // LEVELS
    wave = _wave(x + bend, draw(70, 200))
    return _hard(wave) if draw(0, 1) else wave


def rings(x: np.ndarray, y: np.ndarray, draw: Draw) -> np.ndarray:
    """Rings round the points of a coarse lattice, as scales or ripples."""
    cell = draw(200, 500)
    distance = (x % cell - cell // 2) ** 2 + (y % cell - cell // 2) ** 2
    return _wave(np.sqrt(distance).astype(np.int64), draw(50, 120))  # IEEE rounds square roots correctly: equal everywhere


def bricks(x: np.ndarray, y: np.ndarray, draw: Draw) -> np.ndarray:
    height, joint = draw(70, 180), draw(8, 26)
    width, row = height * draw(1, 3), y // height
    shifted = x + row % 2 * (width // 2)
    shade = _cell_value(shifted // width, row, draw) * 5 // 8 + 3 * LEVELS // 8
    return np.where((shifted % width < joint) | (y % height < joint), 0, shade)


def patches(x: np.ndarray, y: np.ndarray, draw: Draw) -> np.ndarray:
    """Cells round scattered points (Voronoi), each of its own shade."""
    nearest, _ = _two_nearest(x, y, draw)
    return nearest * 389 % LEVELS


def cracks(x: np.ndarray, y: np.ndarray, draw: Draw) -> np.ndarray:
    """The seams between such cells."""
    _, gap = _two_nearest(x, y, draw)
    return gap.clip(0, draw(20, 60)) * 16 % LEVELS if draw(0, 1) else (gap * draw(8, 24)).clip(0, LEVELS - 1)


def clouds(x: np.ndarray, y: np.ndarray, draw: Draw) -> np.ndarray:
    """Noise at several scales, finer ones weaker or as strong."""
    finer = draw(1, 2)
    total, weights, cell = np.zeros(np.broadcast_shapes(x.shape, y.shape), np.int64), 0, draw(160, 400)
    for octave in range(4):
        weight = 8 >> octave if finer == 1 else 8
        total += weight * _smooth_noise(x, y, max(8, cell >> octave), draw)
        weights += weight
    return ((total // weights - LEVELS // 2) * 2 + LEVELS // 2).clip(0, LEVELS - 1)


def marble(x: np.ndarray, y: np.ndarray, draw: Draw) -> np.ndarray:
    """Stripes bent by noise."""
    strength, cell = draw(200, 500), draw(150, 350)
    bend = (_smooth_noise(x, y, cell, draw) * 2 + _smooth_noise(x, y, cell // 2, draw)) * strength // (3 * LEVELS)
    return _wave(x + bend, draw(80, 220))


FAMILIES: dict[str, Pattern] = {
    pattern.__name__: pattern for pattern in (stripes, checks, dots, waves, rings, bricks, patches, cracks, clouds, marble)
}


def _cell_value(column: np.ndarray, row: np.ndarray, draw: Draw) -> np.ndarray:
    """A shade for each cell of a lattice, 0 to 1023: the cells repeat after 64, more than a picture shows."""
    table = np.array([draw(0, LEVELS - 1) for _ in range(64)])
    return table[(table[column % 64] + row) % 64]


def _smooth_noise(x: np.ndarray, y: np.ndarray, cell: int, draw: Draw) -> np.ndarray:
    """Shades of lattice points, blended linearly between them."""
    table = np.array([draw(0, LEVELS - 1) for _ in range(64)])
    column, row = np.broadcast_arrays(x // cell, y // cell)
    right, below = (x % cell) * 256 // cell, (y % cell) * 256 // cell

    def corner(across: int, down: int) -> np.ndarray:
        return table[(table[(column + across) % 64] + row + down) % 64]

    top = corner(0, 0) * (256 - right) + corner(1, 0) * right
    bottom = corner(0, 1) * (256 - right) + corner(1, 1) * right
    return (top * (256 - below) + bottom * below) >> 16


def _two_nearest(x: np.ndarray, y: np.ndarray, draw: Draw) -> tuple[np.ndarray, np.ndarray]:
    """Which of scattered points is nearest to each position, and by how much nearer than the second, in units."""
    n_points = draw(25, 110)
    points = np.array([(draw(0, FRAME), draw(0, FRAME)) for _ in range(n_points)])
    # On a torus, so that turning and shifting the coordinates never runs out of points.
    across = np.abs((x % FRAME)[..., None] - points[:, 0])
    down = np.abs((y % FRAME)[..., None] - points[:, 1])
    distance = np.minimum(across, FRAME - across) ** 2 + np.minimum(down, FRAME - down) ** 2
    two = np.partition(distance, 1, axis=-1)
    root = np.sqrt(two[..., :2]).astype(np.int64)
    return distance.argmin(axis=-1), root[..., 1] - root[..., 0]


def _coloured(values: np.ndarray, draw: Draw) -> np.ndarray:
    """Values 0 to 1023 as colours uint8 [3, rows, columns]: three palette colours, the first dark, the last light, blended between."""
    dark = [draw(0, 110) for _ in range(3)]
    middle = [draw(40, 230) for _ in range(3)]
    light = [draw(140, 255) for _ in range(3)]
    low, high = values.clip(0, 511), (values - 512).clip(0, 511)
    channels = [d * (511 - low) + m * (low - high) + e * high for d, m, e in zip(dark, middle, light, strict=True)]
    return (np.stack(channels) // 511).astype(np.uint8)
