"""Random erasing: torchvision's boxes, in the mean colour."""

import pytest
import torch
from torchvision.transforms import RandomErasing

from crossdistill.ops.random import image_keys
from crossdistill.train.boxes import drawn_boxes
from crossdistill.train.erasing import AREA, RATIO, erased, mean_color

GREY = torch.tensor([7, 8, 9], dtype=torch.uint8)


def test_the_mean_colour_by_hand() -> None:
    images = torch.tensor([[[0, 1], [10, 10], [255, 254]], [[2, 4], [10, 10], [255, 254]]], dtype=torch.uint8)[..., None]
    assert mean_color(images).tolist() == [2, 10, 255]  # 7/4 and 254.5, a half rounds up


def test_the_mean_colour_of_many_images_is_taken_from_all_over_the_set() -> None:
    images = torch.zeros(1500, 3, 2, 2, dtype=torch.uint8)
    images[750:] = 100  # sorted by class, as folders are
    assert mean_color(images).tolist() == [50, 50, 50]


def test_what_is_erased_is_one_box_in_the_colour_and_the_rest_stays() -> None:
    images = torch.full((64, 3, 32, 32), 200, dtype=torch.uint8)
    for image in erased(images, image_keys(3, torch.arange(64)), 1.0, GREY):
        gone = image[0] == 7
        rows, columns = gone.any(dim=1), gone.any(dim=0)
        assert 0 < gone.sum() < 32 * 32
        assert torch.equal(gone, rows[:, None] & columns)  # a rectangle
        assert rows.int().diff().abs().sum() <= 2  # without a gap
        assert torch.equal(image[:, gone], GREY[:, None].expand(3, int(gone.sum())))
        assert (image[:, ~gone] == 200).all()


def test_about_the_asked_share_of_images_is_erased_and_none_at_zero() -> None:
    images, keys = torch.zeros(4000, 3, 4, 4, dtype=torch.uint8), image_keys(3, torch.arange(4000))
    touched = (erased(images, keys, 0.25, GREY) != 0).flatten(1).any(dim=1).float().mean()
    assert touched == pytest.approx(0.25, abs=0.035)  # five standard errors of 4,000 draws; at 4 px nearly every box is found
    assert torch.equal(erased(images, keys, 0.0, GREY), images)


@pytest.mark.parametrize("size", [(32, 32), (96, 200)])
def test_boxes_are_distributed_as_torchvisions(size: tuple[int, int]) -> None:
    height, width = size
    boxes = drawn_boxes(image_keys(1, torch.arange(20_000)), size, area=AREA, ratio=RATIO, most=(height - 1, width - 1))
    torch.manual_seed(0)
    image = torch.zeros(3, *size)
    theirs = torch.tensor([RandomErasing.get_params(image, AREA, RATIO, [0.0])[:4] for _ in range(2000)]).double()
    assert (boxes.height > 0).all()
    ours = torch.stack(boxes, 1).double()
    for of in (lambda b: b[:, 2] * b[:, 3], lambda b: (b[:, 2] / b[:, 3]).log(), lambda b: b[:, 0], lambda b: b[:, 1]):
        for share in (0.05, 0.25, 0.5, 0.75, 0.95):
            limit = torch.quantile(of(ours), share)
            # A share of 2,000 draws has a standard error of at most 0.011, of 20,000 of 0.004.
            assert float((of(theirs) <= limit).double().mean() - (of(ours) <= limit).double().mean()) == pytest.approx(0, abs=0.05)
