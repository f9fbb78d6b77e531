import numpy as np
import pytest

from crossdistill.probes._draws import below, raw_words, words16


def test_the_first_words_do_not_depend_on_how_many_are_drawn():
    index = np.array([0, 9, 10**9])
    assert np.array_equal(raw_words(5, index, 100)[:, :7], raw_words(5, index, 7))


def test_another_key_or_index_gives_another_stream():
    words = np.concatenate([raw_words(key, np.arange(50), 4) for key in (1, 2, 2**64 - 1)])
    assert len(np.unique(words)) == words.size


def test_words_are_those_of_numpys_philox():
    # The raw stream that NumPy promises to keep (NEP 19); written down with NumPy 2.4.
    assert raw_words(1, np.array([2]), 1)[0, 0] == 5705853004827290377


@pytest.mark.parametrize("n", [1, 2, 7, 224])
def test_below_covers_its_range_evenly(n):
    words = raw_words(3, np.arange(100), 100).ravel()
    counts = np.bincount(below(words, n), minlength=n)
    assert len(counts) == n
    # Each count is binomial; six standard deviations are left by chance once in 10**9.
    assert np.abs(counts - 10_000 / n).max() <= 6 * np.sqrt(10_000 / n)


def test_words16_reads_the_low_bits_first():
    assert words16(np.array([[0x0004_0003_0002_0001]], np.uint64)).tolist() == [[1, 2, 3, 4]]


def test_keys_above_two_to_the_63_are_not_rounded():
    assert not np.array_equal(raw_words(2**63 + 1, np.array([0]), 4), raw_words(2**63 + 2, np.array([0]), 4))
