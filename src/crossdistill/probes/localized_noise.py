"""Localised noise: Gaussian noise inside one square, nothing changed outside (after Gu, Tresp and Qin, ECCV 2022, patch perturbations).

Beyond sigma 0.5 clipping makes the noise an occlusion, hence the presets stop there. What noise does without being local is shown by
`spread_noise`.
"""

from typing import Literal

import numpy as np

from crossdistill.core.registry import probe
from crossdistill.core.types import ProbeImages
from crossdistill.probes._checks import check_images
from crossdistill.probes._noise import FULL, QUICK, noisy_squares


@probe(
    isolates=(
        "Tolerance of local damage: one square of the image is drowned in noise, the rest is untouched. A high accuracy means that "
        "the answer does not hang on any one region."
    ),
    about=("locality", "noise"),
    quick=QUICK,
    full=FULL,
    draws={"quick": 1, "full": 5},
    null={"sigma": 0.0},
)
def localized_noise(
    images: np.ndarray,
    labels: np.ndarray,
    index: np.ndarray,
    seed: int,
    *,
    fraction: float = 0.2,
    sigma: float = 0.5,
    position: Literal["random", "centre"] = "random",
) -> ProbeImages:
    """Images uint8 [images, 3, height, width] with Gaussian noise inside one square each, clipped once.

    `fraction` is the share of the largest square that fits (above 0, at most 1), `sigma` the noise in units of the full range. The square
    stands anywhere fully inside, or in the centre; factors `top` and `left` say where. Levels draw apart from one another; the two
    positions share their noise. Raises SettingError for a fraction or sigma out of range and for another position.
    """
    check_images(images)
    noisy, top, left = noisy_squares(images, index, seed, fraction, sigma, position)
    return ProbeImages(noisy, np.arange(len(noisy)), labels, {"top": top, "left": left})
