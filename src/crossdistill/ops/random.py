"""Keyed random bits for whole batches, on any device: the splitmix64 finaliser (Steele, Lea & Flood, OOPSLA 2014, fig. 17).

The draws of an image depend on its key alone, so neither batch order nor batch size nor device can change them.
"""

import torch
from torch import Tensor


def _signed(value: int) -> int:
    """A 64-bit pattern as the signed integer that torch stores."""
    return value - (1 << 64) if value >= 1 << 63 else value


GAMMA, MIX_1, MIX_2 = (_signed(c) for c in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def _shift(z: Tensor, n: int) -> Tensor:
    return (z >> n) & ((1 << (64 - n)) - 1)  # logical: torch's >> keeps the sign


def mixed(z: Tensor) -> Tensor:
    """A bijective hash of 64-bit integers; arithmetic wraps."""
    z = (z ^ _shift(z, 30)) * MIX_1
    z = (z ^ _shift(z, 27)) * MIX_2
    return z ^ _shift(z, 31)


def image_keys(key: int, index: Tensor) -> Tensor:
    """One 64-bit key (int64) for each image: of the decision `key` (core.seeds.key) and the image's row `index`."""
    return mixed(index * GAMMA + _signed(key))


def uniform_integers(keys: Tensor, count: int, high: int) -> Tensor:
    """int64 [batch, count], uniform over 0..high-1 (bias below high / 2**32), `count` draws for each key."""
    steps = torch.arange(1, count + 1, device=keys.device)
    return (_shift(mixed(keys[:, None] + steps * GAMMA), 32) * high) >> 32
