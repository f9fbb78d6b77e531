import pytest
import torch

from crossdistill.ops.layouts import grid_from_tokens, normalized_channels, to_common_grid, tokens_from_grid, widened_map


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


@pytest.mark.parametrize(
    ("student", "teacher"), [((8, 8), (4, 4)), ((4, 4), (8, 8)), ((14, 14), (5, 5)), ((3, 8), (6, 4)), ((5, 5), (5, 5))]
)
def test_the_common_grid_is_the_smaller_along_each_axis(student: tuple[int, int], teacher: tuple[int, int]):
    grids = to_common_grid(torch.randn(2, 3, *student), torch.randn(2, 7, *teacher))
    size = (min(student[0], teacher[0]), min(student[1], teacher[1]))
    assert [tuple(grid.shape) for grid in grids] == [(2, 3, *size), (2, 7, *size)]


def test_a_grid_that_has_the_size_already_is_not_touched_and_the_larger_is_averaged():
    student, teacher = torch.arange(16.0).view(1, 1, 4, 4), torch.zeros(1, 1, 2, 2)
    pooled, same = to_common_grid(student, teacher)
    assert same is teacher
    assert pooled.flatten().tolist() == [2.5, 4.5, 10.5, 12.5]  # means of the four 2 x 2 squares, such as (0 + 1 + 4 + 5) / 4


def test_channels_are_normalised_at_each_position():
    grid = 1e4 * torch.randn(2, 6, 3, 4, generator=torch.Generator().manual_seed(0)) + 7
    normal = normalized_channels(grid)
    assert normal.shape == grid.shape
    assert torch.allclose(normal.mean(dim=1), torch.zeros(2, 3, 4), atol=1e-5)  # float32 rounding
    assert torch.allclose(normal.var(dim=1, unbiased=False), torch.ones(2, 3, 4), atol=1e-4)
