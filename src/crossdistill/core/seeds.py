"""Keyed randomness: every random decision has a name, and its draws depend on that name alone.

No generator is ever shared between decisions, so results do not depend on batch order, worker count, resume point or on
which other arms run. A key is made of plain values: (study seed, role, run seed, purpose, epoch, index).
"""

import hashlib
import json
import operator

import numpy as np

Part = str | int | float | bool | None


def key(*parts: Part) -> int:
    """A 64-bit key for the named decision; NumPy's integers count as the numbers that they are.

    >>> key(0, "student", 1, "order", 3) == key(0, "student", 1, "order", np.int64(3)) != key(0, "student", 1, "order", 4)
    True
    """
    text = json.dumps(parts, separators=(",", ":"), default=operator.index)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def bits(*parts: Part) -> np.random.Philox:
    """A raw bit generator for the named decision; NumPy keeps raw streams stable across versions (NEP 19)."""
    return np.random.Philox(key=np.array([key(*parts), 0], np.uint64))  # a list would pass through float64 and lose bits


def permutation(n: int, *parts: Part) -> np.ndarray:
    """A uniform permutation of 0..n-1 (int64), from raw draws: equal across NumPy versions, unlike `Generator.permutation`."""
    return np.argsort(bits(*parts).random_raw(n), kind="stable")


def torch_seed(*parts: Part) -> int:
    """A seed for torch's global generator: 63 bits, since torch takes a signed integer."""
    return key(*parts) >> 1
