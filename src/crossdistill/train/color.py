"""TrivialAugment (Müller & Hutter, ICCV 2021, https://arxiv.org/abs/2103.10158) and RandAugment (Cubuk et al., NeurIPS 2020,
https://arxiv.org/abs/1909.13719) for each image by its key, with torchvision's operations and in torchvision's strengths; and the way
to colour jitter, which stands in `jitter`.

The draws are ours, since seeding torch's generator for each image takes longer than any of these operations. Images of a batch that
drew the same operation and strength go through it together; it treats each as if it were alone.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from crossdistill.ops.random import uniform_integers
from crossdistill.train.boxes import DRAW
from crossdistill.train.jitter import jittered

BINS = 31  # strengths of each operation
ROUNDS = {"trivial_augment": 1, "rand_augment": 2}  # operations in a row
RAND_STRENGTH = 9  # of 0 to 30, the same for every operation of RandAugment
SIGNED = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate", "brightness", "saturation", "contrast", "sharpness")


def recolored(images: Tensor, keys: Tensor, policy: str) -> Tensor:
    """The images uint8 [batch, 3, height, width], each after the operations that its key draws; black comes in from outside.

    The draws are read by the host: on another device this waits for it.
    """
    if policy == "jitter":
        return jittered(images, keys)
    choices = _choices(policy, *images.shape[2:])
    draws = uniform_integers(keys, 2 * ROUNDS[policy], DRAW).view(len(keys), -1, 2)
    for of_round in draws.cpu().unbind(1):
        together = defaultdict(list)
        for row, (operation, strength) in enumerate(of_round.tolist()):
            name, strengths = choices[operation * len(choices) // DRAW]
            together[name, strengths[strength * len(strengths) // DRAW]].append(row)
        images = _applied(images, together)
    return images


def _applied(images: Tensor, together: dict[tuple[str, float], list[int]]) -> Tensor:
    changed = images.clone()
    for (name, strength), rows in together.items():
        if name != "identity":
            changed[rows] = operations()[name](images[rows], strength)
    return changed


@cache
def _choices(policy: str, height: int, width: int) -> list[tuple[str, Sequence[float]]]:
    """Every operation, all equally likely, with its strengths, all equally likely; those that have a sign stand in both."""
    strengths = trivial_strengths() if policy == "trivial_augment" else rand_strengths(height, width)
    if policy == "rand_augment":
        strengths = {name: values[RAND_STRENGTH : RAND_STRENGTH + 1] for name, values in strengths.items()}
    signed = {name: [*values, *(-value for value in values)] if name in SIGNED else values for name, values in strengths.items()}
    return [(name, signed.get(name, [0.0])) for name in operations()]


def trivial_strengths() -> dict[str, list[float]]:
    """The strengths of torchvision's TrivialAugmentWide. Shifts are up to 32 pixels, whatever the size."""
    return {
        **dict.fromkeys(SIGNED, _up_to(0.99)), "translate_x": _up_to(32.0), "translate_y": _up_to(32.0), "rotate": _up_to(135.0),
        "posterize": _bits(6), "solarize": _thresholds(),
    }  # fmt: skip


def rand_strengths(height: int, width: int) -> dict[str, list[float]]:
    """The strengths of torchvision's RandAugment. Shifts are up to 150/331 of the side."""
    return {
        **dict.fromkeys(SIGNED, _up_to(0.9)), "shear_x": _up_to(0.3), "shear_y": _up_to(0.3), "rotate": _up_to(30.0),
        "translate_x": _up_to(150 / 331 * width), "translate_y": _up_to(150 / 331 * height),
        "posterize": _bits(4), "solarize": _thresholds(),
    }  # fmt: skip


def _up_to(most: float) -> list[float]:
    return torch.linspace(0.0, most, BINS).tolist()


def _thresholds() -> list[float]:
    """Shares of full brightness from which on a pixel is inverted, the weakest first."""
    return torch.linspace(1.0, 0.0, BINS).tolist()


def _bits(taken: int) -> list[float]:
    """The bits that are left of 8 where up to `taken` are taken."""
    return (8 - torch.arange(BINS) / ((BINS - 1) / taken)).round().tolist()


@cache
def operations() -> dict[str, Callable[[Tensor, float], Tensor]]:
    """The operations of both policies by name: (images uint8 [batch, 3, height, width], strength) -> images."""
    from torchvision.transforms.v2 import functional as F  # takes a second to import

    def moved(images: Tensor, x: float = 0, y: float = 0) -> Tensor:
        return F.affine(images, angle=0.0, translate=[int(x), int(y)], scale=1.0, shear=[0.0, 0.0])

    def sheared(images: Tensor, x: float = 0.0, y: float = 0.0) -> Tensor:
        shear = [math.degrees(math.atan(x)), math.degrees(math.atan(y))]
        return F.affine(images, angle=0.0, translate=[0, 0], scale=1.0, shear=shear, center=[0, 0])

    found: dict[str, Callable[[Tensor, float], Any]] = {
        "identity": lambda images, _: images,
        "shear_x": lambda images, strength: sheared(images, x=strength),
        "shear_y": lambda images, strength: sheared(images, y=strength),
        "translate_x": lambda images, strength: moved(images, x=strength),
        "translate_y": lambda images, strength: moved(images, y=strength),
        "rotate": lambda images, strength: F.rotate(images, strength),
        "brightness": lambda images, strength: F.adjust_brightness(images, 1 + strength),
        "saturation": lambda images, strength: F.adjust_saturation(images, 1 + strength),
        "contrast": lambda images, strength: F.adjust_contrast(images, 1 + strength),
        "sharpness": lambda images, strength: F.adjust_sharpness(images, 1 + strength),
        "posterize": lambda images, strength: F.posterize(images, int(strength)),
        "solarize": lambda images, strength: F.solarize(images, 255 * strength),
        "autocontrast": lambda images, _: F.autocontrast(images),
        "equalize": lambda images, _: F.equalize(images),
    }
    return found
