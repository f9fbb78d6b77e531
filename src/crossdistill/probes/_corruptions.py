"""The 15 standard corruptions and their published strengths."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from crossdistill.probes._corruptions_blur import defocus_blur, glass_blur, motion_blur, zoom_blur
from crossdistill.probes._corruptions_digital import contrast, elastic_transform, jpeg_compression, pixelate
from crossdistill.probes._corruptions_noise import Draw, gaussian_noise, impulse_noise, shot_noise
from crossdistill.probes._corruptions_weather import brightness, fog, frost, require_frost, snow

LARGEST_SMALL_SIDE = 64  # pixels: up to here the strengths of CIFAR-10-C, beyond those of ImageNet-C
PIXELS = 244 / 224  # the published code takes shares of 244 for its images of 224 pixels


@dataclass(frozen=True)
class Corruption:
    """One kind: a function of (images, strength, draw), and its five strengths for small and for large images.

    What a strength means is said by the function. `require` raises SettingError where something is not installed.
    """

    apply: Callable[[np.ndarray, Any, Draw], np.ndarray]
    small: tuple[Any, ...]
    large: tuple[Any, ...]
    require: Callable[[], None] = lambda: None

    def strength(self, severity: int, size: tuple[int, int]) -> Any:
        """The strength of severity 1 to 5 for images of (height, width)."""
        return (self.small if max(size) <= LARGEST_SMALL_SIDE else self.large)[severity - 1]


CORRUPTIONS = {
    "gaussian_noise": Corruption(gaussian_noise, (4, 6, 8, 9, 10), (8, 12, 18, 26, 38)),
    "shot_noise": Corruption(shot_noise, (500, 250, 100, 75, 50), (60, 25, 12, 5, 3)),
    "impulse_noise": Corruption(impulse_noise, (1, 2, 3, 5, 7), (3, 6, 9, 17, 27)),
    "defocus_blur": Corruption(
        defocus_blur,
        ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
        ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    ),
    "glass_blur": Corruption(
        glass_blur,
        ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
        ((0.7, 1, 2), (0.9, 2, 1), (1.0, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
    ),
    "motion_blur": Corruption(
        motion_blur,
        ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
        ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    ),
    "zoom_blur": Corruption(
        zoom_blur,
        ((1, 7), (1, 12), (1, 16), (1, 21), (1, 26)),
        ((1, 12), (1, 16), (2, 11), (2, 13), (3, 11)),
    ),
    "snow": Corruption(
        snow,
        (
            (10, 20, 100, 60, 8, 3, 95),
            (10, 20, 100, 50, 10, 4, 90),
            (15, 30, 175, 55, 10, 4, 90),
            (25, 30, 225, 60, 12, 6, 85),
            (30, 30, 125, 65, 14, 12, 80),
        ),
        (
            (10, 30, 300, 50, 10, 4, 80),
            (20, 30, 200, 50, 12, 4, 70),
            (55, 30, 400, 90, 12, 8, 70),
            (55, 30, 450, 85, 12, 8, 65),
            (55, 30, 250, 85, 12, 12, 55),
        ),
    ),
    "frost": Corruption(
        frost,
        ((100, 20, 5), (100, 30, 5), (90, 40, 5), (85, 40, 5), (75, 45, 5)),
        ((100, 40, 1), (80, 60, 1), (70, 70, 1), (65, 70, 1), (60, 75, 1)),
        require_frost,
    ),
    "fog": Corruption(
        fog,
        ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
        ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
    ),
    "brightness": Corruption(brightness, (5, 10, 15, 20, 30), (10, 20, 30, 40, 50)),
    "contrast": Corruption(contrast, (75, 50, 40, 30, 15), (40, 30, 20, 10, 5)),
    "elastic_transform": Corruption(
        elastic_transform,
        ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
        (
            (2 * PIXELS, 0.7 * PIXELS, 0.1 * PIXELS),
            (2 * PIXELS, 0.08 * PIXELS, 0.2 * PIXELS),
            (0.05 * PIXELS, 0.01 * PIXELS, 0.02 * PIXELS),
            (0.07 * PIXELS, 0.01 * PIXELS, 0.02 * PIXELS),
            (0.12 * PIXELS, 0.01 * PIXELS, 0.02 * PIXELS),
        ),
    ),
    "pixelate": Corruption(pixelate, (95, 90, 85, 75, 65), (60, 50, 40, 30, 25)),
    "jpeg_compression": Corruption(jpeg_compression, (80, 65, 58, 50, 40), (25, 18, 15, 10, 7)),
}
