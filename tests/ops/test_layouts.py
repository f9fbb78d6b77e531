import pytest
import torch

from crossdistill.ops.layouts import grid_from_tokens, tokens_from_grid, widened_map


def test_a_grid_survives_the_way_to_tokens_and_back():
    grid = torch.arange(2 * 3 * 2 * 4).view(2, 3, 2, 4)
    assert torch.equal(grid_from_tokens(tokens_from_grid(grid), (2, 4)).grid, grid)


def test_token_n_stands_at_row_n_by_width_and_column_n_modulo_width():
    tokens = torch.arange(6).view(1, 6, 1)
    assert grid_from_tokens(tokens, (2, 3)).grid[0, 0, 1, 2] == 1 * 3 + 2


def test_prefix_tokens_are_kept_apart():
    feature_map = grid_from_tokens(torch.arange(8).view(1, 8, 1), (2, 3), n_prefix=2)
    assert feature_map.prefix is not None
    assert feature_map.prefix.flatten().tolist() == [0, 1]
    assert feature_map.grid.flatten().tolist() == [2, 3, 4, 5, 6, 7]


def test_tokens_that_do_not_fit_the_grid_are_refused_with_the_numbers():
    with pytest.raises(ValueError, match="8 tokens are not 1 prefix tokens and a 2 x 3 grid"):
        grid_from_tokens(torch.zeros(1, 8, 1), (2, 3), n_prefix=1)


def test_widening_covers_grid_and_prefix():
    half = grid_from_tokens(torch.zeros(1, 5, 1, dtype=torch.bfloat16), (2, 2), n_prefix=1)
    wide = widened_map(half)
    assert wide.prefix is not None
    assert wide.grid.dtype == wide.prefix.dtype == torch.float32
