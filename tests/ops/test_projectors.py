"""RepDistiller's ConvReg: its sizes here, its values with the golden file of fitnet in tests/methods/test_fitnet.py."""

import pytest
import torch

from crossdistill.ops.projectors import BatchNorm, ConvRegressor, fits_conv_regressor


@pytest.mark.parametrize(
    ("student", "teacher"),
    [((4, 8, 6), (5, 4, 3)), ((4, 4, 3), (5, 8, 6)), ((4, 7, 7), (5, 5, 4)), ((4, 3, 3), (5, 3, 3)), ((4, 1, 1), (5, 1, 1))],
    ids=["half", "double", "smaller", "same", "one position"],
)
@pytest.mark.parametrize("n_images", [1, 3])
def test_the_regressor_leads_to_the_teachers_shape(student: tuple[int, ...], teacher: tuple[int, ...], n_images: int) -> None:
    assert fits_conv_regressor(student, teacher)
    assert ConvRegressor(student, teacher)(torch.randn(n_images, *student)).shape == (n_images, *teacher)


@pytest.mark.parametrize("teacher", [(5, 6, 6), (5, 3, 5)], ids=["half as large again", "one side smaller"])
def test_other_sizes_are_refused_with_the_numbers(teacher: tuple[int, ...]) -> None:
    assert not fits_conv_regressor((4, 4, 4), teacher)
    with pytest.raises(ValueError, match=f"not from 4 x 4 to {teacher[1]} x {teacher[2]}"):
        ConvRegressor((4, 4, 4), teacher)


@pytest.mark.parametrize("shape", [(1, 4), (1, 4, 1, 1)])
def test_batch_normalisation_answers_one_value_by_its_running_statistics_which_stay(shape: tuple[int, ...]) -> None:
    norm = BatchNorm(4).train()
    norm(torch.randn(6, 4) + 3)
    before = {name: value.clone() for name, value in norm.named_buffers()}
    one = torch.randn(shape)
    answer = norm(one)
    assert all(torch.equal(value, before[name]) for name, value in norm.named_buffers())
    assert torch.equal(answer, norm.eval()(one))


@pytest.mark.parametrize("shape", [(6, 4), (2, 4, 3, 3), (1, 4, 2, 1)])
def test_batch_normalisation_of_more_values_is_torchs_own(shape: tuple[int, ...]) -> None:
    values = torch.randn(shape) + 3
    ours, torchs = BatchNorm(4), (torch.nn.BatchNorm1d(4) if len(shape) == 2 else torch.nn.BatchNorm2d(4))
    assert torch.equal(ours(values), torchs(values))
    assert torch.equal(ours.running_var, torchs.running_var)


def test_only_without_the_relu_can_an_answer_be_negative() -> None:
    grid = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    assert ConvRegressor((3, 5, 5), (2, 5, 5))(grid).min() == 0
    assert ConvRegressor((3, 5, 5), (2, 5, 5), rectified=False)(grid).min() < 0
