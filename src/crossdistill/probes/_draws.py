"""Keyed draws for images: what image i gets depends on (key, i) alone, never on the batch that it came in.

Only the raw stream of a bit generator is used, since NumPy keeps raw streams stable across versions and `Generator` methods not
(NEP 19).
"""

import numpy as np


def raw_words(key: int, index: np.ndarray, n_words: int) -> np.ndarray:
    """The first `n_words` raw 64-bit words of the stream (key, i) for each i of `index`: uint64 [images, words].

    >>> together = raw_words(7, np.array([3, 4]), 5)
    >>> bool((together[1] == raw_words(7, np.array([4]), 5)[0]).all())
    True
    """
    words = np.empty((len(index), n_words), np.uint64)
    for row, i in enumerate(index):
        # An array, since NumPy reads a list with a number above 2**63 as floats and so rounds the key.
        words[row] = np.random.Philox(key=np.array([key, i], np.uint64)).random_raw(n_words)
    return words


def below(words: np.ndarray, n: int) -> np.ndarray:
    """One integer from 0 to n - 1 for each word, int64; n up to 2**31. No value is favoured by more than n / 2**32.

    >>> below(np.array([0, 2**63, 2**64 - 1], np.uint64), 10)
    array([0, 5, 9])
    """
    high = words >> np.uint64(32)
    return ((high * np.uint64(n)) >> np.uint64(32)).astype(np.int64)


def words16(words: np.ndarray) -> np.ndarray:
    """Each 64-bit word as four 16-bit ones, low bits first on any machine: uint16 [images, 4 * words]."""
    return words.astype("<u8").view("<u2").astype(np.uint16, copy=False)
