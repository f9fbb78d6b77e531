"""Crops by integer arithmetic, held against torchvision's."""

import pytest
import torch
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.v2 import functional as F

from crossdistill.ops.random import image_keys
from crossdistill.train.boxes import Boxes
from crossdistill.train.crops import IN_CACHE, reflected, resized, resized_boxes

NOISE = torch.randint(0, 256, (8, 3, 40, 56), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
KEYS = image_keys(1, torch.arange(20_000))


def test_positions_outside_are_mirrored_at_the_border_pixel() -> None:
    assert reflected(torch.tensor([-2, -1, 0, 3, 4, 5]), 4).tolist() == [2, 1, 0, 3, 2, 1]


def test_a_box_twice_as_wide_by_hand() -> None:
    line = torch.tensor([9, 10, 20, 9], dtype=torch.uint8).view(1, 1, 1, 4).expand(1, 3, 1, 4)
    box = Boxes(*(torch.tensor([value]) for value in (0, 1, 1, 2)))
    shown = resized(line.contiguous(), torch.tensor([0]), box, torch.tensor([0]))
    # Pixels at -1/4, 1/4, 3/4 and 5/4 of the two: 10, 12.5 (a half rounds up), 17.5, 20; those outside the box play no part.
    assert shown[0, 0].tolist() == [[10, 13, 18, 20]]


@pytest.mark.parametrize("flip", [0, 1])
def test_resized_crops_are_torchvisions_to_one_grey_level(flip: int) -> None:
    boxes = resized_boxes(image_keys(7, torch.arange(8)), (40, 56), (0.08, 1.0))
    shown = resized(NOISE, torch.arange(8), boxes, torch.full((8,), flip))
    for row, image in enumerate(NOISE):
        expected = F.resized_crop(image, *(int(values[row]) for values in boxes), size=[40, 56], antialias=False)
        expected = expected.flip(2) if flip else expected
        # torchvision rounds twice, once for each direction, and its weights have fewer bits.
        assert (shown[row].int() - expected.int()).abs().max() <= 1


def test_resized_crops_are_the_exact_interpolation_rounded_once() -> None:
    boxes = resized_boxes(image_keys(7, torch.arange(8)), (40, 56), (0.08, 1.0))
    shown = resized(NOISE, torch.arange(8), boxes, torch.zeros(8, dtype=torch.int64))
    for row, (top, left, height, width) in enumerate(zip(*(values.tolist() for values in boxes), strict=True)):
        part = NOISE[row : row + 1, :, top : top + height, left : left + width].double()
        exact = torch.nn.functional.interpolate(part, (40, 56), mode="bilinear", antialias=False)[0]
        # Half a level of rounding, and weights to 2 ** -12 in either direction: 255 * 2 / 4096 = 0.125.
        assert (shown[row] - exact).abs().max() <= 0.5 + 0.125


def test_the_whole_image_as_a_box_is_the_image() -> None:
    whole = Boxes(*(torch.full((8,), value) for value in (0, 0, 40, 56)))
    assert torch.equal(resized(NOISE, torch.arange(8), whole, torch.zeros(8, dtype=torch.int64)), NOISE)


def test_large_batches_are_the_same_as_their_parts() -> None:
    images = NOISE[:2].repeat(1, 1, 6, 4)  # 240 x 224 pixels: more than fits into one part at six rows
    index, flip = torch.tensor([0, 1] * 6), torch.tensor([0, 0, 1] * 4)
    assert 12 * images[0].numel() > IN_CACHE
    boxes = resized_boxes(KEYS[:12], (240, 224), (0.08, 1.0))
    alone = [resized(images, index[[i]], Boxes(*(values[[i]] for values in boxes)), flip[[i]]) for i in range(12)]
    assert torch.equal(resized(images, index, boxes, flip), torch.cat(alone))


@pytest.mark.parametrize(("size", "scale"), [((224, 224), (0.08, 1.0)), ((96, 200), (0.08, 1.0)), ((64, 64), (0.5, 0.9))])
def test_boxes_are_distributed_as_torchvisions(size: tuple[int, int], scale: tuple[float, float]) -> None:
    boxes = resized_boxes(KEYS, size, scale)
    torch.manual_seed(0)
    image = torch.empty(3, *size)
    theirs = torch.tensor([RandomResizedCrop.get_params(image, list(scale), [3 / 4, 4 / 3]) for _ in range(2000)]).double()
    top, left, height, width = (values.double() for values in boxes)
    for ours, drawn in (
        (height * width / (size[0] * size[1]), theirs[:, 2] * theirs[:, 3] / (size[0] * size[1])),
        ((height / width).log(), (theirs[:, 2] / theirs[:, 3]).log()),
        (top, theirs[:, 0]),
        (left, theirs[:, 1]),
    ):
        for share in (0.05, 0.25, 0.5, 0.75, 0.95):
            limit = torch.quantile(ours, share)
            # A share of 2,000 draws has a standard error of at most 0.011, of 20,000 of 0.004.
            assert float((drawn <= limit).double().mean() - (ours <= limit).double().mean()) == pytest.approx(0, abs=0.05)


def test_a_box_lies_within_the_image_and_its_ratio_within_bounds() -> None:
    top, left, height, width = resized_boxes(KEYS, (224, 224), (0.08, 1.0))
    assert min(top.min(), left.min()) >= 0
    assert max((top + height).max(), (left + width).max()) <= 224
    assert (height / width).min() > 0.73  # 3/4, less the rounding of sides of 55 pixels and more
    assert (height / width).max() < 1.36
    assert ((height * width) / 224**2).min() > 0.078


def test_a_narrow_image_gets_its_largest_central_box_where_no_try_fits() -> None:
    boxes = resized_boxes(KEYS[:50], (8, 80), (1.0, 1.0))  # the whole area never has a ratio of 3/4 to 4/3
    assert {tuple(box) for box in torch.stack(boxes, 1).tolist()} == {(0, 34, 8, 11)}  # 8 * 4 / 3 = 10.7 pixels wide
