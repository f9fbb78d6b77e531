"""Common corruptions: noise, blur, weather and digital damage, 15 kinds at 5 severities (Hendrycks and Dietterich, ICLR 2019, https://arxiv.org/abs/1903.12261).

All are made here in whole numbers, so that bytes are equal on every machine, except two kinds: `jpeg_compression` depends on Pillow's
libjpeg, and `frost` on how it decodes the photographs that the package imagecorruptions-imaug brings (the extra `corruptions`).
"""

from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from crossdistill.core.errors import SettingError, unknown_name
from crossdistill.core.registry import probe
from crossdistill.core.seeds import key
from crossdistill.core.types import ProbeImages
from crossdistill.probes._checks import check_images
from crossdistill.probes._corruptions import CORRUPTIONS
from crossdistill.probes._draws import raw_words, words16

CHUNK_VALUES = 2**19  # of images that are worked on at once, so that what is made on the way stays in the cache


def full_levels(size: tuple[int, int]) -> list[dict[str, Any]]:
    """All 75: each kind at severities 1 to 5, whatever the size and whatever is installed."""
    return [{"kind": kind, "severity": severity} for kind in CORRUPTIONS for severity in range(1, 6)]


def _installed(kind: str) -> str:
    """The kind itself. Refused where it needs what is not installed: thus already as a setting, before anything is built."""
    try:
        CORRUPTIONS[kind].require()
    except SettingError as error:
        raise PydanticCustomError("not_installed", "{why}", {"why": str(error)}) from error
    return kind


Kind = Annotated[
    Literal[
        "gaussian_noise",
        "shot_noise",
        "impulse_noise",
        "defocus_blur",
        "glass_blur",
        "motion_blur",
        "zoom_blur",
        "snow",
        "frost",
        "fog",
        "brightness",
        "contrast",
        "elastic_transform",
        "pixelate",
        "jpeg_compression",
    ],
    AfterValidator(_installed),
]


@probe(
    isolates=(
        "Tolerance of one common corruption: the whole image suffers from noise, blur, weather or digital processing, at a published "
        "strength. A high accuracy means that this damage is tolerated; it says nothing about shape or texture."
    ),
    about=("noise",),
    quick=[{"kind": kind, "severity": 3} for kind in ("gaussian_noise", "motion_blur", "elastic_transform")],
    full=full_levels,
    draws={"quick": 1, "full": 1},
    null={"severity": 0},
    core=False,
)
def corrupt(
    images: np.ndarray,
    labels: np.ndarray,
    index: np.ndarray,
    seed: int,
    *,
    kind: Kind = "gaussian_noise",
    severity: Literal[0, 1, 2, 3, 4, 5] = 3,
) -> ProbeImages:
    """Images uint8 [images, 3, height, width] under one corruption of severity 1 (mild) to 5; 0 leaves them as they are.

    Strengths are those published for CIFAR-10-C where no side exceeds 64 pixels, and those of ImageNet-C for larger images. Lengths
    are in pixels as published, whatever the size, but for `elastic_transform`, where they are shares of the shorter side. Values are
    rounded where the published code cuts the fraction off, hence half a grey level brighter on average; `motion_blur` and `snow` smear
    as ImageMagick does; `glass_blur` copies pixels as the published code does, where its text says that it swaps them;
    `elastic_transform` interpolates once instead of twice. Raises SettingError for a severity out of range and where `frost` lacks its
    photographs, UnknownNameError for another kind.
    """
    check_images(images)
    if kind not in CORRUPTIONS:
        raise unknown_name("corruption", kind, CORRUPTIONS)
    if severity not in range(6):
        raise SettingError(f"severity must be 0 (none) to 5, got {severity}")
    everything = np.arange(len(images))
    if severity == 0:
        return ProbeImages(np.array(images), everything, labels)

    corruption = CORRUPTIONS[kind]
    strength = corruption.strength(severity, images.shape[2:])
    level_key = key(seed, kind, severity)
    corrupted = np.empty(images.shape, np.uint8)
    step = max(1, CHUNK_VALUES // max(1, images[:1].size))
    for start in range(0, len(images), step):
        rows = slice(start, start + step)

        def draw(n: int, rows: slice = rows) -> np.ndarray:
            return words16(raw_words(level_key, index[rows], -(-n // 4)))[:, :n]

        corrupted[rows] = corruption.apply(images[rows], strength, draw)
    return ProbeImages(corrupted, everything, labels)
