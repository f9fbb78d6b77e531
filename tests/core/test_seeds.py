"""Keyed randomness: a decision's draws depend on its name alone."""

import numpy as np

from crossdistill.core.seeds import bits, key, permutation, torch_seed


def test_a_permutation_holds_every_row_once_and_is_the_same_each_time() -> None:
    first = permutation(100, 0, "student", 1, "order", 0)
    assert sorted(first) == list(range(100))
    assert np.array_equal(first, permutation(100, 0, "student", 1, "order", 0))
    assert not np.array_equal(first, permutation(100, 0, "student", 1, "order", 1))


def test_keys_above_2_to_the_63_keep_all_their_bits() -> None:
    large = next(n for n in range(100) if key(n) >= 1 << 63)
    assert int(bits(large).state["state"]["key"][0]) == key(large)


def test_raw_draws_are_pinned() -> None:
    # From NumPy 2.4 on x86-64; raw streams may never change (NEP 19), and every stored study depends on them.
    assert key(0, "student", 1, "order") == 2010014464658850285
    assert bits("pinned").random_raw(2).tolist() == [9393888572314130527, 17095213355473479079]
    assert permutation(6, "pinned").tolist() == [2, 3, 0, 4, 5, 1]


def test_torch_seeds_fit_a_signed_integer() -> None:
    assert all(0 <= torch_seed(n) < 1 << 63 for n in range(100))


def test_integers_of_numpy_are_the_numbers_they_are() -> None:
    assert key(np.uint64(2**64 - 1), "probe", np.int32(4)) == key(2**64 - 1, "probe", 4)
